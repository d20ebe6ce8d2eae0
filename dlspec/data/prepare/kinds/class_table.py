"""The classes of a target: their order, which cell belongs to which, and what happens to a missing one.

Classes, their order and the positive one are facts of all rows, so that folds agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from dlspec.data.prepare.kinds.cells import is_number
from dlspec.data.prepare.kinds.kind import IGNORED, ColumnKind, Encoded
from dlspec.data.prepare.kinds.saved_values import SavedValues, check_text, make_saved_error
from dlspec.data.prepare.kinds.setting_lines import (
    can_be_key,
    escape_key,
    format_columns_line,
    format_yaml_line,
    quote_value,
)
from dlspec.data.prepare.kinds.settings import CellText
from dlspec.errors import Code, DataError
from dlspec.limits import MAX_CLASSES

MissingTarget = Literal["refuse", "drop", "ignore"]
MISSING_TARGETS: tuple[MissingTarget, ...] = ("refuse", "drop", "ignore")
ANY_OTHER = "*"  # key of a mapping from cells to classes, for all cells without a key
MAX_MAPPED = 20  # classes in a mapping that a message suggests
# Pairs of which the second class is positive, however frequent it is.
KNOWN_PAIRS = (
    *(("no", "yes"), ("n", "y"), ("false", "true"), ("f", "t"), ("off", "on")),
    *(("negative", "positive"), ("neg", "pos"), ("absent", "present"), ("-", "+")),
)
POSITIVE_OF_PAIR = {frozenset(pair): pair[1] for pair in KNOWN_PAIRS}


class ClassesKind(ColumnKind):
    """Settings that all targets with classes share."""

    classes: list[CellText] | dict[CellText, CellText] | None = Field(
        None, description="the classes in their order, or a mapping from cells to classes; '*' is any other cell"
    )

    @model_validator(mode="after")
    def _check_classes(self) -> ClassesKind:
        listed = self.list_classes()
        if self.classes is not None and len(set(listed)) < 2:
            raise ValueError("classes needs at least two different classes")
        if isinstance(self.classes, list) and len(set(listed)) < len(listed):
            raise ValueError("classes lists a class twice")
        return self

    def list_classes(self) -> tuple[str, ...]:
        """Return the classes as the settings say, in order; () if they are those of the data."""
        return tuple(dict.fromkeys(self.classes.values()) if isinstance(self.classes, dict) else self.classes or ())

    def make_table(self, order: Callable[[], tuple[str, ...]]) -> ClassTable:
        """Make the table of classes: those of the settings, or what `order` returns."""
        cells = dict(self.classes) if isinstance(self.classes, dict) else None
        return ClassTable(self.list_classes() or order(), cells)


@dataclass(frozen=True)
class ClassTable:
    """The classes with their indices, and which cell belongs to which class."""

    names: tuple[str, ...]
    cells: Mapping[str, str] | None  # from cells to classes, '*' for all others; None if cells are names of classes

    def make_index(self) -> Callable[[str], int]:
        """Return the function from a cell to the index of its class; -100 for a cell without a class."""
        index = {each: number for number, each in enumerate(self.names)}
        if self.cells is None:
            return lambda cell: index.get(cell, IGNORED)
        index_of_cell = {cell: index[each] for cell, each in self.cells.items()}
        other = index_of_cell.pop(ANY_OTHER, IGNORED)
        return lambda cell: index_of_cell.get(cell, other)

    def get_names(self, indices: NDArray[Any]) -> NDArray[Any]:
        """Return the class of each index; None for -100."""
        return np.asarray(np.array([*self.names, None], object)[np.where(indices < 0, len(self.names), indices)])

    def explain_wrong(self, cell: str) -> str:
        """Say that a cell has no class."""
        return f"'{cell}' is not one of the classes {', '.join(list(self.cells or self.names)[:10])}"

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values, with `kind`."""
        return {"kind": "classes", "names": list(self.names), "cells": None if self.cells is None else dict(self.cells)}

    @classmethod
    def from_json(cls, saved: object) -> ClassTable:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, ("names", "cells"))
        names = values.get_texts("names", MAX_CLASSES)
        if len(names) < 2:
            raise make_saved_error("there must be at least two classes")
        return cls(names, _read_cells(values.values["cells"], names))


def order_classes(
    cells: Iterable[str | None], name: str, positive: str | None = None, are_in_order: bool = False
) -> tuple[str, ...]:
    """Return the different cells as classes: numbers by size, others in alphabetical order.

    Of two classes the second is positive: the larger number, yes of no and yes, otherwise the rarer one.

    Args:
        cells: the cells of all rows
        name: the column's name, for messages
        positive: of two classes, the one to come second
        are_in_order: whether none of two classes is positive

    Returns:
        The classes.

    Raises:
        DataError: for fewer than two classes, spellings of one class, or so many that they can't be classes.
    """
    counts = Counter({cell: count for cell, count in Counter(cells).items() if cell is not None})
    classes = sorted(counts, key=_sort_key)
    check_spellings(name, classes)
    _check_count(name, classes, counts.total())
    if positive is not None:
        _check_positive(name, classes, positive)
        return tuple(sorted(classes, key=lambda each: each == positive))
    if len(classes) == 2 and not are_in_order and not all(map(is_number, classes)):
        known = POSITIVE_OF_PAIR.get(frozenset(each.casefold() for each in classes))
        return tuple(sorted(classes, key=lambda each: each.casefold() == known if known else -counts[each]))
    return tuple(classes)


def _sort_key(cell: str) -> tuple[bool, float, str]:
    return (False, float(cell), cell) if is_number(cell) else (True, 0.0, cell)


def _check_count(name: str, classes: Sequence[str], count: int) -> None:
    if len(classes) < 2:
        found = f"every row of the target '{name}' is '{classes[0]}'" if classes else f"the target '{name}' is empty"
        raise DataError("target", f"{found}; expected at least two classes")
    if len(classes) > min(MAX_CLASSES, max(20, count // 2)):
        found = f"the target '{name}' has {len(classes):,} different classes in {count:,} rows"
        are_numbers = all(map(is_number, classes))
        value = f"write {format_columns_line(name, 'value', 'target')} for numbers"
        fix = value if are_numbers else "check that it is the target"
        raise DataError("target", f"{found}; {fix}")


def _check_positive(name: str, classes: Sequence[str], positive: str) -> None:
    if len(classes) != 2 or positive not in classes:
        found = f"positive is '{positive}', but the classes of '{name}' are {', '.join(classes[:10])}"
        raise DataError("target", f"{found}; it must be one of two classes", Code.WRONG_VALUE)


def check_spellings(name: str, classes: Collection[str]) -> None:
    """Refuse classes that differ only in how a word or number is written: `ham` and `HAM`, `1` and `1.0`."""
    firsts: dict[str | float, str] = {}
    spellings = {each: firsts.setdefault(normalize_class(each), each) for each in classes}
    for each, first in spellings.items():
        if first != each:
            found = f"the classes '{first}' and '{each}' of '{name}' differ only in their spelling"
            raise DataError("target", f"{found}; write one of them everywhere{_suggest_mapping(name, spellings)}")


def _suggest_mapping(name: str, spellings: Mapping[str, str]) -> str:
    """Return the setting that maps every spelling to the first one; '' where it would be long."""
    if len(spellings) > MAX_MAPPED:
        return ""
    if not all(map(can_be_key, spellings)):
        return (
            f", or map cells to classes: {format_yaml_line({name: {'class': {'classes': dict(spellings)}}}, 'target')}"
        )
    cells = ", ".join(f"{escape_key(cell)}: {quote_value(first)}" for cell, first in spellings.items())
    return f", or map cells to classes: {format_columns_line(name, f'{{class: {{classes: {{{cells}}}}}}}', 'target')}"


def normalize_class(name: str) -> str | float:
    """Return the number that a class is, or its words in lower case with single spaces, without a point at the end."""
    words = " ".join(normalize("NFKC", name).casefold().split())
    without_point = words[:-1] if words.endswith(".") and words[-2:-1].isalnum() else words
    try:
        return float(words) if words[-1:].isdigit() or words.endswith(".") else without_point
    except ValueError:
        return without_point


def _read_cells(saved: object, names: tuple[str, ...]) -> dict[str, str] | None:
    if saved is None:
        return None
    if not isinstance(saved, Mapping) or len(saved) > MAX_CLASSES or not set(map(str, saved.values())) <= set(names):
        raise make_saved_error("cells must be a mapping from cells to classes")
    return {check_text("cells", cell): check_text("cells", each) for cell, each in saved.items()}


def read_missing_target(values: SavedValues) -> MissingTarget:
    """Return the saved `missing` of a target."""
    found = values.get_choice("missing", MISSING_TARGETS)
    return next(each for each in MISSING_TARGETS if each == found)


def encode_missing_targets(
    values: NDArray[Any], cells: Sequence[object], missing: MissingTarget, problems: Mapping[int, str]
) -> Encoded:
    """Treat the missing cells of a target as its setting says.

    Args:
        values: the encoded target (N, ...)
        cells: the cells, None where missing
        missing: what happens to a row without a target
        problems: why other cells can't be read, by row

    Returns:
        The encoded column.
    """
    gaps = np.array([row for row, cell in enumerate(cells) if cell is None], np.int64)
    if missing == "refuse":
        problems = {**problems, **dict.fromkeys(gaps.tolist(), "the target is missing")}
        return Encoded(values, problems=problems)
    if missing == "drop":
        return Encoded(values, problems=problems, dropped=gaps)
    return Encoded(values, problems=problems, ignored=gaps)
