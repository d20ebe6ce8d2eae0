"""Find the rows that a condition chooses: `{country: DE}`, `{year: [2019, 2020]}`, `{date: {from: 2024-01-01}}`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.splitting.moments import read_moment, read_moments
from dlspec.data.splitting.row_numbers import Columns
from dlspec.errors import Code, DataError, format_value, suggest

BoolArray = NDArray[np.bool_]
WAYS = ("from", "in")


def check_condition(condition: Mapping[str, Any]) -> str:
    """Return what is wrong with a condition as written; '' if it can be used."""
    if not condition:
        return "a condition names a column: {COLUMN: VALUE}"
    for name, wanted in condition.items():
        if isinstance(wanted, Mapping) and (len(wanted) != 1 or next(iter(wanted)) not in WAYS):
            return f"'{name}' must be a value, a list of values, {{from: VALUE}} or {{in: FILE}}"
        if wanted is None or wanted == [] or (isinstance(wanted, Mapping) and None in wanted.values()):
            return f"'{name}' has no value to compare with"
    return ""


def match_rows(key: str, columns: Columns, condition: Mapping[str, Any], folder: Path) -> BoolArray:
    """Find the rows that meet a condition in every column that it names.

    Args:
        key: the setting of `data` that contains the condition, for messages
        columns: the table's columns
        condition: by column a value, a list of values, `{from: VALUE}` or `{in: FILE}`, a file with a value a line
        folder: the folder that a relative FILE starts from

    Returns:
        Whether each row is chosen (N,).

    Raises:
        DataError: if a column or file does not exist, or no row is chosen.
    """
    chosen: BoolArray | None = None
    for name, wanted in condition.items():
        if name not in columns:
            raise DataError(key, f"no column '{name}'; {suggest(name, columns)}", Code.UNKNOWN_FIELD)
        found = _match_column(key, name, columns[name], wanted, folder)
        chosen = found if chosen is None else chosen & found
    if chosen is None or not chosen.any():
        raise DataError(key, f"no row matches {format_value(dict(condition))}")
    return chosen


def _match_column(key: str, name: str, column: NDArray[Any], wanted: Any, folder: Path) -> BoolArray:
    if isinstance(wanted, Mapping) and "from" in wanted:
        return _match_from(key, name, column, wanted["from"])
    if isinstance(wanted, Mapping):
        return _match_values(column, _read_values(key, folder / str(wanted["in"])))
    return _match_values(column, wanted if isinstance(wanted, list | tuple) else [wanted])


def _match_from(key: str, name: str, column: NDArray[Any], start: Any) -> BoolArray:
    first = read_moment(start)
    if first is None:
        raise DataError(key, f"from must be a number or a date such as 2024-01-31, got {format_value(start)}")
    found: BoolArray = read_moments(key, name, column) >= first
    return found


def _match_values(column: NDArray[Any], values: Collection[Any]) -> BoolArray:
    """Compare cells as text; a number in a spec also matches cells that write it in another way, such as 1.0."""
    texts = {format_cell(value) for value in values}
    numbers = {float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)}
    matches = {}
    for cell in set(column.tolist()):
        matches[cell] = cell is not None and (
            format_cell(cell) in texts or (bool(numbers) and _is_one_of(cell, numbers))
        )
    return np.fromiter((matches[cell] for cell in column.tolist()), np.bool_, len(column))


def _is_one_of(cell: Any, numbers: Collection[float]) -> bool:
    try:
        return float(cell) in numbers
    except (TypeError, ValueError):
        return False


def format_cell(value: Any) -> str:
    """Format a value of a spec as a cell writes it: `true`, `2024-01-31`, `5`."""
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date) else str(value)


def _read_values(key: str, path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(key, f"can't read '{path}': {reason}", Code.FILE_UNREADABLE) from None
    return [line.strip() for line in lines if line.strip()]
