"""Infer the kind of a column from its cells, in a fixed order, with the reason. What is not clear is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.images.image_cells import ImageCell
from dlspec.data.prepare.kinds.cells import (
    PLAIN,
    CellFormat,
    Cells,
    are_all_numbers,
    is_number,
    list_cells,
    make_number_test,
)
from dlspec.data.prepare.kinds.class_table import order_classes
from dlspec.data.prepare.kinds.date_cells import EIGHT_DIGITS, ISO_DATE, parse_date
from dlspec.data.prepare.kinds.kind import COLUMN_KINDS, TARGET_KINDS, ColumnKind
from dlspec.data.prepare.kinds.setting_lines import format_columns_line, quote_value
from dlspec.data.prepare.kinds.unclear_cells import (
    Refusal,
    find_other_dates,
    find_other_numbers,
    suggest_for_wrong_cells,
)
from dlspec.errors import DataError

MIN_SHARE = 0.95  # of the filled cells that are numbers or dates; the others are refused
MAX_CATEGORIES = 50  # different cells of a column that is certainly a category
MAX_CATEGORY_SHARE = 0.01  # of the rows
MIN_WORDS = 3  # on average, of a text
MIN_ID_DIGITS = 5  # of whole numbers of one length
MAX_INTEGER_CLASSES = 20


@dataclass(frozen=True)
class InferredKind:
    """The kind that a column is taken for."""

    kind: ColumnKind | None  # None: the column is left out, or refused
    reason: str
    refused: Mapping[int, str] = field(default_factory=dict)  # cells that can't be read as this kind, by row
    fix: str = ""  # what to write where cells are refused
    otherwise: str = ""  # what to write for another kind


@dataclass(frozen=True)
class ColumnCells:
    """The cells of a column, and what inference asks about them."""

    name: str
    cells: Cells
    read: CellFormat
    are_numbers: bool = False  # the column is an array of numbers

    @cached_property
    def filled(self) -> list[str]:
        """The cells that are not missing."""
        return [cell for cell in self.cells if cell is not None]

    @cached_property
    def distinct(self) -> frozenset[str]:
        """The different cells."""
        return frozenset(self.filled)

    @property
    def has_gaps(self) -> bool:
        """Whether a cell is missing."""
        return len(self.filled) < len(self.cells)

    @property
    def all_differ(self) -> bool:
        """Whether no cell occurs twice."""
        return len(self.distinct) == len(self.filled)

    @cached_property
    def number_share(self) -> float:
        """Share of the filled cells that are numbers beyond doubt."""
        if self.are_numbers or are_all_numbers(self.filled, self.read):
            return 1.0
        numbers = set(filter(make_number_test(self.read), self.distinct))
        return sum(map(numbers.__contains__, self.filled)) / len(self.filled)

    def find_rows(self, is_wrong: Callable[[str], bool]) -> dict[int, str]:
        """Return the filled cells that are wrong, by row."""
        wrong = {cell for cell in self.distinct if is_wrong(cell)}
        return {row: cell for row, cell in enumerate(self.cells) if cell is not None and cell in wrong}


def infer_kind(name: str, column: NDArray[Any], read: CellFormat = PLAIN) -> InferredKind:
    """Infer the kind of an input column.

    Args:
        name: the column's name
        column: the cells of all rows (N, ...)
        read: how the file writes numbers

    Returns:
        The kind and why, or why the column is left out or refused.
    """
    if column.dtype.kind == "O" and any(isinstance(cell, ImageCell) for cell in column):
        return _make_kind("image", "images")
    if column.ndim > 1 or has_lists(column):
        return _infer_list_kind(column)
    cells = ColumnCells(name, list_cells(column), read, column.dtype.kind in "iuf")
    steps = (_infer_nothing, _infer_date, _infer_id, _infer_number, _infer_category, _infer_text, _infer_name)
    found = next((found for step in steps if (found := step(cells)) is not None), None)
    return found or _make_kind("category", f"{len(cells.distinct):,} different values")


def has_lists(column: NDArray[Any]) -> bool:
    """Whether the cells of a column are lists."""
    return column.dtype.kind == "O" and any(isinstance(cell, list | tuple | np.ndarray) for cell in column)


def _make_kind(name: str, reason: str, **settings: Any) -> InferredKind:
    return InferredKind(COLUMN_KINDS[name](**settings), reason)


def _infer_list_kind(column: NDArray[Any]) -> InferredKind:
    if _has_numbers(column):
        return _make_kind("numbers", "lists of numbers" if column.ndim == 1 else "an array of numbers")
    return _make_kind("text", "lists of words", tokenizer="given")


def _has_numbers(column: NDArray[Any]) -> bool:
    if column.ndim > 1:
        return True
    items = (item for cell in column if isinstance(cell, list | tuple | np.ndarray) for item in cell)
    return not isinstance(next((item for item in items if item is not None), 0.0), str)


def _infer_nothing(cells: ColumnCells) -> InferredKind | None:
    if not cells.filled:
        return InferredKind(None, "empty")
    if cells.filled.count(cells.filled[0]) < len(cells.filled):
        return None
    if not cells.has_gaps:
        return InferredKind(None, f"every cell is '{cells.filled[0][:40]}'")
    return _make_kind("category", f"'{cells.filled[0][:40]}' or missing")


def _infer_date(cells: ColumnCells) -> InferredKind | None:
    if all(map(EIGHT_DIGITS.fullmatch, cells.filled)) and all(map(parse_date, cells.distinct)):
        return _make_kind("date", "dates of eight digits")
    if cells.number_share == 1:
        return None  # no number is a date but those of eight digits
    if not any(map(ISO_DATE.fullmatch, cells.distinct)):
        return _refuse(find_other_dates(cells.name, cells.cells))
    wrong = cells.find_rows(lambda cell: not ISO_DATE.fullmatch(cell) or parse_date(cell) is None)
    if len(wrong) <= (1 - MIN_SHARE) * len(cells.filled):
        refused = {row: f"'{cell}' is not a date such as 2024-12-31" for row, cell in wrong.items()}
        fix = suggest_for_wrong_cells(cells.name, set(wrong.values())) if wrong else ""
        return InferredKind(COLUMN_KINDS["date"](), "dates", refused, fix)
    return _refuse(find_other_dates(cells.name, cells.cells))


def _refuse(refusal: Refusal | None) -> InferredKind | None:
    return None if refusal is None else InferredKind(None, refusal.reason, refusal.cells, refusal.fix)


def _infer_id(cells: ColumnCells) -> InferredKind | None:
    digits = "".join(cells.filled)
    if not (digits.isascii() and digits.isdigit()) or not cells.all_differ or "" in cells.distinct:
        return None
    numbers = [(len(digits := cell.lstrip("0")), digits) for cell in cells.filled]  # in order, of any length
    if all(low < high for low, high in pairwise(numbers)):
        return InferredKind(None, "an id: whole numbers that are all different and rise with the rows")
    if len({len(cell) for cell in cells.filled}) == 1 and len(cells.filled[0]) >= MIN_ID_DIGITS:
        return InferredKind(None, f"an id: whole numbers of {len(cells.filled[0])} digits that are all different")
    return None


def _infer_number(cells: ColumnCells) -> InferredKind | None:
    if cells.number_share < MIN_SHARE:
        return _refuse(find_other_numbers(cells.name, cells.cells, cells.read))
    refused, fix = _find_wrong_numbers(cells)
    return InferredKind(COLUMN_KINDS["number"](), "numbers", refused, fix)


def _find_wrong_numbers(cells: ColumnCells) -> tuple[dict[int, str], str]:
    if cells.number_share == 1:
        return {}, ""
    matches = make_number_test(cells.read)
    wrong = cells.find_rows(lambda cell: not matches(cell))
    refused = {row: f"'{cell}' is not a number" for row, cell in wrong.items()}
    return refused, suggest_for_wrong_cells(cells.name, set(wrong.values())) if wrong else ""


def _infer_category(cells: ColumnCells) -> InferredKind | None:
    count = len(cells.distinct)
    if count <= MAX_CATEGORIES or count < MAX_CATEGORY_SHARE * len(cells.cells):
        return _make_kind("category", f"{count:,} different values")
    return None


def _infer_text(cells: ColumnCells) -> InferredKind | None:
    words = sum(len(cell.split()) for cell in cells.filled) / len(cells.filled)
    return _make_kind("text", f"{words:.1f} words on average") if words >= MIN_WORDS else None


def _infer_name(cells: ColumnCells) -> InferredKind | None:
    return InferredKind(None, "an id: all cells are different") if cells.all_differ else None


# ---- targets ---------------------------------------------------------------------------------------------------------


def infer_target_kind(name: str, column: NDArray[Any], read: CellFormat = PLAIN) -> InferredKind:
    """Infer the kind of a target.

    Args:
        name: the column's name
        column: the cells of all rows (N, ...)
        read: how the file writes numbers

    Returns:
        The kind and why, with the setting for another kind.

    Raises:
        DataError: if there is nothing to predict.
    """
    if column.ndim > 1 or has_lists(column):
        return _infer_list_target(name, column)
    cells = ColumnCells(name, list_cells(column), read, column.dtype.kind in "iuf")
    if len(cells.distinct) < 2:
        found = f"is always '{cells.filled[0][:40]}'" if cells.filled else "is empty"
        raise DataError("target", f"the target '{name}' {found}; there is nothing to learn")
    if len(cells.distinct) == 2:
        are_numbers = all(is_number(cell, read) for cell in cells.distinct)
        negative = quote_value(order_classes(cells.cells, name)[0])
        other = "value" if are_numbers else f"{{class: {{positive: {negative}}}}}"
        return _make_target(name, "class", "two different values", other)
    if cells.number_share < MIN_SHARE:
        unclear = _refuse(find_other_numbers(name, cells.cells, read, key="target"))
        return unclear or _make_target(name, "class", f"{len(cells.distinct):,} different values", "text")
    return _infer_number_target(cells)


def _make_target(name: str, kind: str, reason: str, other: str) -> InferredKind:
    return InferredKind(TARGET_KINDS[kind](), reason, otherwise=format_columns_line(name, other, "target"))


def _infer_number_target(cells: ColumnCells) -> InferredKind:
    refused, fix = _find_wrong_numbers(cells)
    classes = sorted(int(cell) for cell in cells.distinct if cell.isascii() and cell.isdigit() and len(cell) < 4)
    is_numbered = classes in (list(range(len(classes))), list(range(1, len(classes) + 1)))
    if not refused and len(classes) == len(cells.distinct) <= MAX_INTEGER_CLASSES and is_numbered:
        return _make_target(cells.name, "class", f"whole numbers from {classes[0]} to {classes[-1]}", "value")
    otherwise = format_columns_line(cells.name, "class", "target")
    return InferredKind(TARGET_KINDS["value"](), "numbers", refused, fix, otherwise)


def _infer_list_target(name: str, column: NDArray[Any]) -> InferredKind:
    if _has_numbers(column):
        return _make_target(name, "numbers", "lists of numbers", "tags")
    found = f"the target '{name}' contains lists: tags, one for each step, or labels, any number for each row?"
    lines = [format_columns_line(name, kind, "target") for kind in ("tags", "labels")]
    raise DataError("target", f"{found} write {lines[0]} or {lines[1]}")
