"""Joins a network's end, a loss and a target: which loss fits, how the target is given to it, what is predicted.

Everything is decided once, when the network is built; a training step only calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlspec.building.network import Network
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
    """What one loss wants at the network's end, and how its output becomes a prediction."""

    predict: TensorFunction
    takes_class_numbers: bool = False
    refused_ends: tuple[str, ...] = ()
    wanted_ends: tuple[str, ...] = ()
    fix: str = ""
    for_numbers: bool = True
    signed: bool = False


def _identity(value: Tensor) -> Tensor:
    return value


def _softmax(output: Tensor) -> Tensor:
    return output.softmax(dim=1)


def _clamp(output: Tensor) -> Tensor:
    return output.clamp(0, 1)


_LOGITS = "remove it: the loss contains it, and predictions come out as probabilities"
_RULES: Mapping[str, LossRule] = {
    "CrossEntropyLoss": LossRule(_softmax, True, ("Softmax", "Softmax2d", "Sigmoid"), fix=_LOGITS, for_numbers=False),
    "NLLLoss": LossRule(torch.exp, True, wanted_ends=("LogSoftmax",), for_numbers=False,
                        fix="end with a LogSoftmax: {dim: 1}, or take CrossEntropyLoss"),
    "MultiMarginLoss": LossRule(_softmax, True, for_numbers=False),
    "BCEWithLogitsLoss": LossRule(torch.sigmoid, False, ("Sigmoid", "Softmax", "LogSigmoid"), fix=_LOGITS,
                                  for_numbers=False),
    "MultiLabelSoftMarginLoss": LossRule(torch.sigmoid, False, ("Sigmoid", "Softmax"), fix=_LOGITS, for_numbers=False),
    "SoftMarginLoss": LossRule(torch.sigmoid, False, ("Sigmoid", "Softmax"), fix=_LOGITS, for_numbers=False,
                               signed=True),
    "BCELoss": LossRule(_clamp, wanted_ends=("Sigmoid", "Softmax", "Hardsigmoid"), for_numbers=False,
                        fix="end with a Sigmoid, or take BCEWithLogitsLoss"),
    "KLDivLoss": LossRule(torch.exp, wanted_ends=("LogSoftmax",), for_numbers=False,
                          fix="end with a LogSoftmax: {dim: 1}"),
    "PoissonNLLLoss": LossRule(torch.exp, refused_ends=("Softmax", "Sigmoid"), fix="end with a Linear"),
}  # fmt: skip
_OTHERS = LossRule(_clamp)


def auto_loss(network: Network, target: Target) -> str:
    """The loss that `loss: auto` means for this target and this network's end."""
    end = network.layers[-1].type
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
    rule = _RULES.get(schema.name, _OTHERS)
    end_path: KeyPath = ("model", "layers")
    if not _fits_target(rule, schema.name, target, mistakes, path):
        return None
    if not _fits_end(rule, schema.name, network, mistakes, end_path):
        return None
    if not _fits_shape(rule, schema.name, network, target, mistakes, end_path):
        return None
    loss = schema.build(**_tensors(settings))
    output, aim = _adapters(rule, network, target)
    return Criterion(loss, output, aim, *_predictors(rule, network, target))


def _fits_target(rule: LossRule, loss: str, target: Target, mistakes: Mistakes, path: KeyPath) -> bool:
    if target.kind == "numbers" and not rule.for_numbers:
        found = f"{loss} wants classes, and '{target.name}' is a number"
        mistakes.add(path, found, "take MSELoss, L1Loss, SmoothL1Loss or HuberLoss")
        return False
    return True


def _fits_end(rule: LossRule, loss: str, network: Network, mistakes: Mistakes, path: KeyPath) -> bool:
    end = network.layers[-1].type
    path = (*path, _index(network))
    if end in rule.refused_ends:
        mistakes.add(path, f"a {end} before {loss}", rule.fix)
        return False
    if rule.wanted_ends and end not in rule.wanted_ends:
        mistakes.add(path, f"{loss} wants {' or '.join(rule.wanted_ends)} at the end, and {end} stands there", rule.fix)
        return False
    return True


def _index(network: Network) -> int | str:
    name = network.layers[-1].name
    return int(name) if name.isdigit() else name


def _fits_shape(rule: LossRule, loss: str, network: Network, target: Target, mistakes: Mistakes, path: KeyPath) -> bool:
    wanted = _wanted_outputs(rule, target)
    if network.output.shape in [(size,) for size in wanted]:
        return True
    path = (*path, _index(network))
    classes = f"'{target.name}' has {len(target.classes)} classes" if target.classes else f"'{target.name}' is a number"
    sizes = " or ".join(f"({size})" for size in wanted)
    found = f"the network gives {network.output}, and {loss} wants {sizes}: {classes}"
    fix = f"end with Linear: {wanted[0]}" if len(network.output.shape) == 1 else "end with Flatten and Linear"
    mistakes.add(path, found, f"{fix}, or Linear: ${{data.num_outputs}}")
    return False


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
    end: TensorFunction = rule.predict if rule is _RULES["PoissonNLLLoss"] else _identity
    return (lambda output: end(shape(output)) * deviation + mean), (lambda numbers: numbers * deviation + mean)
