"""Which number or colour of a mask belongs to which class. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.errors import Code, DataError

IGNORED = -100  # the class of a pixel without one
IGNORED_BYTE = 255  # that class in a mask of bytes
WRONG = -1  # the class of a code that must not occur
MAX_LISTED = 10  # classes in a message


@dataclass(frozen=True)
class PixelClasses:
    """Which number or colour of a mask belongs to which class."""

    codes: tuple[int, ...]  # in ascending order; a colour as 65536 * red + 256 * green + blue
    classes: tuple[int, ...]  # of each code its class, -100 for pixels that are ignored
    other: int | None  # the class of all other codes; None: there must be none
    is_colour: bool

    def number(self, codes: NDArray[Any], *, as_bytes: bool) -> NDArray[Any]:
        """Return the class of each pixel, as bytes or int64; DataError for a code without one."""
        found = self._table[codes] if codes.dtype in (np.uint8, np.uint16) else self._search(codes)
        is_wrong = found == WRONG
        if is_wrong.any():
            raise DataError("", self._explain(codes, is_wrong), Code.BAD_DATA)
        return np.where(found == IGNORED, IGNORED_BYTE, found).astype(np.uint8) if as_bytes else found

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        """The class of each number of 16 bits: ten times as fast as to search for each pixel."""
        return self._search(np.arange(2**16))

    def _search(self, codes: NDArray[Any]) -> NDArray[np.int64]:
        known = np.array(self.codes, np.int64)
        at = np.searchsorted(known, codes).clip(max=len(known) - 1)
        other = WRONG if self.other is None else self.other
        return np.where(known[at] == codes, np.array(self.classes, np.int64)[at], other)

    def _explain(self, codes: NDArray[Any], is_wrong: NDArray[np.bool_]) -> str:
        row, column = np.argwhere(is_wrong)[0].tolist()
        pairs = zip(self.codes, self.classes, strict=True)
        shown = [format_code(code, self.is_colour) for code, each in pairs if each != IGNORED][:MAX_LISTED]
        found = f"the pixel in row {row}, column {column} is {format_code(int(codes[row, column]), self.is_colour)}"
        return f"{found}, which is not a class; the classes are {', '.join(shown)}"


def format_code(code: int, is_colour: bool) -> str:
    """Format a number or colour of a mask as `classes` takes it."""
    return f"#{code:06x}" if is_colour else str(code)
