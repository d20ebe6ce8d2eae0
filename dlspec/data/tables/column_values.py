"""A column in a condition: its cells as text, as numbers, or as lists."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dlspec.data.tables.table import TEXT, Column, Table
from dlspec.errors import Code, DataError, format_value
from dlspec.language.expressions.grammar import COMPARISONS

MaskArray = NDArray[np.bool_]
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


class NumberSettings(Protocol):
    """How numbers are written; the options of reading are such settings."""

    @property
    def decimal(self) -> str:
        """The decimal point."""

    @property
    def thousands(self) -> str | None:
        """The character between thousands."""


@dataclass(frozen=True)
class NumberFormat:
    """How numbers are written, by default as Python writes them."""

    decimal: str = "."
    thousands: str | None = None


def parse_number(cell: str, numbers: NumberSettings) -> float | None:
    """Return the number in a cell, None if it is not one."""
    if numbers.thousands is not None:
        cell = cell.replace(numbers.thousands, "")
    if numbers.decimal != ".":
        cell = cell.replace(numbers.decimal, ".") if "." not in cell else ""
    return float(cell) if _NUMBER.fullmatch(cell) else None


@dataclass(frozen=True)
class TableColumn:
    """A column of a table, as conditions use it."""

    table: Table
    name: str
    values: Column  # (N,) TEXT, numbers or lists
    numbers: NumberSettings

    @property
    def is_text(self) -> bool:
        """Whether the cells are text."""
        return bool(self.values.dtype == TEXT)

    @cached_property
    def missing(self) -> MaskArray:
        """Which cells are missing, (N,)."""
        if self.values.dtype.kind == "f":
            return np.asarray(np.isnan(self.values))
        if self.is_text or self.values.dtype == object:
            return np.fromiter((cell is None for cell in self.values.tolist()), bool, len(self.values))
        return np.zeros(len(self.values), bool)

    @cached_property
    def texts(self) -> Column:
        """The cells as text, '' where missing."""
        self._require(self.is_text, "text")
        texts = self.values.copy()
        texts[self.missing] = ""
        return texts

    def compare(self, sign: type[ast.cmpop], other: Any) -> MaskArray:
        """Compare with a constant, computed numbers or another column.

        Args:
            sign: the comparison
            other: the right side
        """
        if other is None:
            self._require(sign in (ast.Eq, ast.NotEq), "compared with null by == or !=")
            return self.missing if sign is ast.Eq else ~self.missing
        if isinstance(other, TableColumn):
            return self._compare_column(sign, other)
        if isinstance(other, str):
            if (
                not self.is_text
                and self.values.dtype != object
                and (number := parse_number(other, self.numbers)) is not None
            ):
                return self.compare(sign, number)
            return self._compare_filled(sign, COMPARISONS[sign](self.texts, other), ~self.missing)
        if sign in (ast.Eq, ast.NotEq):
            numbers = self._parse_numbers()
            return np.asarray(COMPARISONS[sign](numbers, other))  # a cell that is not a number equals none
        return np.asarray(COMPARISONS[sign](self.read_numbers(), other))

    def _compare_filled(self, sign: type[ast.cmpop], compared: Any, filled: MaskArray) -> MaskArray:
        """Return the result of a comparison; a missing cell differs from every text, and is not smaller or larger."""
        return np.asarray(compared | ~filled if sign is ast.NotEq else compared & filled)

    def _compare_column(self, sign: type[ast.cmpop], other: TableColumn) -> MaskArray:
        if not (self.is_text and other.is_text):
            return np.asarray(COMPARISONS[sign](self.read_numbers(), other.read_numbers()))
        filled = ~self.missing & ~other.missing
        if sign in (ast.Eq, ast.NotEq):
            equal = (self.texts == other.texts) & filled | (self.missing & other.missing)
            return np.asarray(equal if sign is ast.Eq else ~equal)
        mine, others = self._parse_numbers(), other._parse_numbers()
        if (np.isnan(mine) | np.isnan(others))[filled].any():
            return np.asarray(COMPARISONS[sign](self.texts, other.texts) & filled)
        return np.asarray(COMPARISONS[sign](mine, others))

    def contains(self, item: str) -> MaskArray:
        """Return which cells contain a text, or which lists contain it as an item."""
        if self.values.dtype == object:
            return np.fromiter((cell is not None and item in cell for cell in self.values), bool, len(self.values))
        return np.asarray((np.strings.find(self.texts, item) >= 0) & ~self.missing)

    def count_lengths(self) -> NDArray[np.float64]:
        """Return the characters of each text or the items of each list, NaN where missing."""
        if self.values.dtype == object:
            lengths = [np.nan if cell is None else len(cell) for cell in self.values]
            return np.array(lengths, np.float64)
        return np.where(self.missing, np.nan, np.strings.str_len(self.texts))

    def read_numbers(self) -> NDArray[np.float64]:
        """Return the cells as numbers, NaN where missing; DataError for a cell that is not a number."""
        numbers = self._parse_numbers()
        wrong = np.flatnonzero(np.isnan(numbers) & ~self.missing)
        if len(wrong):
            row = int(wrong[0])
            found = (
                f"{self.table.locate(row)}: '{self.name}' must be a number here, got {format_value(self.values[row])}"
            )
            fix = "compare it with a text in quotes, or add the cell to data.missing"
            raise DataError("where", f"{found} (such cells: {len(wrong):,}); {fix}", Code.WRONG_TYPE)
        return numbers

    def _parse_numbers(self) -> NDArray[np.float64]:
        """Return the cells as numbers, NaN where they are missing or not a number."""
        self._require(self.values.ndim == 1 and self.values.dtype != object, "a single value in each row")
        if not self.is_text:
            return self.values.astype(np.float64)
        parsed = [None if cell is None else parse_number(cell, self.numbers) for cell in self.values.tolist()]
        return np.array([np.nan if each is None else each for each in parsed], np.float64)

    def _require(self, is_so: bool, wanted: str) -> None:
        if not is_so:
            raise DataError("where", f"the column '{self.name}' must be {wanted} in a condition", Code.WRONG_TYPE)
