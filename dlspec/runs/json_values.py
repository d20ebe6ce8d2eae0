"""Values of JSON files that anybody may have written: each of the wanted type, or as if it were not there."""

from __future__ import annotations

import math

LARGEST_COUNT = 10**15
LONGEST_TEXT = 1_000


def read_line(value: object) -> str:
    """A text's first line, of a length that a list can show; '' for anything else."""
    return value.strip().partition("\n")[0][:LONGEST_TEXT] if isinstance(value, str) else ""


def read_count(value: object) -> int | None:
    """A number of things, not more than there can be; None for anything else."""
    return value if type(value) is int and 0 <= value < LARGEST_COUNT else None


def read_number(value: object) -> float | None:
    """A finite number; None for anything else."""
    if type(value) is int and abs(value) < LARGEST_COUNT:  # 2.0 may be written as 2
        return float(value)
    return value if type(value) is float and math.isfinite(value) else None
