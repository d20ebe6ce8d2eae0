"""Metrics in which each row counts by its weight. torchmetrics' own take no weights.

`update` takes predictions, true values and weights; sums are in double precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

NONE = torch.zeros((), dtype=torch.float64)


class _WeightedMetric(Metric):
    """Base of the weighted metrics."""

    is_differentiable = False
    full_state_update = False

    def update(self, preds: Tensor, target: Tensor, weights: Tensor) -> None:
        raise NotImplementedError

    def compute(self) -> Any:
        raise NotImplementedError


class WeightedClassMetric(_WeightedMetric):
    """Accuracy, precision, recall or F1 from the summed weights of each pair of true and predicted class.

    Args:
        name: which of them, as torchmetrics names it
        num_classes: number of classes
        average: micro, macro or weighted; None: of two classes, the second alone
        threshold: the probability above which the second of two classes is predicted
    """

    higher_is_better = True
    confusion: Tensor

    def __init__(self, name: str, num_classes: int, average: str | None = None, threshold: float = 0.5) -> None:
        super().__init__()
        self.measure, self.average, self.threshold = _MEASURES[name], average, threshold
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, weights: Tensor) -> None:
        """Add a batch.

        Args:
            preds: Probabilities, (M, K) of K classes, or (M,) of the second of two classes.
            target: True classes, (M,).
            weights: The weight of each row, (M,).
        """
        classes = preds.argmax(1) if preds.dim() > 1 else (preds > self.threshold).long()
        count = len(self.confusion)
        cells = torch.zeros(count * count, dtype=torch.float64, device=weights.device)
        cells.index_add_(0, target * count + classes, weights.double())
        self.confusion += cells.view(count, count)

    def compute(self) -> Tensor:
        """Compute the metric of all batches."""
        hits, of_true, of_predicted = self.confusion.diagonal(), self.confusion.sum(1), self.confusion.sum(0)
        if self.average == "micro":
            return hits.sum() / of_true.sum()
        scores = self.measure(hits, of_true, of_predicted)
        if self.average is None:
            return scores[1]
        weights = of_true if self.average == "weighted" else ((of_true + of_predicted) > 0).double()
        return (scores * weights).sum() / weights.sum()


def _divide(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp(min=torch.finfo(whole.dtype).tiny), NONE.to(whole.device))


def _compute_recall(hits: Tensor, of_true: Tensor, of_predicted: Tensor) -> Tensor:
    return _divide(hits, of_true)


def _compute_precision(hits: Tensor, of_true: Tensor, of_predicted: Tensor) -> Tensor:
    return _divide(hits, of_predicted)


def _compute_f1(hits: Tensor, of_true: Tensor, of_predicted: Tensor) -> Tensor:
    return _divide(2 * hits, of_true + of_predicted)


# Accuracy averaged over classes is the mean of their recalls, as in torchmetrics.
_MEASURES = {"Accuracy": _compute_recall, "Recall": _compute_recall, "Precision": _compute_precision,
             "F1Score": _compute_f1}  # fmt: skip


class WeightedError(_WeightedMetric):
    """The weighted mean of absolute or squared differences.

    Args:
        power: 1 for absolute, 2 for squared differences
        root: whether to take the square root of the mean
    """

    higher_is_better = False
    total: Tensor
    weight: Tensor

    def __init__(self, power: int, root: bool = False) -> None:
        super().__init__()
        self.power, self.root = power, root
        self.add_state("total", NONE.clone(), dist_reduce_fx="sum")
        self.add_state("weight", NONE.clone(), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, weights: Tensor) -> None:
        """Add a batch.

        Args:
            preds: Numbers, (M,) or (M, K).
            target: True numbers, of the same shape.
            weights: The weight of each row, (M,).
        """
        errors = (preds.double() - target.double()).abs() ** self.power
        self.total += (errors.reshape(len(weights), -1).mean(1) * weights).sum()
        self.weight += weights.double().sum()

    def compute(self) -> Tensor:
        """Compute the mean of all batches."""
        mean = self.total / self.weight
        return mean.sqrt() if self.root else mean


class WeightedR2Score(_WeightedMetric):
    """The share of the target's weighted variance that predictions explain, averaged over the numbers of a vector."""

    higher_is_better = True
    sums: Tensor

    def __init__(self, num_outputs: int = 1) -> None:
        super().__init__()
        # By output: sums of the weights, the targets, their squares, and the squared errors.
        self.add_state("sums", torch.zeros(4, num_outputs, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, weights: Tensor) -> None:
        """Add a batch.

        Args:
            preds: Numbers, (M,) or (M, K).
            target: True numbers, of the same shape.
            weights: The weight of each row, (M,).
        """
        rows, truth = weights.double()[:, None], target.double().reshape(len(weights), -1)
        errors = (preds.double().reshape(truth.shape) - truth) ** 2
        terms = (rows.expand_as(truth), rows * truth, rows * truth**2, rows * errors)
        self.sums += torch.stack([each.sum(0) for each in terms])

    def compute(self) -> Tensor:
        """Compute the score of all batches."""
        weight, total, squares, errors = self.sums
        score: Tensor = (1 - errors / (squares - total**2 / weight)).mean()
        return score
