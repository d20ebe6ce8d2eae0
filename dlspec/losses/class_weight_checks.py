"""Check the weights of classes in a loss: PyTorch trains with negative ones, and with zeros until the loss is nan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dlspec.data.dataset import Dataset, Target
from dlspec.errors import Code, format_value
from dlspec.language.problems import Problems
from dlspec.losses.loss_matching import LossMatch

WEIGHT_SETTINGS = ("weight", "pos_weight")


def check_class_weights(match: LossMatch, data: Dataset, problems: Problems) -> None:
    """Check that the weights of a loss of PyTorch are finite, not negative, not all 0, and one for each class.

    Args:
        match: The loss with its outputs and its target.
        data: The data; not used.
        problems: Collects what is wrong.
    """
    if not hasattr(nn, match.term.type):
        return
    for name in WEIGHT_SETTINGS:
        weights = _read_weights(match.term.settings.get(name))
        found = "" if weights is None else _check_values(weights) or _check_count(weights, name, match)
        if found and weights is not None:
            shown = f"'{name}' {found}, got {format_value(weights.tolist())}"
            problems.add(Code.WRONG_VALUE, match.term.where(name), shown, at_value=True)


def _read_weights(value: Any) -> Tensor | None:
    """Return weights as a vector; None for other settings, such as those that are not filled in yet."""
    is_list = isinstance(value, list | tuple) and all(isinstance(each, int | float) for each in value)
    return torch.as_tensor(value).flatten() if isinstance(value, Tensor) or (is_list and value) else None


def _check_values(weights: Tensor) -> str:
    if not bool(weights.isfinite().all()) or bool((weights < 0).any()):
        return "must be a list of finite numbers >= 0"
    return "" if bool((weights > 0).any()) else "must have a number above 0"


def _check_count(weights: Tensor, name: str, match: LossMatch) -> str:
    """Check the number of weights where the target has classes, or the output is a vector."""
    target, shape = match.target, match.main.value.shape
    if match.rule.takes_class_numbers and isinstance(target, Target) and target.kind == "classes":
        count = len(target.classes)
        return "" if len(weights) == count else f"must have {count} numbers, one for each class of '{target.name}'"
    if match.rule.takes_class_numbers or len(shape) != 1 or len(weights) in (1, shape[0]):
        return ""
    return f"must have {shape[0]} number{'s' if shape[0] > 1 else ''}, one for each output"
