"""A column of text that grows: in blocks, so that joining them at the end needs little memory besides the column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlspec.data.tables.table import TEXT, Column

# 2 MB: the system takes back a block of this size when it is released, and keeps smaller ones for small objects.
MAX_BLOCK_ROWS = 131_072


class TextColumn:
    """Collects the cells of a column. Blocks double in size, as a table may have few rows and many columns."""

    def __init__(self) -> None:
        self._blocks: list[Column] = []
        self._used = 0  # cells of the last block
        self.rows = 0

    def add(self, cells: Sequence[str | None] | Column) -> None:
        """Append cells; None is a missing one."""
        start, count = 0, len(cells)
        while start < count:
            if not self._blocks or self._used == len(self._blocks[-1]):
                self._blocks.append(np.empty(min(MAX_BLOCK_ROWS, max(count - start, self.rows)), TEXT))
                self._used = 0
            stop = min(count, start + len(self._blocks[-1]) - self._used)
            self._blocks[-1][self._used : self._used + stop - start] = cells[start:stop]
            self._used += stop - start
            self.rows += stop - start
            start = stop

    def fill(self, rows: int) -> None:
        """Append missing cells until the column has this many rows."""
        if rows > self.rows:
            self.add([None] * (rows - self.rows))

    def has_text(self) -> bool:
        """Whether a cell is not missing."""
        return any(cell is not None for cell in self.build(keep=True))

    def build(self, keep: bool = False) -> Column:
        """Return the column (N,). The blocks are released one by one, unless they are to be kept."""
        if len(self._blocks) == 1 and self._used == len(self._blocks[0]):
            return self._blocks[0]
        column, start = np.empty(self.rows, TEXT), 0
        blocks = list(self._blocks)
        if not keep:
            self._blocks = []
        blocks.reverse()
        while blocks:
            block = blocks.pop()[: self.rows - start]
            column[start : start + len(block)] = block
            start += len(block)
        return column
