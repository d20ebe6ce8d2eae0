"""Arrays that a network takes as they are, or divided by a constant: images, sequences, tokens, vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.kinds.cells import read_numbers
from dlspec.data.prepare.kinds.kind import Encoded, FittedShape, register_saved
from dlspec.data.prepare.kinds.number_lists import Floats, count_steps, read_number_lists
from dlspec.data.prepare.kinds.saved_values import SavedValues, make_saved_error
from dlspec.layouts import LAYOUTS, format_shape

MAX_NUMBERS = 2**28  # of one row
MAX_TOKEN = 2**31  # the largest number of different tokens
MAX_RANK = 8
EMPTY = "the cell is empty"
MAX_RANGE_NUMBERS = 1_000_000  # that a range is found from: more take time and change little
RANGE_MARGIN = 0.005  # of the numbers on each side lie outside of the range: outliers say little


@register_saved("array")
@dataclass(frozen=True)
class FittedArray(FittedShape):
    """An array of fixed shape in each row: numbers (N, ...) float32, or tokens and classes (N, ...) int64.

    Rows may be arrays, lists, or texts such as `1 2 3`. With lengths, a row may have fewer steps than the shape.
    """

    divisor: float = 1.0  # of numbers
    range: tuple[float, float] | None = None  # of nearly all training numbers, before they are divided; None: not known

    def apply(self, column: NDArray[Any]) -> Encoded:
        """Encode arrays (N, ...), lists (N,) or texts (N,)."""
        if self._fits(column):
            return self._finish(column.reshape(len(column), *self.shape), {}, self._make_full_lengths(len(column)))
        if not self.shape:
            return self._apply_numbers(column)
        return self._apply_lists(column)

    def _fits(self, column: NDArray[Any]) -> bool:
        """Whether the column is one array of numbers whose rows have the right size."""
        if column.dtype.kind not in "biuf" or prod(column.shape[1:]) != prod(self.shape):
            return False
        return not self.has_lengths or column.shape[1:2] == self.shape[:1]

    def _make_full_lengths(self, rows: int) -> NDArray[np.int64] | None:
        return np.full(rows, self.shape[0], np.int64) if self.has_lengths else None

    def _apply_numbers(self, column: NDArray[Any]) -> Encoded:
        cells = read_numbers(column)
        problems = {row: f"'{cell}' is not a number" for row, cell in cells.wrong.items()}
        problems |= dict.fromkeys(np.flatnonzero(cells.missing).tolist(), EMPTY)
        return self._finish(cells.values, problems, None)

    def _apply_lists(self, column: NDArray[Any]) -> Encoded:
        """Encode rows one by one, as they may differ in length."""
        lists = read_number_lists(column)
        values, lengths = np.zeros((len(column), *self.shape)), np.ones(len(column), np.int64)
        problems, cut = dict(lists.wrong), 0
        for row, cell in enumerate(lists.cells):
            if row in problems:
                continue
            if cell is None or not cell.size:
                problems[row] = EMPTY
            elif self.has_lengths and prod(cell.shape[1:]) == prod(self.shape[1:]):
                steps = count_steps(cell)
                lengths[row], cut = min(max(steps, 1), self.shape[0]), cut + (steps > self.shape[0])
                values[row, : lengths[row]] = cell[: lengths[row]].reshape(-1, *self.shape[1:])
            elif cell.size == prod(self.shape):
                values[row] = cell.reshape(self.shape)
            else:
                problems[row] = self._explain_size(cell)
        return self._finish(values, problems, lengths if self.has_lengths else None, {"cut": cut} if cut else {})

    def _explain_size(self, cell: Floats) -> str:
        expected = f"up to {self.shape[0]:,} steps of {format_shape(self.shape[1:])}" if self.has_lengths else ""
        return f"numbers of shape {format_shape(cell.shape)}, expected {expected or format_shape(self.shape)}"

    def _finish(
        self, values: NDArray[Any], problems: dict[int, str], lengths: NDArray[np.int64] | None,
        notes: Mapping[str, int] | None = None,
    ) -> Encoded:  # fmt: skip
        """Convert the numbers to their final type; rows with numbers that do not fit are problems."""
        if self.tokens is not None:
            return Encoded(*self._convert_tokens(values, problems, lengths), notes=notes or {})
        with np.errstate(over="ignore"):
            numbers = values.astype(np.float32)
        _add_problems(problems, ~np.isfinite(numbers), "a number is missing, or not finite as float32")
        numbers = numbers if self.divisor == 1 else numbers / np.float32(self.divisor)
        return Encoded(numbers, lengths, problems, notes or {})

    def _convert_tokens(
        self, values: NDArray[Any], problems: dict[int, str], lengths: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64] | None, dict[int, str]]:
        with np.errstate(invalid="ignore"):
            wrong = ~((values >= 0) & (values < (self.tokens or 0)))
            wrong = wrong | (values != np.floor(values)) if values.dtype.kind == "f" else wrong
        _add_problems(problems, wrong, f"expected whole numbers from 0 to {(self.tokens or 0) - 1:,}")
        return np.where(wrong, 0, values).astype(np.int64), lengths, problems

    def invert(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Convert numbers (N, ...) to their own unit, in double precision."""
        return np.asarray(values, np.float64) * self.divisor

    def to_json(self) -> dict[str, Any]:
        saved = {
            "kind": self.kind, "shape": list(self.shape), "layout": self.layout, "tokens": self.tokens,
            "has_lengths": self.has_lengths, "divisor": self.divisor,
        }  # fmt: skip
        return saved if self.range is None else {**saved, "range": list(self.range)}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedArray:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        optional = ("range",) if "range" in saved else ()  # older versions did not save it
        values = SavedValues(saved, ("shape", "layout", "tokens", "has_lengths", "divisor", *optional))
        shape, divisor = read_shape(values.values["shape"]), values.get_number("divisor")
        tokens = None if values.values["tokens"] is None else values.get_integer("tokens", 1, MAX_TOKEN)
        has_lengths, layout = values.get_flag("has_lengths"), values.get_choice("layout", LAYOUTS)
        if divisor == 0 or (has_lengths and not shape) or (tokens is not None and divisor != 1):
            raise make_saved_error("an array with lengths needs steps, and only numbers are divided, by other than 0")
        kept, bounds = next(each for each in LAYOUTS if each == layout), _read_range(values) if optional else None
        return cls(shape, kept, tokens, has_lengths, divisor, bounds)


def _read_range(values: SavedValues) -> tuple[float, float]:
    bounds = values.get_numbers("range", 2)
    if len(bounds) != 2 or bounds[0] >= bounds[1]:
        raise make_saved_error("a range must have two numbers, the smaller one first")
    return bounds[0], bounds[1]


def find_range(values: NDArray[Any]) -> tuple[float, float] | None:
    """Find the range of all numbers but the outermost ones; None if they are all equal or not finite."""
    numbers = values.reshape(-1)
    numbers = numbers[:: max(1, len(numbers) // MAX_RANGE_NUMBERS)].astype(np.float64)
    if not len(numbers):
        return None
    low, high = np.quantile(numbers, [RANGE_MARGIN, 1 - RANGE_MARGIN]).tolist()
    return (low, high) if np.isfinite([low, high]).all() and low < high else None


def read_shape(saved: object) -> tuple[int, ...]:
    """Read the saved shape of one row; DataError if it is damaged, or so large that it would fill the memory."""
    if not isinstance(saved, list) or len(saved) > MAX_RANK:
        raise make_saved_error(f"a shape must be a list of at most {MAX_RANK} sizes")
    if not all(type(size) is int and 0 < size <= MAX_NUMBERS for size in saved) or prod(saved) > MAX_NUMBERS:
        raise make_saved_error(f"a shape must have whole numbers above 0, with a product of at most {MAX_NUMBERS:,}")
    return tuple(saved)


def _add_problems(problems: dict[int, str], wrong: NDArray[np.bool_], reason: str) -> None:
    """Add a reason for each row with a wrong number, unless the row has one already."""
    if not wrong.any():
        return
    for row in np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1)).tolist():
        problems.setdefault(row, reason)
