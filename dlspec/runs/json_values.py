"""Numbers from a JSON file that anybody may have written: one of a wrong type is as if it were not there."""

from __future__ import annotations

import math

MAX_INTEGER = 10**15  # a float holds every whole number up to it


def read_count(value: object) -> int | None:
    """A whole number from 0 on, None for anything else."""
    return value if type(value) is int and 0 <= value < MAX_INTEGER else None


def read_number(value: object, below: float = math.inf) -> float | None:
    """A finite number whose size is less than `below`, None for anything else."""
    if type(value) is int and abs(value) < MAX_INTEGER:  # 2.0 may be written as 2
        return float(value)
    return value if type(value) is float and abs(value) < below else None
