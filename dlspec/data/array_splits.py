"""Turn NumPy arrays into the splits of a `Dataset`, and standardize numbers as fitted on the training rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlspec.data.dataset import Split
from dlspec.data.split_indices import IntArray, SplitIndices

NamedArrays = Mapping[str, NDArray[Any]]


def make_splits(arrays: NamedArrays, labels: NamedArrays, parts: SplitIndices) -> tuple[Split, Split, Split]:
    """Copy the rows of each split into new tensors, contiguous and writable.

    Args:
        arrays: the fields by name, float32 or int64, one row for each sample
        labels: the targets by name, in the same form
        parts: the row indices of each split

    Returns:
        The training, validation and test splits.
    """

    def split(rows: IntArray) -> Split:
        return Split(_select_rows(arrays, rows), _select_rows(labels, rows))

    return split(parts.train), split(parts.validation), split(parts.test)


def _select_rows(arrays: NamedArrays, rows: IntArray) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values[rows]) for name, values in arrays.items()}


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of each column. A constant column gets the deviation 1, so it is not divided."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def fit(cls, values: NDArray[Any]) -> Scaling:
        """Compute mean and deviation over the rows of `values`, in double precision."""
        mean, std = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
        # A constant such as 0.1 has a tiny deviation, because its mean is rounded.
        changes = std > 1e-12 * np.maximum(np.abs(mean), np.finfo(np.float64).tiny)
        return cls(mean, np.where(changes, std, 1.0))

    def apply(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Standardize values: subtract the mean, then divide by the deviation."""
        scaled: NDArray[np.float32] = ((values - self.mean) / self.std).astype(np.float32)
        return scaled

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values for `Dataset.preprocessing`."""
        return {"kind": "standardize", "mean": self.mean.tolist(), "std": self.std.tolist()}
