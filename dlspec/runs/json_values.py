"""Check values of JSON files that anyone may have written: a value of the wrong type counts as missing."""

from __future__ import annotations

import math

from dlspec.formatting import first_line

MAX_COUNT = 10**15
MAX_LINE_LENGTH = 1_000


def read_line(value: object) -> str:
    """Return the first line of a string, shortened so that a list can show it; "" for any other value."""
    return first_line(value, MAX_LINE_LENGTH) if isinstance(value, str) else ""


def read_count(value: object) -> int | None:
    """Return a plausible count: a whole number from 0 to 10**15; None for any other value."""
    return value if type(value) is int and 0 <= value < MAX_COUNT else None


def read_number(value: object, below: float = math.inf) -> float | None:
    """Return a finite number whose absolute value is less than `below`; None for any other value."""
    if type(value) is int and abs(value) < MAX_COUNT:  # 2.0 may be written as 2
        return float(value)
    return value if type(value) is float and abs(value) < below else None
