"""The loss of each sample of a batch, where a criterion only computes the batch's mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlspec.data.batches.tensor_tree import map_tensors
from dlspec.inference.bootstrap import Numbers
from dlspec.training.criterion_interface import CriterionProtocol, Targets

TOLERANCE = 1e-3  # relative difference between a loss and the mean over its samples: larger means it is no mean


@dataclass
class SampleLosses:
    """The losses of single samples, and how much each counts in the mean."""

    criterion: CriterionProtocol
    losses: list[Numbers] = field(default_factory=list)  # of each batch (N, 1), or (N, 1 + terms)
    weights: list[Numbers] = field(default_factory=list)  # (N, terms); empty if all samples count equally

    def add(self, output: Any, targets: Targets, count: int) -> None:
        """Add the samples of a batch: the network's output for them, their targets, and their number."""
        losses, weights = compute_sample_losses(self.criterion, output, targets, count), self.criterion.weigh(targets)
        if weights is not None:
            self.weights.append(weights.double().cpu().numpy())
        self.losses.append(losses.double().cpu().numpy())

    def resample(self, names: Sequence[str], counts: Numbers) -> dict[str, Numbers]:
        """Compute the mean of each loss over each resample.

        Args:
            names: the names of the losses: the total, and if there are multiple terms each of them
            counts: how often each resample contains each sample, (resamples, samples)

        Returns:
            By name, the losses of the resamples (resamples,).
        """
        if not self.losses:
            return {}
        losses = np.concatenate(self.losses)
        columns = self._average_weighted(losses, counts) if self.weights else counts @ losses / counts.sum(1)[:, None]
        return dict(zip(names, columns.T, strict=True))

    def _average_weighted(self, losses: Numbers, counts: Numbers) -> Numbers:
        """Average each term by its own weights, then add the terms."""
        weights = np.concatenate(self.weights)
        is_single = losses.shape[1] == 1
        terms = np.where(weights != 0, losses if is_single else losses[:, 1:], 0)
        with np.errstate(invalid="ignore"):  # a resample without any weight has no mean
            means: Numbers = (counts @ (terms * weights)) / (counts @ weights)
        return means if is_single else np.hstack([means @ np.array(self.criterion.factors)[:, None], means])


def is_mean_of_samples(value: float, resampled: Numbers | None) -> bool:
    """Whether a loss is the mean over its samples, and not for example a comparison of the samples of a batch."""
    if resampled is None or not np.isfinite(resampled).all():
        return False
    low, high = resampled.min(), resampled.max()
    slack = TOLERANCE * abs(value) + (high - low)
    return bool(low - slack <= value <= high + slack)


def compute_sample_losses(criterion: CriterionProtocol, output: Any, targets: Targets, count: int) -> Tensor:
    """Compute the loss of each sample of a batch as if it were a batch of its own.

    Args:
        criterion: all loss terms
        output: the network's output for the batch
        targets: the batch's targets
        count: the number of samples

    Returns:
        The losses, (N, 1), or with multiple terms (N, 1 + terms).
    """
    # One by one: importing torch.vmap takes longer than 10,000 calls.
    losses = [criterion(*select_rows((output, targets), slice(row, row + 1), count)) for row in range(count)]
    return torch.stack(losses).reshape(count, -1)


def select_rows(values: Any, rows: Tensor | slice, count: int) -> Any:
    """Select some samples of nested tensors; tensors without samples, such as a penalty, are kept.

    Args:
        values: tensors in tuples, lists and mappings
        rows: indices of the samples, or a slice of them
        count: the number of samples
    """
    return map_tensors(lambda each: _select(each, rows) if each.dim() and len(each) == count else each, values)


def _select(tensor: Tensor, rows: Tensor | slice) -> Tensor:
    return tensor[rows.to(tensor.device) if isinstance(rows, Tensor) else rows]
