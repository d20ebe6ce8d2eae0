"""Parse columns of plain numbers once, for fitting and for all splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat, read_numbers
from dlspec.data.prepare.kinds.kind import ColumnKind, FittedColumn
from dlspec.data.prepare.kinds.number import FittedNumber, Number

Columns = Mapping[str, NDArray[Any]]


def parse_number_columns(
    columns: Columns, inputs: Mapping[str, ColumnKind | FittedColumn], read: CellFormat
) -> dict[str, NDArray[Any]]:
    """Replace the text of plain numbers by numbers (N,) float64, NaN where missing.

    A column with a cell that is not a number stays text, as messages print its cells.

    Args:
        columns: the cells of all rows, by column
        inputs: the kinds of the inputs, or what was fitted to them
        read: how the file writes numbers
    """
    parsed = dict(columns)
    for name, kind in inputs.items():
        if columns[name].dtype.kind == "T" and _takes_plain_numbers(kind, read):
            found = read_numbers(columns[name])
            if not found.wrong:
                parsed[name] = found.values
    return parsed


def _takes_plain_numbers(kind: ColumnKind | FittedColumn, read: CellFormat) -> bool:
    if isinstance(kind, FittedNumber):
        return kind.cells.read == PLAIN and not kind.cells.strip and not kind.cells.values
    return isinstance(kind, Number) and read == PLAIN and not kind.strip and kind.values is None
