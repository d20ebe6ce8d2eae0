"""Output columns as arrays, a value for each row: Python values are made where rows, JSON or CSV are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# By output column: (N,) numbers, (N, ...) numbers of rows with one shape, or (N,) objects: str, list, or None.
Answers = dict[str, NDArray[Any]]


def make_object_column(values: Sequence[Any]) -> NDArray[Any]:
    """Make an array (N,) of any values, such as lists, which NumPy would make a dimension of."""
    return np.fromiter(values, object, len(values))


def spread_column(values: NDArray[Any], kept: NDArray[np.int64], rows: int) -> NDArray[Any]:
    """Put values at the positions of their rows; None for the others.

    Args:
        values: the values of some rows
        kept: the positions of these rows
        rows: the number of all rows
    """
    found = np.full(rows, None, object)
    found[kept] = _flatten(values)
    return found


def join_columns(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join the values of consecutive rows; rows of different shapes become lists."""
    if len({part.shape[1:] for part in parts}) > 1:
        parts = [_flatten(part) for part in parts]
    return np.concatenate(parts)


def _flatten(values: NDArray[Any]) -> NDArray[Any]:
    """Return one value for each row: a list where a row has several numbers."""
    return values if values.ndim == 1 else make_object_column(values.tolist())
