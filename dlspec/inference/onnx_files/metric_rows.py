"""Predictions of an exported file and true values as metrics take them: a row for each sample, step or pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.data.lazy_array import Values, read_rows
from dlspec.inference.evaluation.bootstrap import Indices


@dataclass(frozen=True)
class MetricRows:
    """The rows of some samples for the metrics of one target."""

    tensors: tuple[Tensor, ...]  # predictions, true values and, where samples do not count equally, weights
    counts: Indices  # how many rows of the tensors each sample has


@dataclass(frozen=True)
class TargetValues:
    """The predictions and true values of one target for some samples."""

    predicted: NDArray[Any]  # as `PredictedRows` has them
    truth: Values  # as the network is trained with them
    lengths: NDArray[np.int64] | None  # real steps of each sample; None if all are real
    weights: NDArray[np.float32] | None  # (N,) of each sample; None if all count equally


def find_metric_target(target: Target) -> Target:
    """Return a target with the shape that metrics see: () for one class or number of each step or pixel."""
    is_row = target.labels or (not target.classes and len(target.shape) < 2)
    return target if is_row else replace(target, shape=())


def make_metric_rows(target: Target, values: TargetValues) -> MetricRows:
    """Make the rows of some samples, as the criterion of a run does.

    Args:
        target: the target, with the shape of a sample
        values: its predictions and true values
    """
    predicted, truth = torch.from_numpy(np.ascontiguousarray(values.predicted)), read_rows(values.truth)
    weights = None if values.weights is None else torch.from_numpy(values.weights)
    if target.labels:
        truth = truth.round().long()
    elif not target.classes:
        truth = truth if target.scale is None else target.scale.invert(truth)
    if find_metric_target(target).shape == target.shape:
        tensors, counts = (predicted, truth), torch.ones(len(truth), dtype=torch.int64)
    else:
        truth = truth[:, : predicted.shape[1]]  # batches may be cut to their longest sample
        is_real = _find_real(target, truth, values.lengths)
        counts = is_real.flatten(1).sum(1)
        tensors = (predicted[is_real], truth[is_real])
        weights = None if weights is None else weights.repeat_interleave(counts)
    return MetricRows(tensors if weights is None else (*tensors, weights), counts.numpy())


def _find_real(target: Target, truth: Tensor, lengths: NDArray[np.int64] | None) -> Tensor:
    """Return which classes or numbers are real: not padding, and no class that is ignored."""
    is_real = truth >= 0 if target.classes else torch.ones_like(truth, dtype=torch.bool)
    if lengths is None:
        return is_real
    steps = torch.arange(truth.shape[1]) < torch.from_numpy(lengths)[:, None]
    return is_real & steps.reshape(*steps.shape, *(1,) * (truth.dim() - 2))
