"""Losses of single samples, and their means over resamples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dlspec.inference.evaluation.evaluated_batch import EvaluatedBatch
from dlspec.inference.evaluation.sample_losses import SampleLosses, compute_sample_losses, is_mean_of_samples


class ToyCriterion:
    """Cross-entropy, with or without class weights."""

    term_names: Sequence[str] = ()
    factors: Sequence[float] = (1.0,)
    class_weights: Tensor | None = None

    def __call__(self, output: Any, targets: tuple[Tensor, ...]) -> Tensor:
        return functional.cross_entropy(output, targets[0], weight=self.class_weights)

    def weigh(self, targets: tuple[Tensor, ...]) -> Tensor | None:
        return None if self.class_weights is None else self.class_weights[targets[0]][:, None]


def test_losses_of_samples_are_those_of_pytorch() -> None:
    output, truth = torch.randn(6, 3), torch.randint(0, 3, (6,))
    criterion: Any = ToyCriterion()
    found = compute_sample_losses(criterion, EvaluatedBatch(output, (truth,), 6))
    assert torch.allclose(found[:, 0], functional.cross_entropy(output, truth, reduction="none"))


def test_weighted_losses_of_a_resample_equal_the_loss_of_its_rows() -> None:
    criterion: Any = ToyCriterion()
    criterion.class_weights = torch.tensor([1.0, 5.0, 0.5])
    output, truth = torch.randn(8, 3), torch.randint(0, 3, (8,))
    losses = SampleLosses(criterion)
    losses.add(EvaluatedBatch(output[:5], (truth[:5],), 5))
    losses.add(EvaluatedBatch(output[5:], (truth[5:],), 3))
    rows = torch.tensor([0, 0, 3, 7, 7, 7, 2, 1])
    counts = np.bincount(rows.numpy(), minlength=8)[None].astype(float)
    expected = float(criterion(output[rows], (truth[rows],)))
    assert losses.resample(["loss"], counts)["loss"] == pytest.approx([expected], rel=1e-5)


def test_a_loss_that_compares_samples_is_not_a_mean_of_them() -> None:
    around = np.array([0.9, 1.0, 1.1])
    assert is_mean_of_samples(1.05, around)
    assert not is_mean_of_samples(2.0, around)
    assert not is_mean_of_samples(1.0, np.array([np.nan, 1.0]))
    assert not is_mean_of_samples(1.0, None)
