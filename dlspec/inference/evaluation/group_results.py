"""Results by the values of a column: for each country, each hospital, each class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.dataset import Target
from dlspec.errors import join_first
from dlspec.inference.evaluation.bootstrap import Indices, Interval

MAX_GROUPS = 50  # the rows of rarer values are one group
MIN_ROWS = 10  # of a group, for results that say something
MAX_NAMES = 5  # of groups in a note
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


def describe_one_sided_groups(
    column: str, cells: NDArray[Any], targets: Sequence[Target], truth: Mapping[str, NDArray[Any]]
) -> Iterator[str]:
    """Yield a line for each target of two classes of which groups, but small ones, have no positive row: F1 is 0 there.

    Args:
        column: the column that the results are divided by
        cells: its cells, one for each row
        targets: the targets
        truth: by target, the true class of each row
    """
    for target in targets:
        if len(target.classes) != 2 or target.shape:
            continue
        groups = [(value, truth[target.name][rows]) for value, rows, _ in find_groups(cells) if len(rows) >= MIN_ROWS]
        empty = [value or "(missing)" for value, classes in groups if not (classes == 1).any()]
        if empty:
            names = join_first(empty, MAX_NAMES)
            found = f"no row with {column} {names} has the {target.name} {target.classes[1]}"
            yield f"{found}: metrics such as f1_score are 0 there, and say nothing"
