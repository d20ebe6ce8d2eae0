"""Summarize one column of a table: its kind and why, missing cells, and its values."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.encoding.image_columns import describe_image_values
from dlspec.data.images.image_cells import ImageCell
from dlspec.data.prepare.kinds.cells import CellFormat, find_missing, list_cells, read_numbers
from dlspec.formatting import format_digits

MAX_SHOWN_VALUES = 5
MAX_CELL_LENGTH = 20  # characters of a value that are shown


@dataclass(frozen=True)
class ColumnSummary:
    """One column of a table."""

    name: str
    kind: str  # "" for a column that is left out
    role: str  # input, target, or left out
    reason: str  # why it has this kind or is left out; "as written" where the settings say so
    missing: int  # cells without a value
    distinct: int  # different values
    values: str  # a range, the most frequent values or the lengths

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return asdict(self)


def summarize_column(
    name: str, column: NDArray[Any], *, kind: str, role: str, reason: str, read: CellFormat
) -> ColumnSummary:
    """Summarize a column.

    Args:
        name: the column's name
        column: the cells of all rows (N, ...)
        kind: its kind; "" if it is left out
        role: input, target, or left out
        reason: why it has this kind or is left out
        read: how the file writes numbers
    """
    missing = int(find_missing(column).sum())
    if column.dtype.kind == "O" and any(isinstance(cell, ImageCell) for cell in column):
        different = len({cell.get_digest() for cell in column if cell is not None})
        return ColumnSummary(name, kind, role, reason, missing, different, describe_image_values(column))
    if column.ndim > 1 or column.dtype.kind == "O":
        return ColumnSummary(name, kind, role, reason, missing, 0, _describe_lists(column))
    if kind in ("number", "value") or (not kind and not reason.startswith("an id") and _are_numbers(column, read)):
        numbers = read_numbers(column, read).values
        known = numbers[np.isfinite(numbers)]
        return ColumnSummary(name, kind, role, reason, missing, len(np.unique(known)), _describe_numbers(known))
    cells = [cell for cell in list_cells(column) if cell is not None]
    counts = Counter(cells)
    if kind == "date":
        values = f"{min(cells)} to {max(cells)}" if cells else ""
    elif kind == "text":
        values = _describe_range([len(cell.split()) for cell in cells], "words")
    else:
        values = describe_frequent(counts, len(cells))
    return ColumnSummary(name, kind, role, reason, missing, len(counts), values)


def describe_frequent(counts: Counter[str], total: int) -> str:
    """Describe the most frequent values: `yes 73 %, no 27 %`.

    Args:
        counts: how often each value occurs
        total: the number of all cells that have a value
    """
    shown = counts.most_common(MAX_SHOWN_VALUES)
    if shown and shown[0][1] == 1 and total > 1:
        return f"all different, such as {_shorten(shown[0][0])}"
    found = ", ".join(f"{_shorten(value)} {_format_share(count, total)}" for value, count in shown)
    return found + (f" and {len(counts) - len(shown):,} more" if len(counts) > len(shown) else "")


def _are_numbers(column: NDArray[Any], read: CellFormat) -> bool:
    """Whether all filled cells are numbers, and more than are shown one by one."""
    numbers = read_numbers(column, read)
    return not numbers.wrong and len(np.unique(numbers.values[~numbers.missing])) > MAX_SHOWN_VALUES


def _describe_numbers(known: NDArray[np.float64]) -> str:
    if not len(known):
        return ""
    low, middle, high = (format_digits(float(each)) for each in (known.min(), np.median(known), known.max()))
    return f"{low} to {high}, median {middle}"


def _describe_lists(column: NDArray[Any]) -> str:
    if column.ndim > 1:
        return f"shape {list(column.shape[1:])}"
    return _describe_range([len(cell) for cell in column.tolist() if cell is not None], "items")


def _describe_range(lengths: list[int], unit: str) -> str:
    if not lengths:
        return ""
    return f"{min(lengths):,} to {max(lengths):,} {unit}, median {int(np.median(lengths)):,}"


def _shorten(value: str) -> str:
    return value if len(value) <= MAX_CELL_LENGTH else value[: MAX_CELL_LENGTH - 1] + "…"


def _format_share(count: int, total: int) -> str:
    return f"{100 * count / max(1, total):.0f} %"
