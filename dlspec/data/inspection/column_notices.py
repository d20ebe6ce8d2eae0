"""What a user should know about several columns of a table: a sum that is the target, categories that never repeat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.kinds.cells import CellFormat, list_cells, read_numbers
from dlspec.data.prepare.kinds.setting_lines import format_drop_line

Columns = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]
MAX_ROWS = 5_000  # that sums are looked for in
MAX_SUMMANDS = 10
MIN_ROWS_OF_COLUMN = 5  # fewer rows for each column fit any target
EXACT = 1e-9  # of the target's variance that an exact sum leaves
MIN_WEIGHT = 1e-3  # of a summand, compared with the largest one
MIN_VALUES = 50  # of a category that may be rare
MIN_REPEATS = 2.0  # rows for each value, on average, that a model can learn from


def find_exact_sum(columns: Columns, kinds: Mapping[str, str], target: str, read: CellFormat) -> Iterator[str]:
    """Yield a notice if a weighted sum of several columns is exactly the target, a number.

    Args:
        columns: the cells of all rows
        kinds: the kind of each input column
        target: the target's column
        read: how the file writes numbers
    """
    names = [name for name, kind in kinds.items() if kind == "number"]
    if columns[target].ndim > 1 or len(names) < 2:
        return
    values = np.stack([read_numbers(columns[name][:MAX_ROWS], read).values for name in (*names, target)], axis=1)
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < MIN_ROWS_OF_COLUMN * len(names) or not values[:, -1].std():
        return
    summands = _find_summands(values[:, :-1], values[:, -1])
    if 1 < len(summands) <= MAX_SUMMANDS:
        found = [names[each] for each in summands]
        yield (
            f"{' and '.join(found)} together give '{target}' exactly, as a weighted sum: check that they are known "
            f"before the target is, or write {format_drop_line(*found)}"
        )


def _find_summands(inputs: Floats, target: Floats) -> list[int]:
    """List the columns whose weighted sum is the target; [] if no sum is."""
    spread = inputs.std(axis=0)
    varying = np.flatnonzero(spread > 0)
    standard = (inputs[:, varying] - inputs[:, varying].mean(axis=0)) / spread[varying]
    centered = (target - target.mean()) / target.std()
    weights = np.linalg.lstsq(standard, centered)[0]
    chosen = np.flatnonzero(np.abs(weights) > MIN_WEIGHT * np.abs(weights).max(initial=0))
    rest = centered - standard[:, chosen] @ np.linalg.lstsq(standard[:, chosen], centered)[0]
    return varying[chosen].tolist() if float(np.mean(rest**2)) < EXACT else []


def find_rare_categories(columns: Columns, kinds: Mapping[str, str]) -> Iterator[str]:
    """Yield a notice about categories most of whose values occur once.

    Args:
        columns: the cells of all rows
        kinds: the kind of each input column
    """
    rare = [name for name, kind in kinds.items() if kind == "category" and _is_rare(list_cells(columns[name]))]
    if rare:
        yield (
            f"most values of {' and '.join(rare)} occur once, and tell nothing about other rows: leave them out "
            f"with {format_drop_line(*rare)}, or extract what repeats (data.extract)"
        )


def _is_rare(cells: Sequence[str | None]) -> bool:
    known = [cell for cell in cells if cell is not None]
    return len(set(known)) >= MIN_VALUES and len(known) < MIN_REPEATS * len(set(known))
