"""Labels that are written as several columns of yes or no, one for each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.kinds.cells import find_missing, list_cells

YES = frozenset({"1", "1.0", "true", "t", "yes", "y"})
MINUS_ONE = "-1"  # no in tables of 1 and -1, but often "uncertain" in those of 1, 0 and -1
NO = frozenset({"0", "0.0", "false", "f", "no", "n"})


def read_label_columns(column: NDArray[Any], names: Sequence[str]) -> tuple[list[list[str]], dict[int, str]]:
    """List the labels of each row, and say for some rows why their cells can't be read.

    Args:
        column: a cell for each label (N, L): 1 or 0, true or false, yes or no; a missing cell is no, and so is -1
            where no cell is 0
        names: the labels
    """
    cells = [list_cells(column[:, at]) for at in range(len(names))]
    no = NO if any("0" in each for each in cells) else NO | {MINUS_ONE}
    rows: list[list[str]] = [[] for _ in range(len(column))]
    problems: dict[int, str] = {}
    for at, name in enumerate(names):
        for row, cell in enumerate(cells[at]):
            word = "0" if cell is None else cell.lower()
            if word in YES:
                rows[row].append(name)
            elif word not in no:
                problems.setdefault(row, f"'{cell}' does not say whether '{name}' is a label of this row: write 1 or 0")
    return rows, problems


def find_rows_with_gaps(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows miss the cell of a label, (N,)."""
    gaps = [find_missing(column[:, at]) for at in range(column.shape[1])]
    return np.asarray(np.any(gaps, axis=0))
