"""What each loss wants at a network's end and of a target, and how its output becomes a prediction."""

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
    """`predict` makes probabilities or numbers of outputs (M, K) or (M,); None where a loss judges and tells nothing.

    `numbers` says which numbers a target may hold: any, those from 0 to 1, -1 and 1 alone, none. `size` is how many
    outputs are wanted: as many as the target says, one, or any number. A loss of the user's own says itself where it
    differs from the rule of all others: by the class attribute `takes_class_numbers = True` (classes as int64, else
    one-hot), and by a method `predict(output)`.
    """

    predict: TensorFunction | None
    takes_class_numbers: bool = False
    refused_last_layers: tuple[str, ...] = ()
    required_last_layers: tuple[str, ...] = ()
    fix: str = ""
    numbers: Literal["any", "unit", "signs", "none"] = "any"
    classes: bool = True
    uses_signs: bool = False
    counts: bool = False
    size: Literal["target", "one", "any"] = "target"
    # Takes the classes as dimension 1, whatever is behind it, and leaves out what is numbered `ignore_index`.
    is_cross_entropy: bool = False
    # What may not stand before a further argument, and what to write there.
    refused_by_argument: Mapping[str, tuple[tuple[str, ...], str]] | None = None


def identity(value: Tensor) -> Tensor:
    return value


def _softmax(output: Tensor) -> Tensor:
    return output.softmax(dim=1)


def clamp_to_unit(output: Tensor) -> Tensor:
    return output.clamp(0, 1)


_REMOVE_ACTIVATION_FIX = "remove it: the loss contains it, and predictions come out as probabilities"
_PROBABILITY_LAYERS = ("Softmax", "Softmax2d", "Softmin", "Sigmoid", "Hardsigmoid", "LogSigmoid")
_PAIR_LOSS_RULE = LossRule(None, numbers="signs", uses_signs=True, size="one")
# Whatever ends in one of these can be negative.
_SIGNED_LAYERS = tuple(
    "Linear Bilinear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d Tanh Hardtanh LayerNorm "
    "RMSNorm GroupNorm BatchNorm1d BatchNorm2d BatchNorm3d LeakyReLU ELU SELU GELU SiLU LogSoftmax LogSigmoid "
    "RNN LSTM GRU".split()
)

LOSS_RULES: Mapping[str, LossRule] = {
    "CrossEntropyLoss": LossRule(_softmax, True, _PROBABILITY_LAYERS, fix=_REMOVE_ACTIVATION_FIX, numbers="none", is_cross_entropy=True),
    "NLLLoss": LossRule(torch.exp, True, required_last_layers=("LogSoftmax",), numbers="none", is_cross_entropy=True,
                        fix="end with a LogSoftmax: {dim: 1}, or take CrossEntropyLoss"),
    "MultiMarginLoss": LossRule(_softmax, True, _PROBABILITY_LAYERS, numbers="none",
                                fix="remove it: the loss wants scores without a bound"),
    "BCEWithLogitsLoss": LossRule(torch.sigmoid, False, (*_PROBABILITY_LAYERS, "LogSoftmax"), fix=_REMOVE_ACTIVATION_FIX, numbers="unit"),
    "MultiLabelSoftMarginLoss": LossRule(torch.sigmoid, False, (*_PROBABILITY_LAYERS, "LogSoftmax"), fix=_REMOVE_ACTIVATION_FIX, numbers="unit"),
    "SoftMarginLoss": LossRule(torch.sigmoid, False, (*_PROBABILITY_LAYERS, "LogSoftmax"), fix=_REMOVE_ACTIVATION_FIX, numbers="none",
                               uses_signs=True),
    "BCELoss": LossRule(clamp_to_unit, required_last_layers=("Sigmoid", "Softmax", "Hardsigmoid"), numbers="unit",
                        fix="end with a Sigmoid, or take BCEWithLogitsLoss"),
    "KLDivLoss": LossRule(torch.exp, required_last_layers=("LogSoftmax",), numbers="unit",
                          fix="end with a LogSoftmax: {dim: 1}"),
    "PoissonNLLLoss": LossRule(torch.exp, refused_last_layers=_PROBABILITY_LAYERS, fix="end with a Linear", counts=True),
    "GaussianNLLLoss": LossRule(identity, classes=False,
                                refused_by_argument={"var": (_SIGNED_LAYERS, "a variance is above 0: end it with a Softplus")}),
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


def find_loss_rule(schema: Schema, settings: Mapping[str, Any]) -> LossRule:
    """The loss's row, changed by its settings, or what a loss of the user's own says."""
    if schema.name == "PoissonNLLLoss" and settings.get("log_input") is False:
        return replace(LOSS_RULES[schema.name], predict=identity)
    if schema.name in LOSS_RULES or not inspect.isclass(schema.build):
        return LOSS_RULES.get(schema.name, DEFAULT_LOSS_RULE)
    return replace(DEFAULT_LOSS_RULE, takes_class_numbers=bool(getattr(schema.build, "takes_class_numbers", False)))
