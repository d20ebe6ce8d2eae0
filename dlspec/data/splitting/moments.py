"""Read the moments of a column, to compare and sort rows by time."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.errors import DataError, format_value

FloatArray = NDArray[np.float64]


def read_moments(key: str, name: str, column: NDArray[Any]) -> FloatArray:
    """Read a column of numbers or of ISO dates and times as numbers that can be compared.

    Args:
        key: the setting of `data` that names the column, for messages
        name: name of the column
        column: its cells (N,)

    Returns:
        The numbers (N,): as written, or seconds since 1970; a date without a time zone counts as UTC.

    Raises:
        DataError: if a cell is missing or neither a number nor a date.
    """
    if column.dtype.kind in "biuf" and column.ndim == 1:
        return column.astype(np.float64)
    cells = column.tolist()
    if None in cells:
        count = cells.count(None)
        raise DataError(key, f"'{name}' is empty in {count:,} rows; fill them, or leave the rows out with where")
    numbers = [_read_number(cell) for cell in cells]
    if None not in numbers:
        return np.array(numbers, np.float64)
    moments = [read_moment(cell) for cell in cells]
    if None in moments:
        wrong = cells[moments.index(None)]
        raise DataError(key, f"'{name}' must have numbers or dates such as 2024-01-31, got {format_value(str(wrong))}")
    return np.array(moments, np.float64)


def read_moment(value: Any) -> float | None:
    """Read one number or date, as written in a cell or a spec; None if it is neither."""
    number = _read_number(value)
    return number if number is not None else _read_date(value)


def _read_number(value: Any) -> float | None:
    if isinstance(value, bool | date):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _read_date(value: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(value.isoformat() if isinstance(value, date) else str(value))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
