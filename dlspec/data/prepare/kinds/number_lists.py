"""Read cells that are lists of numbers, or several columns of numbers, as one array with lengths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.kinds.cells import MAX_NUMBER, PLAIN, CellFormat, find_missing, read_numbers

Floats = NDArray[np.float64]
MAX_RANK = 3  # of a cell: (W,), (T, C) or (C, H, W)


@dataclass(frozen=True)
class NumberLists:
    """Cells as arrays."""

    cells: Sequence[Floats | None]  # each (W,), (T, C) or (C, H, W), NaN for a missing number; None if missing or wrong
    missing: NDArray[np.bool_]  # (N,)
    wrong: dict[int, str]  # why a cell can't be read, by row
    # The cells as one array (N, ...), where a column is one: it is encoded without a loop over rows. Missing and wrong
    # rows are NaN.
    matrix: Floats | None = None

    def count_steps(self) -> NDArray[np.int64]:
        """Count the steps of each cell before its tail of NaN, (N,)."""
        if self.matrix is None:
            return np.array([count_steps(cell) for cell in self.cells], np.int64)
        rows, steps = self.matrix.shape[:2]
        width = prod(self.matrix.shape[2:])
        is_real = np.asarray(~np.isnan(self.matrix).reshape(rows, steps, width).all(axis=2))
        last = steps - np.argmax(is_real[:, ::-1], axis=1)
        return np.where(is_real.any(axis=1), last, 0).astype(np.int64)

    def choose_rows(self, rows: NDArray[np.int64]) -> NumberLists:
        """Return some rows, none of them missing or wrong."""
        matrix = None if self.matrix is None else self.matrix[rows]
        return NumberLists([self.cells[row] for row in rows.tolist()], np.zeros(len(rows), bool), {}, matrix)


def read_number_lists(column: NDArray[Any], read: CellFormat = PLAIN) -> NumberLists:
    """Read a column of lists of numbers.

    Args:
        column: lists (N,), texts such as `1 2 3` (N,), texts in several columns (N, W), or numbers (N, ...)
        read: how the file writes numbers

    Returns:
        The numbers of each cell.
    """
    if column.ndim > 1:
        return _read_matrix(column, read)
    missing = find_missing(column)
    arrays: list[Floats | None] = []
    wrong: dict[int, str] = {}
    for row, cell in enumerate(column.tolist()):
        try:
            arrays.append(None if missing[row] else _read_cell(cell, read))
        except ValueError as error:
            arrays.append(None)
            wrong[row] = str(error)
    return NumberLists(arrays, missing, wrong)


def _read_matrix(column: NDArray[Any], read: CellFormat) -> NumberLists:
    """Read an array of numbers, or several columns of texts."""
    flat = column.reshape(len(column), prod(column.shape[1:]))
    values, wrong = _read_texts(flat, read) if column.dtype.kind not in "biuf" else _check_finite(flat)
    values[list(wrong)] = np.nan
    missing = np.asarray(np.isnan(values).all(axis=1))
    arrays = [None if skip else row for row, skip in zip(values.reshape(column.shape), missing.tolist(), strict=True)]
    missing[list(wrong)] = False
    return NumberLists(arrays, missing, wrong, values.reshape(column.shape))


def _check_finite(flat: NDArray[Any]) -> tuple[Floats, dict[int, str]]:
    values = flat.astype(np.float64)
    rows = np.flatnonzero(((values > MAX_NUMBER) | (values < -MAX_NUMBER)).any(axis=1))
    return values, dict.fromkeys(rows.tolist(), "a number is not finite as float32")


def _read_texts(flat: NDArray[Any], read: CellFormat) -> tuple[Floats, dict[int, str]]:
    """Read columns of texts one after the other: a list of all cells would take ten times the memory."""
    values = np.empty(flat.shape)
    wrong: dict[int, str] = {}
    for number in range(flat.shape[1]):
        found = read_numbers(flat[:, number], read)
        values[:, number] = found.values
        wrong = {row: f"'{cell}' is not a number" for row, cell in found.wrong.items()} | wrong
    return values, wrong


def _read_cell(cell: object, read: CellFormat) -> Floats:
    """Read one cell; ValueError if it is not a list of numbers."""
    if isinstance(cell, str):
        separators = r"[\s;]+" if read.decimal == "," else r"[\s;,]+"
        cell = [part for part in re.split(separators, cell.strip(" []()")) if part]
        return _check_numbers(read_numbers(np.array(cell, dtype=object), read).values, cell)
    try:
        values = np.array(cell, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("expected a list of numbers, all of its items of one length") from None
    if not 1 <= values.ndim <= MAX_RANK or 0 in values.shape[1:]:
        raise ValueError(f"expected a list of numbers, got shape {list(values.shape)}")
    values[np.abs(values) > MAX_NUMBER] = np.inf
    if np.isinf(values).any():
        raise ValueError("a number of the list is not finite as float32")
    return values


def _check_numbers(values: Floats, parts: Sequence[str]) -> Floats:
    wrong = np.flatnonzero(np.isnan(values))
    if len(wrong):
        raise ValueError(f"'{parts[wrong[0]]}' is not a number")
    return values


def count_steps(cell: Floats | None) -> int:
    """Count the steps of a cell before its tail of NaN."""
    if cell is None:
        return 0
    real = np.flatnonzero(~np.isnan(cell).reshape(len(cell), -1).all(axis=1))
    return int(real[-1]) + 1 if len(real) else 0
