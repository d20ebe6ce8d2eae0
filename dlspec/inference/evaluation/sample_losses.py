"""The loss of each sample of a batch, where a criterion only computes the batch's mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dlspec.inference.evaluation.bootstrap import Numbers
from dlspec.inference.evaluation.evaluated_batch import EvaluatedBatch
from dlspec.training.criterion_interface import CriterionProtocol

TOLERANCE = 1e-3  # relative difference between a loss and the mean over its samples: larger means that it is not a mean


@dataclass
class SampleLosses:
    """The losses of single samples, and how much each counts in the mean."""

    criterion: CriterionProtocol
    losses: list[Numbers] = field(default_factory=list)  # of each batch (N, 1), or (N, 1 + terms)
    weights: list[Numbers] = field(default_factory=list)  # (N, terms); empty if all samples count equally

    def add(self, batch: EvaluatedBatch) -> None:
        """Add the samples of a batch."""
        losses, weights = compute_sample_losses(self.criterion, batch), self.criterion.weigh(batch.targets)
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


def compute_sample_losses(criterion: CriterionProtocol, batch: EvaluatedBatch) -> Tensor:
    """Compute the loss of each sample as if it were a batch of its own: (N, 1), with several terms (N, 1 + terms)."""
    # One by one: importing torch.vmap takes longer than 10,000 calls.
    samples = [batch.select_one(row) for row in range(batch.count)]
    return torch.stack([criterion(each.output, each.targets) for each in samples]).reshape(batch.count, -1)
