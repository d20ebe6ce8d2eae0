"""Targets with several classes in each row: `labels`, any number of them, and `tags`, one for each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat, list_cells
from dlspec.data.prepare.kinds.class_table import (
    ClassesKind,
    ClassTable,
    MissingTarget,
    encode_missing_targets,
    order_classes,
    read_missing_target,
)
from dlspec.data.prepare.kinds.inference import has_lists
from dlspec.data.prepare.kinds.kind import (
    IGNORED,
    TARGET_KINDS,
    Encoded,
    FittedColumn,
    Role,
    Rows,
    register_kind,
    register_saved,
)
from dlspec.data.prepare.kinds.label_columns import find_rows_with_gaps, read_label_columns
from dlspec.data.prepare.kinds.saved_values import SavedValues
from dlspec.data.prepare.kinds.splitters import Texts, find_length, note_texts, pad_ids, split_cells
from dlspec.data.prepare.kinds.text import DEFAULT_MAX_STEPS
from dlspec.data.prepare.vocabulary import MAX_LENGTH
from dlspec.errors import DataError

MissingLabels = Literal["refuse", "drop", "ignore", "none"]


@register_kind("labels", TARGET_KINDS)
class LabelsTarget(ClassesKind):
    """Any number of labels for each row, written as `a|b`, as a list, or as a column of yes or no for each label."""

    role: ClassVar[Role] = "target"

    like: str | list[str] | None = Field(
        None, min_length=1, description="the columns of the labels: names, or a pattern such as 'is_*'"
    )

    separator: str = Field("|", min_length=1, max_length=10, description="what is between the labels of a cell")
    missing: MissingLabels = Field(
        "refuse", description="refuse, drop or ignore a row without labels; none: it has none"
    )

    @override
    def fit(self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = "") -> FittedLabels:
        table = self.make_table(lambda: _order_items(split_labels(column, self.separator), name))
        return FittedLabels(table, self.separator, self.missing)

    @override
    def find_rows_to_drop(self, column: NDArray[Any]) -> Rows:
        if column.ndim == 1 or self.missing != "drop":
            return super().find_rows_to_drop(column)
        return np.flatnonzero(find_rows_with_gaps(column))


def split_labels(column: NDArray[Any], separator: str) -> Texts:
    """Split the cells of a column into labels; lists are left as they are."""
    if has_lists(column):
        return split_cells(column, "given", lowercase=False)
    return [
        None if cell is None else [label for part in cell.split(separator) if (label := part.strip())]
        for cell in list_cells(column)
    ]


def _order_items(texts: Texts, name: str) -> tuple[str, ...]:
    return order_classes((item for text in texts for item in text or ()), name, are_in_order=True)


@register_saved("labels")
@dataclass(frozen=True)
class FittedLabels(FittedColumn):
    """The labels of a target: (N, L) float32, 1 for each label that a row has."""

    table: ClassTable
    separator: str
    missing: MissingLabels

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.table.names),)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.table.names

    def apply(self, column: NDArray[Any]) -> Encoded:
        texts, wrong = self._read_labels(column)
        indices, problems = index_items(texts, self.table)
        problems |= wrong
        values = np.zeros((len(texts), *self.shape), np.float32)
        for row, found in enumerate(indices):
            values[row, [each for each in found if each != IGNORED]] = 1
        if self.missing == "none":
            return Encoded(values, problems=problems)
        return encode_missing_targets(values, texts, self.missing, problems)

    def _read_labels(self, column: NDArray[Any]) -> tuple[Texts, dict[int, str]]:
        """List the labels of each row, None for a row without any, and say why others can't be read."""
        if column.ndim == 1:
            return split_labels(column, self.separator), {}
        if column.shape[1] != len(self.labels):
            raise DataError("target", f"{len(self.labels)} columns of labels are expected, got {column.shape[1]}")
        rows, problems = read_label_columns(column, self.labels)
        has_gaps = find_rows_with_gaps(column) & (self.missing != "none")
        return [None if is_gap else row for row, is_gap in zip(rows, has_gaps.tolist(), strict=True)], problems

    def invert(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert zeros and ones (N, L) to a list of names in each row (N,)."""
        names = np.empty(len(values), object)
        names[:] = [[self.labels[index] for index in np.flatnonzero(row)] for row in values]
        return names

    def to_json(self) -> dict[str, Any]:
        saved = {"kind": self.kind, "classes": self.table.to_json(), "separator": self.separator}
        return {**saved, "missing": self.missing}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedLabels:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, ("classes", "separator", "missing"))
        choices: tuple[MissingLabels, ...] = get_args(MissingLabels)
        missing = next(each for each in choices if each == values.get_choice("missing", choices))
        separator = values.get_text("separator", 10) or "|"
        return cls(ClassTable.from_json(values.values["classes"]), separator, missing)


def index_items(texts: Texts, table: ClassTable) -> tuple[list[list[int]], dict[int, str]]:
    """Return the indices of each row's items, and by row why an item has none."""
    index, problems = table.make_index(), {}
    indices = [[index(item) for item in text or ()] for text in texts]
    for row, found in enumerate(indices):
        if IGNORED in found:
            problems[row] = table.explain_wrong((texts[row] or [])[found.index(IGNORED)])
    return indices, problems


@register_kind("tags", TARGET_KINDS)
class TagsTarget(ClassesKind):
    """One class for each step, written as a list or with spaces between them."""

    role: ClassVar[Role] = "target"

    max_length: int = Field(DEFAULT_MAX_STEPS, ge=1, le=MAX_LENGTH, description="steps kept of a row, as for its text")
    missing: MissingTarget = Field("refuse", description="refuse a row without tags, drop it, or ignore its loss")

    @override
    def fit(self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = "") -> FittedTags:
        texts = split_cells(column, "given", lowercase=False)
        length = find_length([texts[row] for row in training.tolist()], self.max_length)
        return FittedTags(self.make_table(lambda: _order_items(texts, name)), length, self.missing)


@register_saved("tags")
@dataclass(frozen=True)
class FittedTags(FittedColumn):
    """The classes of a target's steps: (N, T) int64 with lengths; 0 in the padding."""

    table: ClassTable
    length: int
    missing: MissingTarget

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.table.names

    def apply(self, column: NDArray[Any]) -> Encoded:
        texts = split_cells(column, "given", lowercase=False)
        indices, problems = index_items(texts, self.table)
        values, lengths = pad_ids([found or [IGNORED] for found in indices], self.length, 0)
        marks = [text or None for text in texts]
        encoded = encode_missing_targets(values, marks, self.missing, problems)
        notes = {key: count for key, count in note_texts(texts, self.length).items() if key == "cut"}
        return Encoded(values, lengths, encoded.problems, notes, encoded.dropped, encoded.ignored)

    def invert(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert indices (N, T) to names of classes."""
        return self.table.get_names(values)

    def to_json(self) -> dict[str, Any]:
        saved = {"kind": self.kind, "classes": self.table.to_json(), "length": self.length}
        return {**saved, "missing": self.missing}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedTags:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, ("classes", "length", "missing"))
        length = values.get_integer("length", 1, MAX_LENGTH)
        return cls(ClassTable.from_json(values.values["classes"]), length, read_missing_target(values))
