"""Metrics of numbers in which each row counts by its weight. torchmetrics' own take no weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from dlspec.parts.weighted_metrics import NONE, WeightedMetric

MIN_DIVISOR = 1.17e-06  # of a relative error: torchmetrics' bound


def _compute_errors(name: str, preds: Tensor, target: Tensor) -> Tensor:
    """Compute the error of each number in double precision, as torchmetrics' metric of this name does."""
    preds, target = preds.double(), target.double()
    if name == "MeanSquaredLogError":
        return (preds.log1p() - target.log1p()) ** 2
    errors = (preds - target).abs()
    if name == "MeanSquaredError":
        return errors**2
    if name == "MeanAbsolutePercentageError":
        return errors / target.abs().clamp(min=MIN_DIVISOR)
    if name == "SymmetricMeanAbsolutePercentageError":
        return 2 * errors / (target.abs() + preds.abs()).clamp(min=MIN_DIVISOR)
    return errors


class WeightedError(WeightedMetric):
    """The weighted mean of errors.

    Args:
        name: the metric, as torchmetrics names it
        root: whether to take the square root of the mean
    """

    higher_is_better = False
    total: Tensor
    weight: Tensor

    def __init__(self, name: str, *, root: bool = False) -> None:
        super().__init__()
        self.name, self.root = name, root
        self.add_state("total", NONE.clone(), dist_reduce_fx="sum")
        self.add_state("weight", NONE.clone(), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, weights: Tensor) -> None:
        """Add a batch.

        Args:
            preds: Numbers, (M,) or (M, K).
            target: True numbers, of the same shape.
            weights: The weight of each row, (M,).
        """
        errors = _compute_errors(self.name, preds, target)
        self.total += (errors.reshape(len(weights), -1).mean(1) * weights).sum()
        self.weight += weights.double().sum()

    def compute(self) -> Tensor:
        """Compute the mean of all batches."""
        mean = self.total / self.weight
        return mean.sqrt() if self.root else mean


class WeightedMomentMetric(WeightedMetric):
    """R², explained variance or Pearson's correlation, averaged over the numbers of a vector.

    Args:
        name: which of them, as torchmetrics names it
        num_outputs: numbers of a row
    """

    higher_is_better = True
    sums: Tensor

    def __init__(self, name: str, num_outputs: int = 1) -> None:
        super().__init__()
        self.name = name
        # By output: sums of the weights, targets, predictions, their squares and their products.
        self.add_state("sums", torch.zeros(6, num_outputs, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, weights: Tensor) -> None:
        """Add a batch.

        Args:
            preds: Numbers, (M,) or (M, K).
            target: True numbers, of the same shape.
            weights: The weight of each row, (M,).
        """
        truth = target.double().reshape(len(weights), -1)
        found = preds.double().reshape(truth.shape)
        terms = torch.stack([torch.ones_like(truth), truth, found, truth**2, found**2, truth * found])
        self.sums = self.sums + (terms * weights.double()[:, None]).sum(1)

    def compute(self) -> Tensor:
        """Compute the metric of all batches."""
        weight, *sums = self.sums
        truth, found, truth_squares, found_squares, products = (each / weight for each in sums)
        variance = truth_squares - truth**2
        if self.name == "PearsonCorrCoef":
            scores = (products - truth * found) / (variance * (found_squares - found**2)).sqrt()
            return torch.as_tensor(scores).mean()
        errors = truth_squares - 2 * products + found_squares
        if self.name == "ExplainedVariance":
            errors = errors - (truth - found) ** 2
        return torch.as_tensor(1 - errors / variance).mean()


class WeightedSpearman(WeightedMetric):
    """Pearson's correlation of ranks, averaged over the numbers of a vector."""

    higher_is_better = True
    preds: list[Tensor]
    targets: list[Tensor]
    weights: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("preds", "targets", "weights"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor, weights: Tensor) -> None:
        """Add a batch.

        Args:
            preds: Numbers, (M,) or (M, K).
            target: True numbers, of the same shape.
            weights: The weight of each row, (M,).
        """
        self.preds.append(preds.reshape(len(weights), -1))
        self.targets.append(target.reshape(len(weights), -1))
        self.weights.append(weights.double())

    def compute(self) -> Tensor:
        """Compute the correlation of all batches."""
        preds, targets, weights = (dim_zero_cat(each) for each in (self.preds, self.targets, self.weights))
        metric = WeightedMomentMetric("PearsonCorrCoef", preds.shape[1]).to(weights.device)
        metric.update(_rank(preds, weights), _rank(targets, weights), weights)
        return metric.compute()


def _rank(values: Tensor, weights: Tensor) -> Tensor:
    """Rank each column (M, K) by the summed weight of smaller values, plus half of that of equal ones."""
    columns = []
    for column in values.unbind(1):
        index = torch.searchsorted(column.sort().values, column.contiguous())  # equal for equal values
        of_value = weights.new_zeros(len(weights)).index_add(0, index, weights)
        columns.append((of_value.cumsum(0) - of_value / 2)[index])
    return torch.stack(columns, 1)
