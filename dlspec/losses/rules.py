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
    refused_ends: tuple[str, ...] = ()
    wanted_ends: tuple[str, ...] = ()
    fix: str = ""
    numbers: Literal["any", "unit", "signs", "none"] = "any"
    classes: bool = True
    signed: bool = False
    counts: bool = False
    size: Literal["target", "one", "any"] = "target"
    # Takes the classes as dimension 1, whatever is behind it, and leaves out what is numbered `ignore_index`.
    is_native: bool = False
    # What may not stand before a further argument, and what to write there.
    beside: Mapping[str, tuple[tuple[str, ...], str]] | None = None


def identity(value: Tensor) -> Tensor:
    return value


def _softmax(output: Tensor) -> Tensor:
    return output.softmax(dim=1)


def clamp(output: Tensor) -> Tensor:
    return output.clamp(0, 1)


_LOGITS = "remove it: the loss contains it, and predictions come out as probabilities"
_SOFT = ("Softmax", "Softmax2d", "Softmin", "Sigmoid", "Hardsigmoid", "LogSigmoid")
_PAIRS = LossRule(None, numbers="signs", signed=True, size="one")
# Whatever ends in one of these can be negative.
_OF_ANY_SIGN = tuple(
    "Linear Bilinear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d Tanh Hardtanh LayerNorm "
    "RMSNorm GroupNorm BatchNorm1d BatchNorm2d BatchNorm3d LeakyReLU ELU SELU GELU SiLU LogSoftmax LogSigmoid "
    "RNN LSTM GRU".split()
)

RULES: Mapping[str, LossRule] = {
    "CrossEntropyLoss": LossRule(_softmax, True, _SOFT, fix=_LOGITS, numbers="none", is_native=True),
    "NLLLoss": LossRule(torch.exp, True, wanted_ends=("LogSoftmax",), numbers="none", is_native=True,
                        fix="end with a LogSoftmax: {dim: 1}, or take CrossEntropyLoss"),
    "MultiMarginLoss": LossRule(_softmax, True, _SOFT, numbers="none",
                                fix="remove it: the loss wants scores without a bound"),
    "BCEWithLogitsLoss": LossRule(torch.sigmoid, False, (*_SOFT, "LogSoftmax"), fix=_LOGITS, numbers="unit"),
    "MultiLabelSoftMarginLoss": LossRule(torch.sigmoid, False, (*_SOFT, "LogSoftmax"), fix=_LOGITS, numbers="unit"),
    "SoftMarginLoss": LossRule(torch.sigmoid, False, (*_SOFT, "LogSoftmax"), fix=_LOGITS, numbers="none",
                               signed=True),
    "BCELoss": LossRule(clamp, wanted_ends=("Sigmoid", "Softmax", "Hardsigmoid"), numbers="unit",
                        fix="end with a Sigmoid, or take BCEWithLogitsLoss"),
    "KLDivLoss": LossRule(torch.exp, wanted_ends=("LogSoftmax",), numbers="unit",
                          fix="end with a LogSoftmax: {dim: 1}"),
    "PoissonNLLLoss": LossRule(torch.exp, refused_ends=_SOFT, fix="end with a Linear", counts=True),
    "GaussianNLLLoss": LossRule(identity, classes=False,
                                beside={"var": (_OF_ANY_SIGN, "a variance is above 0: end it with a Softplus")}),
    "CosineEmbeddingLoss": replace(_PAIRS, size="any"),
    "MarginRankingLoss": _PAIRS,
    "HingeEmbeddingLoss": _PAIRS,
    "TripletMarginLoss": LossRule(None, size="any"),
    "CTCLoss": LossRule(None, True, wanted_ends=("LogSoftmax",), numbers="none",
                        fix="end with a LogSoftmax: {dim: 2}"),
    "Mean": LossRule(None, size="any"),
}  # fmt: skip
OTHERS = LossRule(clamp)
OVER_CLASSES = ("Softmax", "LogSoftmax", "Softmin")


def rule_of(schema: Schema, settings: Mapping[str, Any]) -> LossRule:
    """The loss's row, changed by its settings, or what a loss of the user's own says."""
    if schema.name == "PoissonNLLLoss" and settings.get("log_input") is False:
        return replace(RULES[schema.name], predict=identity)
    if schema.name in RULES or not inspect.isclass(schema.build):
        return RULES.get(schema.name, OTHERS)
    return replace(OTHERS, takes_class_numbers=bool(getattr(schema.build, "takes_class_numbers", False)))
