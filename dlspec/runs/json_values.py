"""Values of JSON files that anybody may have written: each of the wanted type, or as if it were not there."""

from __future__ import annotations

import math

from dlspec.formatting import first_line

MAX_COUNT = 10**15
MAX_LINE_LENGTH = 1_000


def read_line(value: object) -> str:
    """A text's first line, of a length that a list can show; '' for anything else."""
    return first_line(value, MAX_LINE_LENGTH) if isinstance(value, str) else ""


def read_count(value: object) -> int | None:
    """A number of things, not more than there can be; None for anything else."""
    return value if type(value) is int and 0 <= value < MAX_COUNT else None


def read_number(value: object, below: float = math.inf) -> float | None:
    """A finite number whose size is less than `below`; None for anything else."""
    if type(value) is int and abs(value) < MAX_COUNT:  # 2.0 may be written as 2
        return float(value)
    return value if type(value) is float and abs(value) < below else None
