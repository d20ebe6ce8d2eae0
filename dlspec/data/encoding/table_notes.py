"""Describe to the user how a table was understood: kinds, targets, what was left out, what was unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.dataset import Target
from dlspec.data.encoding.column_choice import ColumnChoice
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.prepare.kinds.kind import FittedColumn

MAX_NAMES = 12  # names of one kind in a line
MAX_CLASSES = 10


def describe_table(choice: ColumnChoice | None, fitted: FittedTable) -> Iterator[str]:
    """Yield lines about the targets, the inputs by kind, and the columns that are left out.

    Args:
        choice: why kinds were inferred; None if everything was fitted by an earlier run
        fitted: what was fitted
    """
    for name, target in fitted.targets.items():
        yield describe_target(name, target, choice.reasons.get(name) if choice else None)
    names_of_kind: dict[str, list[str]] = {}
    for name, column in fitted.inputs.items():
        names_of_kind.setdefault(choice.inputs[name].name if choice else column.kind, []).append(name)
    yield "inputs: " + "; ".join(f"{kind} {join_names(names)}" for kind, names in names_of_kind.items())
    by_reason: dict[str, list[str]] = {}
    for name, reason in (choice.left_out if choice else {}).items():
        by_reason.setdefault(reason, []).append(name)
    if by_reason:
        yield "left out: " + "; ".join(f"{join_names(names)} ({reason})" for reason, names in by_reason.items())


def describe_target(name: str, target: FittedColumn, otherwise: str | None) -> str:
    """Describe what a target is, and where that was inferred, the setting that says otherwise.

    Args:
        name: the target's column
        target: what was fitted
        otherwise: the setting for another kind; None if the kind was written
    """
    classes = tuple(getattr(target, "classes", ()))
    found = f"target {name}: {target.kind}"
    if classes and not target.shape:
        found = f"target {name}: {len(classes)} classes, {join_names(classes, MAX_CLASSES)}"
        found += f" ({classes[1]} is positive)" if len(classes) == 2 else ""
    if classes and target.kind == "mask":
        found = f"target {name}: a mask of {len(classes)} classes, {join_names(classes, MAX_CLASSES)}"
    labels = tuple(getattr(target, "labels", ()))
    if labels:
        found = f"target {name}: {len(labels)} labels, {join_names(labels, MAX_CLASSES)}"
    return f"{found}; to change that, write {otherwise}" if otherwise else found


def join_names(names: Sequence[str], at_most: int = MAX_NAMES) -> str:
    """Join names with commas; of many only the first."""
    more = f" and {len(names) - at_most:,} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def describe_absent_classes(target: Target, values: NDArray[Any]) -> Iterator[str]:
    """Yield a line if a class of a target with one class for each row occurs in no training row."""
    if target.kind == "classes" and not target.shape:
        present = set(np.unique(values).tolist())
        absent = [name for index, name in enumerate(target.classes) if index not in present]
        if absent:
            yield f"no training row has the {target.name} {join_names(absent, MAX_CLASSES)}, so it can't be learned"


_WHAT = {"unknown": "cells that training does not have", "missing": "missing cells where training has none",
         "cut": "texts that were cut to max_length", "ungrouped": "groups without a scale of their own"}  # fmt: skip


def describe_counts(notes: Mapping[str, Counter[tuple[str, str]]]) -> Iterator[str]:
    """Yield a line for each split about unknown, missing and cut cells.

    Args:
        notes: by split: how often what was found in which column
    """
    gaps = {name for (what, name), count in notes.get("training", Counter()).items() if what == "missing" and count}
    for split, counts in notes.items():
        for what, text in _WHAT.items():
            found = {name: count for (each, name), count in counts.items() if each == what and count}
            groups = [(text, found)]
            if what == "missing":
                also = {name: count for name, count in found.items() if name in gaps}
                groups = [("missing cells", also), (text, {name: found[name] for name in found if name not in gaps})]
            yield from (f"{split} rows have {words}: {_join_counts(names)}" for words, names in groups if names)


def describe_notes(notes: Counter[tuple[str, str]]) -> Iterator[str]:
    """Yield what new rows have that training did not: the kind of cells, with their number in each column."""
    for what, text in _WHAT.items():
        found = {name: count for (each, name), count in notes.items() if each == what and count}
        if found:
            yield f"{text}: {_join_counts(found)}"


def _join_counts(counts: Mapping[str, int]) -> str:
    return join_names([f"{name} {count:,}" for name, count in counts.items()])


def describe_splits(names: Iterable[str], counts: Iterable[int]) -> str:
    """Describe the number of rows of each split."""
    return "splits: " + ", ".join(f"{count:,} {name}" for name, count in zip(names, counts, strict=True)) + " rows"
