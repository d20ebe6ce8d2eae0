"""Collect from a pass what the choice of a threshold needs: probabilities of the second class, or of labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.inference.evaluation.decision_threshold import Positives
from dlspec.inference.evaluation.evaluated_batch import EvaluatedBatch
from dlspec.inference.evaluation.evaluation_pass import Evaluator
from dlspec.inference.evaluation.row_samples import has_row_per_sample


class PositivesCollector:
    """Collects the probabilities of the second of two classes or of labels, to choose a threshold."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._criterion = evaluator.criterion
        self._parts: dict[str, list[Positives]] = {
            predicted.name: [] for predicted, target in evaluator.targets if takes_threshold(predicted, target)
        }

    def add(self, batch: EvaluatedBatch) -> None:
        """Add a batch."""
        if not self._parts:
            return
        pairs = self._criterion.make_metric_pairs(batch.output, batch.targets)
        for predicted, tensors in zip(self._criterion.predicted_targets, pairs, strict=True):
            if predicted.name in self._parts:
                self._parts[predicted.name].append(_make_positives(tensors))

    def collect(self) -> dict[str, Positives]:
        """Return what was collected, by target."""
        return {name: _join_positives(parts) for name, parts in self._parts.items() if parts}


def _make_positives(tensors: Sequence[Tensor]) -> Positives:
    probabilities, truth = (each.cpu().numpy() for each in tensors[:2])
    weights = np.ones(len(truth)) if len(tensors) < 3 else tensors[2].double().cpu().numpy()
    weights = weights.reshape(-1, *(1,) * (truth.ndim - 1)) * np.ones(truth.shape)
    return Positives(probabilities.ravel(), truth.ravel() > 0, weights.ravel())


def _join_positives(parts: Sequence[Positives]) -> Positives:
    return Positives(
        np.concatenate([each.probabilities for each in parts]),
        np.concatenate([each.truth for each in parts]),
        np.concatenate([each.weights for each in parts]),
    )


def takes_threshold(predicted: Target, target: Target) -> bool:
    """Whether a threshold decides about a target's samples: two classes, or labels."""
    return bool(target.labels) or (len(target.classes) == 2 and has_row_per_sample(predicted, target))
