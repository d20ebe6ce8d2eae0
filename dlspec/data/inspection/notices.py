"""What a user should know about a table before training: columns that tell the target, equal rows, rare classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.dataset import Dataset
from dlspec.data.lazy_array import read_rows
from dlspec.data.prepare.kinds.cells import CellFormat, list_cells, read_numbers
from dlspec.data.prepare.kinds.setting_lines import format_drop_line
from dlspec.data.splitting.row_numbers import number_equal_rows

Columns = Mapping[str, NDArray[Any]]
MIN_SHARE_TOLD = 0.99  # of the rows whose target one column tells
MIN_ROWS_OF_VALUE = 5  # on average: a column with fewer rows for each value tells any target
MIN_ROWS = 20


def find_telling_columns(
    columns: Columns, kinds: Mapping[str, str], target: str, target_kind: str, read: CellFormat
) -> Iterator[str]:
    """Yield a notice for each input column that tells the target almost by itself.

    Args:
        columns: the cells of all rows
        kinds: the kind of each input column
        target: the target's column
        target_kind: its kind
        read: how the file writes numbers
    """
    labels = list_cells(columns[target]) if columns[target].ndim == 1 and columns[target].dtype.kind != "O" else []
    if len(labels) < MIN_ROWS or target_kind not in ("class", "value"):
        return
    for name, kind in kinds.items():
        if kind == "number" and target_kind == "value":
            share = _correlate_ranks(columns[name], columns[target], read)
        elif kind == "number":
            share = _separate_by_threshold(columns[name], labels, read)
        elif kind == "category" and target_kind == "class":
            share = _count_majorities(list_cells(columns[name]), labels)
        else:
            continue
        if share >= MIN_SHARE_TOLD:
            yield (
                f"'{name}' almost tells '{target}' by itself ({100 * share:.1f} %): check that it is known before the "
                f"target is, or write {format_drop_line(name)}"
            )


def _count_majorities(cells: Sequence[str | None], labels: Sequence[str | None]) -> float:
    """Return the share of rows that have the most frequent label of their cell."""
    counts: dict[str | None, dict[str | None, int]] = {}
    for cell, label in zip(cells, labels, strict=True):
        of_cell = counts.setdefault(cell, {})
        of_cell[label] = of_cell.get(label, 0) + 1
    if len(counts) * MIN_ROWS_OF_VALUE > len(cells):
        return 0.0
    return sum(max(each.values()) for each in counts.values()) / len(cells)


def _separate_by_threshold(column: NDArray[Any], labels: Sequence[str | None], read: CellFormat) -> float:
    """Return the best share of rows of two classes that a threshold on a number separates; 0 for more classes."""
    names = sorted({label for label in labels if label is not None})
    values = read_numbers(column, read).values
    known = np.isfinite(values) & np.array([label is not None for label in labels])
    if len(names) != 2 or known.sum() < MIN_ROWS:
        return 0.0
    is_second = np.array([label == names[1] for label in labels])[known]
    order = np.argsort(values[known], kind="stable")
    ordered, seconds = values[known][order], np.cumsum(is_second[order])
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # a threshold is between different numbers
    below, total = ends + 1, seconds[-1]
    right = (below - seconds[ends]) + (total - seconds[ends])  # the first class below, the second above
    best = max(right.max(), len(ordered) - right.min()) / len(ordered)
    most_frequent = max(total, len(ordered) - total) / len(ordered)
    return float(best) if most_frequent < MIN_SHARE_TOLD else 0.0


def _correlate_ranks(column: NDArray[Any], target: NDArray[Any], read: CellFormat) -> float:
    """Return the absolute rank correlation (Spearman's) of two numbers."""
    one, other = read_numbers(column, read).values, read_numbers(target, read).values
    known = np.isfinite(one) & np.isfinite(other)
    if known.sum() < MIN_ROWS:
        return 0.0
    first, second = _rank(one[known]), _rank(other[known])
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(abs(np.corrcoef(first, second)[0, 1]))


def _rank(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of each value; equal values have the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def find_equal_rows(columns: Columns, inputs: Sequence[str], targets: Sequence[str]) -> Iterator[str]:
    """Yield a notice about rows that are equal in every input, and those among them that differ in a target.

    Args:
        columns: the cells of all rows
        inputs: the input columns
        targets: the target columns
    """
    numbers = number_equal_rows(columns, inputs)
    counts = np.bincount(numbers)
    repeated = int((counts[counts > 1] - 1).sum())
    if not repeated:
        return
    yield f"{repeated:,} rows repeat the inputs of another row; equal rows are always in one split"
    if targets:
        with_target = number_equal_rows(columns, [*inputs, *targets])
        differing = len(np.unique(with_target)) - len(counts)
        if differing:
            yield f"{differing:,} of them have another target than the row that they repeat: no model can fit both"


def find_missing_classes(dataset: Dataset) -> Iterator[str]:
    """Yield a notice for each class that no training row has, and for each split without rows of a class."""
    for target in dataset.targets:
        if target.kind != "classes" or target.shape:
            continue
        classes = range(len(target.classes))
        in_training = set(read_rows(dataset.train.targets[target.name]).tolist())
        absent = [target.classes[each] for each in classes if each not in in_training]
        if absent:
            yield f"no training row has the class {', '.join(absent)} of '{target.name}'"
