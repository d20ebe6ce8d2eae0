"""The splits that a column of the table names: train, val, test in any of their usual spellings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.split_indices import TEST, TRAIN, VALIDATION
from dlspec.data.splitting.row_numbers import number_values
from dlspec.errors import Code, DataError, format_value

FREE = -1  # a row whose split is not decided yet
SPLIT_OF_NAME = {
    "train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION,
    "dev": VALIDATION, "test": TEST, "testing": TEST,
}  # fmt: skip


def read_split_column(name: str, column: NDArray[Any]) -> NDArray[np.int64]:
    """Read the split of each row from a column.

    Args:
        name: name of the column
        column: its cells (N,)

    Returns:
        TRAIN, VALIDATION or TEST for each row (N,).

    Raises:
        DataError: if a cell names no split, or no row is for training.
    """
    numbers, cells = number_values(column)
    splits = [SPLIT_OF_NAME.get(str(cell).lower(), FREE) for cell in cells]
    if FREE in splits:
        found = "is empty in some rows" if cells[splits.index(FREE)] is None else _describe_unknown(cells, splits)
        fix = "write train, val or test in every row, or leave the others out with where"
        raise DataError("split", f"'{name}' {found}; {fix}", Code.WRONG_VALUE)
    if TRAIN not in splits:
        raise DataError("split", f"'{name}' puts no row into the training split")
    return np.array(splits, np.int64)[numbers]


def names_splits(column: NDArray[Any]) -> bool:
    """Whether every cell of a column names a split and at least two splits are named."""
    cells = set(column.tolist()) if column.ndim == 1 and column.dtype != object else {None}
    splits = {SPLIT_OF_NAME.get(str(cell).lower(), FREE) for cell in cells}
    return FREE not in splits and TRAIN in splits and len(splits) > 1


def _describe_unknown(cells: list[Any], splits: list[int]) -> str:
    unknown = [format_value(str(cell)) for cell, split in zip(cells, splits, strict=True) if split == FREE]
    return f"has {', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}, which name no split"
