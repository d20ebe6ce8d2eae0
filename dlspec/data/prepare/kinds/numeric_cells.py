"""How a column of numbers is read before scaling: marks to strip, an order of values, bounds. Saved with the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat, NumberCells, find_missing_cells, list_cells, read_numbers
from dlspec.data.prepare.kinds.saved_values import SavedValues, check_number, make_saved_error

Floats = NDArray[np.float64]
NO_CLIP = (None, None)


@dataclass(frozen=True)
class NumericCells:
    """Reads cells as numbers."""

    read: CellFormat = PLAIN
    strip: str = ""
    values: tuple[str, ...] = ()  # an order: the number of a cell is its index; () if the cells are numbers
    low: float | None = None
    high: float | None = None

    def read_column(self, column: NDArray[Any]) -> NumberCells:
        """Read a column as numbers, not clipped yet."""
        if not self.values:
            return read_numbers(column, self.read, self.strip)
        index = {value: float(number) for number, value in enumerate(self.values)}
        cells = list_cells(column)
        values = np.array([np.nan if cell is None else index.get(cell, np.nan) for cell in cells], np.float64)
        missing = find_missing_cells(cells)
        wrong = {row: str(cells[row]) for row in np.flatnonzero(np.isnan(values) & ~missing).tolist()}
        return NumberCells(values, missing, wrong)

    def clip(self, values: Floats) -> Floats:
        """Replace numbers beyond the bounds by the bounds."""
        if self.low is None and self.high is None:
            return values
        return np.asarray(np.clip(values, self.low, self.high))

    def explain_wrong(self, cell: str) -> str:
        """Say what is wrong with a cell that can't be read."""
        if self.values:
            return f"'{cell}' is not one of {', '.join(self.values[:10])}"
        return f"'{cell}' is not a number"

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values, with `kind`."""
        return {
            "kind": "cells",
            "decimal": self.read.decimal,
            "thousands": self.read.thousands or "",
            "strip": self.strip,
            "values": list(self.values),
            "clip": [self.low, self.high],
        }

    @classmethod
    def from_json(cls, saved: object) -> NumericCells:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, ("decimal", "thousands", "strip", "values", "clip"))
        decimal, thousands = values.get_text("decimal", 1), values.get_text("thousands", 1)
        if not decimal or decimal == thousands:
            raise make_saved_error("decimal must be a character, and thousands another one")
        low, high = _read_bounds(values.values["clip"])
        read = CellFormat(decimal, thousands or None)
        return cls(read, values.get_text("strip", 100), values.get_texts("values", 10_000), low, high)


def _read_bounds(saved: object) -> Sequence[float | None]:
    if not isinstance(saved, list) or len(saved) != 2:
        raise make_saved_error("clip must be a list of two numbers or null")
    low, high = (None if each is None else check_number("clip", each) for each in saved)
    if low is not None and high is not None and low >= high:
        raise make_saved_error("clip must be the lowest and the highest value")
    return low, high
