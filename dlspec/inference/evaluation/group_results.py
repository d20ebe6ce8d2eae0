"""Results by the values of a column: for each country, each hospital, each class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.inference.evaluation.bootstrap import Indices, Interval

MAX_GROUPS = 50  # the rows of rarer values are one group
MIN_ROWS = 10  # of a group, for results that say something
OTHER, MISSING = "other", ""  # names of the group of rarer values, and of missing cells: no cell is ""


@dataclass(frozen=True)
class Group:
    """The results of the rows with one value."""

    value: str
    rows: int
    metrics: Mapping[str, Interval]
    is_joined: bool = False  # whether these are the rows of all rarer values

    @property
    def is_rare(self) -> bool:
        """Whether there are too few rows to say much."""
        return self.rows < MIN_ROWS

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        metrics = {name: each.to_json() for name, each in self.metrics.items()}
        found = {"value": self.value, "rows": self.rows, "rare": self.is_rare, "metrics": metrics}
        return found | ({"joined": True} if self.is_joined else {})


def find_groups(cells: NDArray[Any], at_most: int = MAX_GROUPS) -> list[tuple[str, Indices, bool]]:
    """Find the rows of each value, the most frequent first; beyond `at_most` they are one group at the end.

    Args:
        cells: the column's cells, one for each row: texts, numbers, lists; None where missing
        at_most: how many groups there may be

    Returns:
        The value, its rows, and whether these are the rows of several rarer values.
    """
    rows_by_value: dict[str, list[int]] = {}
    for row, cell in enumerate(cells.tolist()):
        rows_by_value.setdefault(_name_value(cell), []).append(row)
    ordered = sorted(rows_by_value.items(), key=lambda each: -len(each[1]))
    kept = ordered if len(ordered) <= at_most else ordered[: at_most - 1]
    groups = [(value, np.array(rows), False) for value, rows in kept]
    rest = sorted(row for _, rows in ordered[len(kept) :] for row in rows)
    return [*groups, *([(OTHER, np.array(rest), True)] if rest else [])]


def _name_value(cell: object) -> str:
    if cell is None or cell != cell:
        return MISSING
    return "|".join(map(str, cell)) if isinstance(cell, list) else str(cell)


def evaluate_groups(
    cells: NDArray[Any], evaluate: Callable[[Indices], Mapping[str, Interval]], at_most: int = MAX_GROUPS
) -> list[Group]:
    """Evaluate the rows of each value of a column.

    Args:
        cells: the column's cells, one for each row
        evaluate: returns the metrics of some rows
        at_most: how many groups there may be
    """
    return [Group(value, len(rows), evaluate(rows), joined) for value, rows, joined in find_groups(cells, at_most)]
