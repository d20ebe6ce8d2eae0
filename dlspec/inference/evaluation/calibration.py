"""Calibration: whether classes that are predicted with 80 % probability are right in 80 % of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10  # of equal width from 0 to 1


class CalibrationBins:
    """Counts rows by their predicted probability, and how many of them were right.

    With two classes the probability is that of the second one, and right are the rows of this class; with more classes
    it is that of the predicted class, and right are the rows that have it.
    """

    def __init__(self) -> None:
        self._rows = np.zeros(BINS, np.int64)
        self._right = np.zeros(BINS, np.int64)
        self._confidence = np.zeros(BINS)

    def add(self, confidence: NDArray[Any], right: NDArray[Any]) -> None:
        """Add rows with their predicted probability, and whether they were right."""
        bins = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
        self._rows += np.bincount(bins, minlength=BINS)
        self._right += np.bincount(bins[right.astype(np.bool_)], minlength=BINS)
        self._confidence += np.bincount(bins, confidence, minlength=BINS)

    def to_json(self) -> list[dict[str, float | int]]:
        """Describe each bin that has rows: its limits, rows, mean probability, and the fraction that was right."""
        return [
            {
                "low": index / BINS,
                "high": (index + 1) / BINS,
                "rows": int(rows),
                "confidence": float(self._confidence[index] / rows),
                "accuracy": float(self._right[index] / rows),
            }
            for index, rows in enumerate(self._rows)
            if rows
        ]
