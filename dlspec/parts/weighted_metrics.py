"""Classification metrics in which each row counts by its weight. torchmetrics' own take no weights.

`update` takes predictions, true values and weights; sums are in double precision. A weight of 2 is the row twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryStatScores
from torchmetrics.utilities import dim_zero_cat

NONE = torch.zeros((), dtype=torch.float64)


class WeightedMetric(Metric):
    """Base of the weighted metrics."""

    is_differentiable = False
    full_state_update = False

    def update(self, preds: Tensor, target: Tensor, weights: Tensor) -> None:
        """Add a batch.

        Args:
            preds: Predictions of M rows.
            target: True values.
            weights: The weight of each row, (M,).
        """
        raise NotImplementedError

    def compute(self) -> Any:
        raise NotImplementedError


class WeightedClassMetric(WeightedMetric):
    """A metric of torchmetrics that is computed from how often each pair of true and predicted class occurs.

    The pairs are counted here, with weights; torchmetrics computes the result.

    Args:
        make_metric: makes torchmetrics' metric
        num_classes: number of classes, or of labels
        has_labels: whether each row has any number of labels instead of one class
        threshold: the probability above which a label, or the second of two classes, is predicted
        ignore_index: a class that is not counted
    """

    higher_is_better = True
    confusion: Tensor

    def __init__(
        self, make_metric: Callable[[], Any], num_classes: int, *, has_labels: bool = False, threshold: float = 0.5,
        ignore_index: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.make_metric, self.threshold, self.ignore_index = make_metric, threshold, ignore_index
        # (true class, predicted class), or (label, true, predicted)
        shape = (num_classes, 2, 2) if has_labels else (num_classes, num_classes)
        self.add_state("confusion", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, weights: Tensor) -> None:
        """Add a batch.

        Args:
            preds: Probabilities, (M, K) of K classes or labels, or (M,) of the second of two classes.
            target: True classes, (M,), or 0 and 1 for each label, (M, K).
            weights: The weight of each row, (M,).
        """
        is_single = target.dim() == 1 and preds.dim() > 1
        classes = preds.argmax(1) if is_single else (preds > self.threshold).long()
        index = target * self.confusion.shape[-1] + classes
        if target.dim() > 1:
            index = index + 4 * torch.arange(target.shape[1], device=target.device)
            weights = weights[:, None].expand_as(target)
        if self.ignore_index is not None:
            weights = weights * (target != self.ignore_index)
        cells = torch.zeros(self.confusion.numel(), dtype=torch.float64, device=weights.device)
        cells.index_add_(0, index.flatten(), weights.flatten().double())
        self.confusion = self.confusion + cells.view_as(self.confusion)

    def compute(self) -> Tensor:
        """Compute the metric of all batches."""
        metric = self.make_metric()
        if hasattr(metric, "confmat"):
            metric.confmat = self.confusion
        else:
            for name, counts in zip(("tp", "fp", "fn", "tn"), self._count_hits(metric), strict=True):
                setattr(metric, name, counts.sum(0, keepdim=True) if getattr(metric, name).numel() == 1 else counts)
        result: Tensor = type(metric).compute(metric).squeeze()  # not the instance's, which warns without an update
        return result

    def _count_hits(self, metric: Metric) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return true positives, false positives, false negatives and true negatives of each class or label, (K,)."""
        pairs = self.confusion[None] if isinstance(metric, BinaryStatScores) else self.confusion
        if pairs.dim() == 3:
            return pairs[:, 1, 1], pairs[:, 0, 1], pairs[:, 1, 0], pairs[:, 0, 0]
        hits, of_true, of_predicted = pairs.diagonal(), pairs.sum(1), pairs.sum(0)
        return hits, of_predicted - hits, of_true - hits, pairs.sum() - of_true - of_predicted + hits


class WeightedCurveMetric(WeightedMetric):
    """Area under the ROC curve, or average precision, from the sorted scores of all rows.

    Args:
        measures_roc: the area under the ROC curve; else the average precision
        average: macro, or weighted by the weight of each class
        measures_both: of two classes, average over both instead of the second alone
    """

    higher_is_better = True

    def __init__(self, *, measures_roc: bool, average: str = "macro", measures_both: bool = False) -> None:
        super().__init__()
        self.measures_roc, self.average, self.measures_both = measures_roc, average, measures_both
        for name in ("preds", "targets", "weights"):
            self.add_state(name, [], dist_reduce_fx="cat")

    preds: list[Tensor]
    targets: list[Tensor]
    weights: list[Tensor]

    def update(self, preds: Tensor, target: Tensor, weights: Tensor) -> None:
        """Add a batch.

        Args:
            preds: Probabilities, (M, K) of K classes or labels, or (M,) of the second of two classes.
            target: True classes, (M,), or 0 and 1 for each label, (M, K).
            weights: The weight of each row, (M,).
        """
        self.preds.append(preds)
        self.targets.append(target)
        self.weights.append(weights.double())

    def compute(self) -> Tensor:
        """Compute the metric of all batches."""
        preds, target, weights = (dim_zero_cat(each) for each in (self.preds, self.targets, self.weights))
        preds = torch.stack([1 - preds, preds], 1) if self.measures_both else preds
        if preds.dim() == 1:
            return self._measure(preds, target == 1, weights)
        columns = range(preds.shape[1])
        positives = [target[:, each] == 1 if target.dim() > 1 else target == each for each in columns]
        scores = torch.stack([self._measure(preds[:, each], positives[each], weights) for each in columns])
        counts = torch.stack([(weights * each).sum() for each in positives])
        counts = counts if self.average == "weighted" else torch.ones_like(counts)
        known = ~scores.isnan()
        return (scores[known] * counts[known]).sum() / counts[known].sum()

    def _measure(self, scores: Tensor, is_positive: Tensor, weights: Tensor) -> Tensor:
        """Measure one class: (M,) scores, highest first, with equal scores as one step of the curve."""
        order = scores.argsort(descending=True)
        is_end = torch.ones_like(is_positive)
        is_end[:-1] = scores[order].diff() != 0
        hits = (weights * is_positive)[order].cumsum(0)[is_end]
        misses = (weights * ~is_positive)[order].cumsum(0)[is_end]
        if self.measures_roc:
            return torch.trapezoid(_start_at_0(hits), _start_at_0(misses)) / (hits[-1] * misses[-1])
        return (_start_at_0(hits).diff() * hits / (hits + misses).clamp(min=1e-300)).sum() / hits[-1]


def _start_at_0(values: Tensor) -> Tensor:
    return torch.cat([values.new_zeros(1), values])


class WeightedCalibrationError(WeightedMetric):
    """The difference between confidence and accuracy, over bins of equal width of the confidence.

    Args:
        n_bins: number of bins
        norm: l1, l2 or max
    """

    higher_is_better = False
    sums: Tensor

    def __init__(self, n_bins: int = 15, norm: str = "l1") -> None:
        super().__init__()
        self.n_bins, self.norm = n_bins, norm
        # By bin, and one for a confidence of 1: sums of weights, confidences and hits.
        self.add_state("sums", torch.zeros(n_bins + 1, 3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, weights: Tensor) -> None:
        """Add a batch.

        Args:
            preds: Probabilities, (M, K) of K classes, or (M,) of the second of two classes.
            target: True classes, (M,).
            weights: The weight of each row, (M,).
        """
        confidence, hits = (preds, target) if preds.dim() == 1 else (preds.amax(1), preds.argmax(1) == target)
        edges = torch.linspace(0, 1, self.n_bins + 1, dtype=confidence.dtype, device=confidence.device)
        bins = torch.bucketize(confidence, edges, right=True) - 1
        terms = weights.double()[:, None] * torch.stack([torch.ones_like(confidence), confidence, hits], 1)
        self.sums = self.sums.index_add(0, bins, terms)

    def compute(self) -> Tensor:
        """Compute the error of all batches."""
        weights, confidences, hits = self.sums.T
        differences: Tensor = (hits - confidences).abs() / weights.clamp(min=1e-300)
        if self.norm == "max":
            return differences.max()
        power = 2 if self.norm == "l2" else 1
        mean: Tensor = (differences**power * weights).sum() / weights.sum()
        return mean.sqrt() if power == 2 else mean
