"""Turn NumPy arrays into the splits of a `Dataset`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
        return Split(_select_rows(arrays, rows), _select_rows(labels, rows), rows + 1)

    return split(parts.train), split(parts.validation), split(parts.test)


def _select_rows(arrays: NamedArrays, rows: IntArray) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values[rows]) for name, values in arrays.items()}
