"""Class weights that balance classes: computed from the training rows, and saved as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dlspec.data.dataset import Dataset, Target
from dlspec.data.lazy_array import read_rows
from dlspec.errors import Code
from dlspec.language.problems import Problems
from dlspec.losses.loss_matching import LossMatch


def balance_losses(
    matches: Sequence[LossMatch], data: Dataset, balanced: Mapping[str, str], problems: Problems
) -> list[LossMatch]:
    """Replace `balanced` by class weights.

    All classes then have the same sum of weights. A loss with one weight a class gets the inverse of each class's
    frequency, on average 1 for a row; of two classes with one output, the second gets `pos_weight`.

    Args:
        matches: The losses with what they compare.
        data: The data, whose training rows are counted.
        balanced: The setting that is `balanced`, `weight` or `pos_weight`, by the loss's name; '' for every loss.
        problems: Collects losses that can't be balanced.
    """
    keys = [balanced.get(each.term.name, balanced.get("", "")) for each in matches]
    return [_balance_loss(each, data, key, problems) if key else each for each, key in zip(matches, keys, strict=True)]


def _balance_loss(match: LossMatch, data: Dataset, key: str, problems: Problems) -> LossMatch:
    problem = _explain_unbalanced(match, key)
    if problem:
        part = match.term.part
        path = ("loss", key) if part is None else (*part.settings_path, key)
        problems.add(Code.UNSUPPORTED, path, *problem, at_value=True)
        return match
    assert isinstance(match.target, Target)  # otherwise there was a problem
    name, weights = _compute_weights(match, match.target, data)
    return replace(match, term=replace(match.term, settings={**match.term.settings, name: weights}))


def _explain_unbalanced(match: LossMatch, key: str) -> tuple[str, str] | None:
    """Return what is wrong and the fix, if the loss can't be balanced."""
    target, loss = match.target, match.term.type
    if not isinstance(target, Target) or not (target.labels or (target.kind == "classes" and not target.shape)):
        return f"{loss} can only be balanced for a target of classes or labels", f"remove {key}"
    if _has_single_output(match):
        is_fit = loss == "BCEWithLogitsLoss"
        return None if is_fit else (f"{loss} has no weights of classes", "use BCEWithLogitsLoss")
    if not match.rule.is_cross_entropy:
        return f"{loss} has no weights of classes", "use CrossEntropyLoss"
    return None if key == "weight" else (f"{loss} has no pos_weight", "write weight: balanced")


def _has_single_output(match: LossMatch) -> bool:
    """Whether each class or label has one output that says how probable it is, instead of one for each class."""
    assert isinstance(match.target, Target)
    return bool(match.target.labels) or match.main.value.channels == 1


def _compute_weights(match: LossMatch, target: Target, data: Dataset) -> tuple[str, list[float]]:
    values, rows = read_rows(data.train.targets[target.name]), _get_row_weights(target, data)
    if target.labels:
        positive = (values * rows[:, None]).sum(0).clamp(min=1)
        return "pos_weight", _to_list((rows.sum() - positive).clamp(min=1) / positive)
    counts = torch.zeros(len(target.classes), dtype=torch.float64).index_add_(0, values, rows).clamp(min=1)
    if _has_single_output(match):
        return "pos_weight", _to_list(counts[:1] / counts[1:])
    return "weight", _to_list(counts.sum() / (len(counts) * counts))


def _get_row_weights(target: Target, data: Dataset) -> Tensor:
    if target.weights:
        return read_rows(data.train.tensors[target.weights]).double()
    return torch.ones(len(data.train), dtype=torch.float64)


def _to_list(weights: Tensor) -> list[Any]:
    """Round to 6 significant digits, which a spec can show."""
    return [float(f"{each:.6g}") for each in weights.tolist()]
