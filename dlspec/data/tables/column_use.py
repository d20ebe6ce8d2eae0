"""Which columns of new rows are needed, and which contain numbers, so that only these cells are converted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NUMBER_CHARACTERS = b"0123456789+-.eE"


@dataclass(frozen=True)
class ColumnUse:
    """How the columns of a file are used."""

    needed: frozenset[str] | None = None  # None: all
    numbers: frozenset[str] = frozenset()  # columns that are read as plain numbers, and nothing else
    required: frozenset[str] = frozenset()  # without one of these, all columns are read: a message lists them

    def choose(self, columns: Collection[str]) -> ColumnUse:
        """Return how the columns of a file are used that has these."""
        return self if self.required <= set(columns) else ALL_COLUMNS

    def is_needed(self, name: str) -> bool:
        """Whether a column is used."""
        return self.needed is None or name in self.needed


ALL_COLUMNS = ColumnUse()


def contains_only_digits(cells: Collection[str], spaces: bytes = b"") -> bool:
    """Whether the cells contain only characters of plain numbers: float() would accept `nan` and `1_000` too."""
    joined = "".join(cells)
    return joined.isascii() and not joined.encode().translate(None, _NUMBER_CHARACTERS + spaces)


def parse_plain_numbers(cells: Sequence[str], spaces: bytes = b"") -> NDArray[np.float64] | None:
    """Parse a column of plain finite numbers; None if one of them is not.

    Args:
        cells: the cells
        spaces: characters that may surround the numbers
    """
    if not contains_only_digits(cells, spaces):
        return None
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:  # such as `1-2`
        return None
    return values if np.isfinite(values).all() else None
