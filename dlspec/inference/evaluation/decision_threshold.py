"""The probability above which a class or label should be predicted: the one with the best F1 on validation rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFAULT_THRESHOLD = 0.5
METRIC = "f1"
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Positives:
    """Predicted probabilities and truth of the second of two classes, or of all labels."""

    probabilities: NDArray[Any]  # (M,), of all labels of all samples together
    truth: NDArray[np.bool_]  # (M,)
    weights: Numbers  # (M,) how much each counts

    def compute_f1(self, threshold: float) -> float:
        """Compute F1 if all with a larger probability than the threshold are predicted to be positive."""
        predicted = self.probabilities > threshold
        hits = self.weights[predicted & self.truth].sum()
        wrong = self.weights[predicted != self.truth].sum()
        return float(2 * hits / (2 * hits + wrong)) if hits else 0.0


@dataclass(frozen=True)
class Threshold:
    """A threshold and its F1, beside that of 0.5."""

    value: float
    score: float
    default_score: float  # of the threshold 0.5
    split: str = "validation"  # the rows that it was chosen on

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            "value": self.value, "metric": METRIC, "split": self.split, "score": self.score,
            "default_score": self.default_score,
        }  # fmt: skip


def choose_threshold(positives: Positives) -> Threshold | None:
    """Choose the threshold with the best F1; None without positive and negative rows."""
    if not positives.truth.any() or positives.truth.all():
        return None
    value = _find_best(positives)
    score, default_score = positives.compute_f1(value), positives.compute_f1(DEFAULT_THRESHOLD)
    if default_score >= score:
        return Threshold(DEFAULT_THRESHOLD, default_score, default_score)
    return Threshold(value, score, default_score)


def _find_best(positives: Positives) -> float:
    """Try every threshold that makes a difference: F1 changes only at the probabilities of the rows."""
    order = np.argsort(-positives.probabilities, kind="stable")
    probabilities, weights = positives.probabilities[order].astype(np.float64), positives.weights[order]
    hits, predicted = np.cumsum(weights * positives.truth[order]), np.cumsum(weights)
    scores = 2 * hits / (predicted + hits[-1])
    is_last = np.append(probabilities[1:] != probabilities[:-1], True)  # of rows with equal probability
    best = int(np.argmax(np.where(is_last, scores, -1)))
    below = probabilities[best + 1] if best + 1 < len(order) else 0.0
    return _round_between(float(below), float(probabilities[best]))


def _round_between(low: float, high: float) -> float:
    """Return a number with few digits between two numbers, and equal to neither."""
    middle = (low + high) / 2
    rounded = (round(middle, digits) for digits in range(2, 17))
    return next((each for each in rounded if low < each < high), middle)
