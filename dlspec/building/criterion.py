"""Joins a network's end, a loss and a target: which loss fits, how the target is given to it, what is predicted.

Everything is decided once, when the network is built; a training step only calls.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlspec.building.network import BuiltLayer, Network, kept_random_state
from dlspec.data.dataset import Target
from dlspec.registry.schema import Schema
from dlspec.spec.mistakes import Mistakes
from dlspec.spec.yaml_files import KeyPath

TensorFunction = Callable[[Tensor], Tensor]


class Criterion(nn.Module):
    """`criterion(output, target)` is the mean loss, `predict(output)` what the network says, in the target's terms.

    Predictions are probabilities, (N, K) for K classes and (N,) of the second class for two, or numbers in the
    target's own unit. `truth(target)` is the target in the form that metrics compare with.
    """

    def __init__(self, loss: nn.Module, output: TensorFunction, target: TensorFunction,
                 predict: TensorFunction, truth: TensorFunction) -> None:  # fmt: skip
        super().__init__()
        self.loss = loss
        self._output, self._target = output, target
        self.predict, self.truth = predict, truth

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = self.loss(self._output(output), self._target(target))
        return loss


@dataclass(frozen=True)
class LossRule:
    """What one loss wants at the network's end, and how its output becomes a prediction.

    A loss of the user's own says so itself, where it differs from the rule of all others: by the class attribute
    `takes_class_numbers = True` (classes as int64, else one-hot), and by a method `predict(output)`.
    """

    predict: TensorFunction
    takes_class_numbers: bool = False
    refused_ends: tuple[str, ...] = ()
    wanted_ends: tuple[str, ...] = ()
    fix: str = ""
    for_numbers: bool = True
    signed: bool = False
    counts: bool = False


def _identity(value: Tensor) -> Tensor:
    return value


def _softmax(output: Tensor) -> Tensor:
    return output.softmax(dim=1)


def _clamp(output: Tensor) -> Tensor:
    return output.clamp(0, 1)


_LOGITS = "remove it: the loss contains it, and predictions come out as probabilities"
_SOFT = ("Softmax", "Softmax2d", "Softmin", "Sigmoid", "Hardsigmoid", "LogSigmoid")
_RULES: Mapping[str, LossRule] = {
    "CrossEntropyLoss": LossRule(_softmax, True, _SOFT, fix=_LOGITS, for_numbers=False),
    "NLLLoss": LossRule(torch.exp, True, wanted_ends=("LogSoftmax",), for_numbers=False,
                        fix="end with a LogSoftmax: {dim: 1}, or take CrossEntropyLoss"),
    "MultiMarginLoss": LossRule(_softmax, True, _SOFT, for_numbers=False,
                                fix="remove it: the loss wants scores without a bound"),
    "BCEWithLogitsLoss": LossRule(torch.sigmoid, False, (*_SOFT, "LogSoftmax"), fix=_LOGITS, for_numbers=False),
    "MultiLabelSoftMarginLoss": LossRule(torch.sigmoid, False, (*_SOFT, "LogSoftmax"), fix=_LOGITS, for_numbers=False),
    "SoftMarginLoss": LossRule(torch.sigmoid, False, (*_SOFT, "LogSoftmax"), fix=_LOGITS, for_numbers=False,
                               signed=True),
    "BCELoss": LossRule(_clamp, wanted_ends=("Sigmoid", "Softmax", "Hardsigmoid"), for_numbers=False,
                        fix="end with a Sigmoid, or take BCEWithLogitsLoss"),
    "KLDivLoss": LossRule(torch.exp, wanted_ends=("LogSoftmax",), for_numbers=False,
                          fix="end with a LogSoftmax: {dim: 1}"),
    "PoissonNLLLoss": LossRule(torch.exp, refused_ends=_SOFT, fix="end with a Linear", counts=True),
}  # fmt: skip
_OTHERS = LossRule(_clamp)
# Behind one of these the end is still what it was.
_PASSING = ("Identity", "Flatten", "Unflatten", "Dropout", "AlphaDropout", "FeatureAlphaDropout")
_OVER_CLASSES = ("Softmax", "LogSoftmax", "Softmin")


def _rule_of(schema: Schema, settings: Mapping[str, Any]) -> LossRule:
    if schema.name == "PoissonNLLLoss" and settings.get("log_input") is False:
        return replace(_RULES[schema.name], predict=_identity)
    if schema.name in _RULES or not inspect.isclass(schema.build):
        return _RULES.get(schema.name, _OTHERS)
    return replace(_OTHERS, takes_class_numbers=bool(getattr(schema.build, "takes_class_numbers", False)))


def _end(network: Network) -> BuiltLayer:
    """The last layer that changes what the outputs mean."""
    return next((each for each in reversed(network.layers) if each.type not in _PASSING), network.layers[-1])


def auto_loss(network: Network, target: Target) -> str:
    """The loss that `loss: auto` means for this target and this network's end."""
    end = _end(network).type
    if target.kind == "numbers":
        return "MSELoss"
    if target.num_outputs == 1 and network.output.shape == (1,):
        return "BCELoss" if end == "Sigmoid" else "BCEWithLogitsLoss"
    return "NLLLoss" if end == "LogSoftmax" else "CrossEntropyLoss"


def make_criterion(
    network: Network, target: Target, schema: Schema, settings: Mapping[str, Any], mistakes: Mistakes, path: KeyPath
) -> Criterion | None:
    """The criterion, or None where the network's end, the loss and the target do not fit together.

    `path` is where the loss was written, for its mistakes.
    """
    rule = _rule_of(schema, settings)
    if not _fits_target(rule, schema.name, target, mistakes, path):
        return None
    if not _fits_end(rule, schema.name, network, mistakes):
        return None
    if not _fits_shape(rule, schema.name, network, target, mistakes):
        return None
    try:
        loss = schema.build(**_tensors(settings))
        rule = replace(rule, predict=getattr(loss, "predict", rule.predict))
        criterion = Criterion(loss, *_adapters(rule, network, target), *_predictors(rule, network, target))
        with kept_random_state():
            _try(criterion, network, target)
    except Exception as error:
        who = "PyTorch" if hasattr(nn, schema.name) else "its own code"
        reason = str(error).strip().split("\n")[0][:200]
        mistakes.add(
            path, f"{schema.name} can't compare {network.output} with '{target.name}'", f"{who} says: {reason}"
        )
        return None
    return criterion


def _try(criterion: Criterion, network: Network, target: Target) -> None:
    """Compares made-up batches, so that class weights of a wrong length are found before anything runs.

    Two sizes of a batch: what fits both is not there by chance.
    """
    for rows in (2, 3):
        output = torch.full((rows, *network.output.shape), 0.5)
        classes, numbers = torch.zeros(rows, dtype=torch.int64), torch.ones(rows, *target.shape)
        loss = criterion(output, classes if target.kind == "classes" else numbers)
        if loss.dim():
            raise ValueError(f"the loss has shape {tuple(loss.shape)}; a single number is wanted, the batch's mean")


def _fits_target(rule: LossRule, loss: str, target: Target, mistakes: Mistakes, path: KeyPath) -> bool:
    if len(target.shape) > 1:  # PyTorch would compare each number with each other one
        found = f"{loss} compares one number or a row of numbers a sample, and '{target.name}' has {target.shape}"
        mistakes.add(path, found, f"give targets of shape (N, {target.num_outputs}); others are not there yet")
        return False
    if target.kind == "numbers" and not rule.for_numbers:
        found = f"{loss} wants classes, and '{target.name}' is a number"
        mistakes.add(path, found, "take MSELoss, L1Loss, SmoothL1Loss or HuberLoss")
        return False
    if rule.counts and target.kind == "classes":
        mistakes.add(path, f"{loss} wants counts, and '{target.name}' has classes", "take CrossEntropyLoss")
        return False
    if rule.counts and target.scale is not None:
        found = f"{loss} wants counts, and '{target.name}' is standardised"
        mistakes.add(path, found, "take data.standardize_target=false, or MSELoss")
        return False
    return True


def _fits_end(rule: LossRule, loss: str, network: Network, mistakes: Mistakes) -> bool:
    end = _end(network)
    path = _path_of(end)
    if end.type in rule.refused_ends:
        article = "an" if end.type[0] in "AEIOU" else "a"
        mistakes.add(path, f"{article} {end.type} before {loss}", rule.fix)
        return False
    if rule.wanted_ends and end.type not in rule.wanted_ends:
        wanted = " or ".join(rule.wanted_ends)
        mistakes.add(path, f"{loss} wants {wanted} at the end, and {end.type} stands there", rule.fix)
        return False
    if end.type in _OVER_CLASSES and network.output.shape == (1,):
        mistakes.add(path, f"a {end.type} over one output always gives the same", "end with a Sigmoid, or 2 outputs")
        return False
    return True


def _path_of(layer: BuiltLayer) -> KeyPath:
    return ("model", "layers", int(layer.name) if layer.name.isdigit() else layer.name)


def _fits_shape(rule: LossRule, loss: str, network: Network, target: Target, mistakes: Mistakes) -> bool:
    wanted = _wanted_outputs(rule, target)
    if network.output.shape in [(size,) for size in wanted]:
        return True
    sizes = " or ".join(f"({size})" for size in wanted)
    found = f"the network gives {network.output}, and {loss} wants {sizes}: '{target.name}' {_holds(target)}"
    fix = f"end with Linear: {wanted[0]}" if len(network.output.shape) == 1 else "end with Flatten and Linear"
    general = ", or Linear: ${data.num_outputs}" if target.num_outputs in wanted else ""
    mistakes.add(_path_of(network.layers[-1]), found, fix + general)
    return False


def _holds(target: Target) -> str:
    if target.classes:
        return f"has {len(target.classes)} classes"
    return f"holds {target.num_outputs} numbers" if target.num_outputs > 1 else "is a number"


def _wanted_outputs(rule: LossRule, target: Target) -> list[int]:
    if target.kind == "numbers":
        return [target.num_outputs]
    count = len(target.classes)
    if rule.takes_class_numbers:
        return [count]
    return [1, 2] if count == 2 else [count]


def _tensors(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Class weights are lists in YAML and tensors to PyTorch."""
    return {name: torch.tensor(each) if isinstance(each, list) else each for name, each in settings.items()}


def _adapters(rule: LossRule, network: Network, target: Target) -> tuple[TensorFunction, TensorFunction]:
    """How output and target are given to the loss: (N, 1) against (N,), and classes as numbers or one-hot."""
    outputs = network.output.shape[0]
    if target.kind == "numbers":
        return (_identity if target.shape else _squeeze), _identity
    if rule.takes_class_numbers:
        return _identity, _identity
    aim = _as_float if outputs == 1 else _one_hot(outputs)
    signed: TensorFunction = (lambda classes: aim(classes) * 2 - 1) if rule.signed else aim
    return (_squeeze if outputs == 1 else _identity), signed


def _squeeze(output: Tensor) -> Tensor:
    return output.squeeze(1)


def _as_float(classes: Tensor) -> Tensor:
    return classes.to(torch.get_default_dtype())


def _one_hot(count: int) -> TensorFunction:
    return lambda classes: functional.one_hot(classes, count).to(torch.get_default_dtype())


def _predictors(rule: LossRule, network: Network, target: Target) -> tuple[TensorFunction, TensorFunction]:
    if target.kind == "numbers":
        return _numbers(rule, target)
    if network.output.shape[0] == 1:
        return (lambda output: rule.predict(output).squeeze(1)), _identity
    if len(target.classes) == 2:
        return (lambda output: rule.predict(output)[:, 1]), _identity
    return rule.predict, _identity


def _numbers(rule: LossRule, target: Target) -> tuple[TensorFunction, TensorFunction]:
    """Numbers in the target's own unit, whatever scale the network learns them on."""
    mean, deviation = target.scale or (0.0, 1.0)
    shape: TensorFunction = _identity if target.shape else _squeeze
    end: TensorFunction = rule.predict if rule.predict is not _clamp else _identity
    return (lambda output: end(shape(output)) * deviation + mean), (lambda numbers: numbers * deviation + mean)
