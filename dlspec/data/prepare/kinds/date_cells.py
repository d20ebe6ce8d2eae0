"""Read cells as dates: ISO 8601, eight digits, or a format of the user's. Times are as written, whatever their zone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.kinds.cells import find_missing_cells, list_cells

DatePart = Literal["year", "month", "day", "weekday", "hour"]
DATE_PARTS: tuple[DatePart, ...] = get_args(DatePart)
ISO_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}(?:-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?"
    r"(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?)?"
)
EIGHT_DIGITS = re.compile("(?:1[89]|2[01])[0-9]{6}")  # years 1800 to 2199: others are rarely dates

_GET_PART: Mapping[DatePart, Callable[[datetime], int]] = {
    "year": lambda date: date.year,
    "month": lambda date: date.month,
    "day": lambda date: date.day,
    "weekday": lambda date: date.weekday(),  # Monday is 0, as in pandas
    "hour": lambda date: date.hour,
}


@dataclass(frozen=True)
class DateCells:
    """A column read as dates."""

    parts: NDArray[np.float64]  # (N, P), NaN where the cell is missing or wrong
    missing: NDArray[np.bool_]  # (N,)
    wrong: Mapping[int, str]  # the cells that are not dates, by row


def parse_date(cell: str, form: str | None = None) -> datetime | None:
    """Parse a date in ISO 8601, of eight digits, or in a format of `strptime`; None if it is not a date."""
    try:
        if form is not None:
            return datetime.strptime(cell, form)
        if ISO_DATE.fullmatch(cell):
            return datetime.fromisoformat(f"{cell}-01" if len(cell) == 7 else cell)
        return datetime.strptime(cell, "%Y%m%d") if EIGHT_DIGITS.fullmatch(cell) else None
    except ValueError:
        return None


def read_dates(column: NDArray[Any], parts: tuple[DatePart, ...], form: str | None = None) -> DateCells:
    """Read a column as dates.

    Args:
        column: the cells (N,)
        parts: what to return of each date
        form: a format of `strptime`; None for ISO 8601 or eight digits

    Returns:
        The parts as numbers.
    """
    cells = list_cells(column)
    found = {cell: parse_date(cell, form) for cell in set(cells) if cell is not None}
    numbers = {cell: [float(_GET_PART[part](date)) for part in parts] for cell, date in found.items() if date}
    table = np.array([*numbers.values(), [np.nan] * len(parts)], np.float64)  # the last row: missing or wrong
    index: dict[str | None, int] = {cell: row for row, cell in enumerate(numbers)}
    values = table[np.fromiter(map(index.get, cells, repeat(len(numbers))), np.int64, len(cells))]
    wrong = {}
    if len(numbers) < len(found):
        wrong = {row: cell for row, cell in enumerate(cells) if cell is not None and cell not in numbers}
    return DateCells(values, find_missing_cells(cells), wrong)
