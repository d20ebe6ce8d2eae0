"""Rules of the losses: which last layers and targets each one expects, and how outputs become predictions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from dlspec.parts.schema import Schema

TensorFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LossRule:
    """What one loss expects.

    A user's loss follows `DEFAULT_LOSS_RULE`. It can change that with the class attribute `takes_class_numbers = True`
    and a method `predict(output)`.
    """

    # Makes probabilities or numbers from outputs (M, K) or (M,); None: the outputs are not predictions.
    predict: TensorFunction | None
    # Whether classes are passed as int64 numbers, else one-hot.
    takes_class_numbers: bool = False
    # Types of the network's last layer, and the fix if it is a wrong one.
    refused_last_layers: tuple[str, ...] = ()
    required_last_layers: tuple[str, ...] = ()
    fix: str = ""
    # Which numbers a target may have: any, from 0 to 1 ("unit"), -1 and 1 ("signs"), the probability of each class
    # ("probabilities"), or none: it must have classes.
    numbers: Literal["any", "unit", "signs", "probabilities", "none"] = "any"
    # Whether a target may have classes.
    classes: bool = True
    # Whether classes are passed as -1 and 1 instead of 0 and 1.
    uses_signs: bool = False
    # Whether the target must be counts.
    counts: bool = False
    # The expected number of channels: as the target needs ("target"), one, or any.
    size: Literal["target", "one", "any"] = "target"
    # Expects the classes in dimension 1 of the output, and ignores targets equal to `ignore_index`.
    is_cross_entropy: bool = False
    # By the name of a `forward` argument: types of last layers that are wrong for it, and the fix.
    refused_by_argument: Mapping[str, tuple[tuple[str, ...], str]] | None = None


def identity(value: Tensor) -> Tensor:
    """Return the value unchanged."""
    return value


def _softmax(output: Tensor) -> Tensor:
    return output.softmax(dim=1)


def clamp_to_unit(output: Tensor) -> Tensor:
    """Limit values to the range from 0 to 1."""
    return output.clamp(0, 1)


_REMOVE_ACTIVATION_FIX = "remove it: the loss expects logits, and predictions are still probabilities"
_PROBABILITY_LAYERS = ("Softmax", "Softmax2d", "Softmin", "Sigmoid", "Hardsigmoid", "LogSigmoid")
_PAIR_LOSS_RULE = LossRule(None, numbers="signs", uses_signs=True, size="one")
# Layers with outputs that can be negative.
_SIGNED_LAYERS = tuple(
    "Linear Bilinear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d Tanh Hardtanh LayerNorm "
    "RMSNorm GroupNorm BatchNorm1d BatchNorm2d BatchNorm3d LeakyReLU ELU SELU GELU SiLU LogSoftmax LogSigmoid "
    "RNN LSTM GRU".split()
)

LOSS_RULES: Mapping[str, LossRule] = {
    "CrossEntropyLoss": LossRule(_softmax, True, _PROBABILITY_LAYERS, fix=_REMOVE_ACTIVATION_FIX,
                                 numbers="probabilities", is_cross_entropy=True),
    "NLLLoss": LossRule(torch.exp, True, required_last_layers=("LogSoftmax",), numbers="none", is_cross_entropy=True,
                        fix="end with a LogSoftmax: {dim: 1}, or use CrossEntropyLoss"),
    "MultiMarginLoss": LossRule(_softmax, True, _PROBABILITY_LAYERS, numbers="none",
                                fix="remove it: the loss expects unbounded scores"),
    "BCEWithLogitsLoss": LossRule(torch.sigmoid, False, (*_PROBABILITY_LAYERS, "LogSoftmax"),
                                  fix=_REMOVE_ACTIVATION_FIX, numbers="unit"),
    "MultiLabelSoftMarginLoss": LossRule(torch.sigmoid, False, (*_PROBABILITY_LAYERS, "LogSoftmax"),
                                         fix=_REMOVE_ACTIVATION_FIX, numbers="unit"),
    "SoftMarginLoss": LossRule(torch.sigmoid, False, (*_PROBABILITY_LAYERS, "LogSoftmax"),
                               fix=_REMOVE_ACTIVATION_FIX, numbers="none", uses_signs=True),
    "BCELoss": LossRule(clamp_to_unit, required_last_layers=("Sigmoid", "Softmax", "Hardsigmoid"), numbers="unit",
                        fix="end with a Sigmoid, or use BCEWithLogitsLoss"),
    "KLDivLoss": LossRule(torch.exp, required_last_layers=("LogSoftmax",), numbers="unit",
                          fix="end with a LogSoftmax: {dim: 1}"),
    "PoissonNLLLoss": LossRule(torch.exp, refused_last_layers=_PROBABILITY_LAYERS, fix="end with a Linear",
                               counts=True),
    "GaussianNLLLoss": LossRule(
        identity, classes=False,
        refused_by_argument={"var": (_SIGNED_LAYERS, "a variance must be positive: end it with a Softplus")},
    ),
    "CosineEmbeddingLoss": replace(_PAIR_LOSS_RULE, size="any"),
    "MarginRankingLoss": _PAIR_LOSS_RULE,
    "HingeEmbeddingLoss": _PAIR_LOSS_RULE,
    "TripletMarginLoss": LossRule(None, size="any"),
    "CTCLoss": LossRule(None, True, required_last_layers=("LogSoftmax",), numbers="none",
                        fix="end with a LogSoftmax: {dim: 2}"),
    "Mean": LossRule(None, size="any"),
}  # fmt: skip
DEFAULT_LOSS_RULE = LossRule(clamp_to_unit)
SOFTMAX_LAYERS = ("Softmax", "LogSoftmax", "Softmin")


def compare_with_probabilities(rule: LossRule) -> LossRule:
    """Return the rule of a cross-entropy whose target has the probability of each class, which ignores no class."""
    return replace(rule, takes_class_numbers=False, is_cross_entropy=False)


def find_loss_rule(schema: Schema, settings: Mapping[str, Any]) -> LossRule:
    """Return the rule of a loss, with changes that follow from its settings or from a user's class."""
    if schema.name == "PoissonNLLLoss" and settings.get("log_input") is False:
        return replace(LOSS_RULES[schema.name], predict=identity)
    if schema.name in LOSS_RULES or not inspect.isclass(schema.build):
        return LOSS_RULES.get(schema.name, DEFAULT_LOSS_RULE)
    return replace(DEFAULT_LOSS_RULE, takes_class_numbers=bool(getattr(schema.build, "takes_class_numbers", False)))
