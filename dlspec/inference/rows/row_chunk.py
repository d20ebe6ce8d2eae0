"""Some rows of new data for a network, and its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dlspec.data.dataset import Split


@dataclass(frozen=True)
class RowChunk:
    """Consecutive rows of new data, as columns of equal length."""

    # Cells by column, as in `dlspec.data.tables.table.Table`: (N,) TEXT with None where missing, (N,) object with
    # lists, or (N, ...) numbers.
    columns: Mapping[str, NDArray[Any]]
    first_row: int = 0  # number of the first row in the whole data, from 0
    problems: Mapping[int, str] = field(default_factory=dict)  # why a row can't be read, by position in this chunk
    files: tuple[str, ...] = ()  # the files that the rows come from; () for rows given in Python or on stdin
    file_of_row: NDArray[np.int32] | None = None  # (N,) index into `files`; None without files
    # (N,) first line of a row in its file, or its number, from 1; 0: the row is the whole file
    line_of_row: NDArray[np.int64] | None = None
    rows: int | None = None  # number of rows, for a chunk without columns
    is_file_a_row: bool = False  # whether each file is one row
    row_numbers: NDArray[np.int64] | None = None  # (N,) number of each row in its source; None: they are consecutive
    samples: Split | None = None  # rows that are encoded already, and have no columns

    def __len__(self) -> int:
        """Count the rows, those that can't be read too."""
        if self.rows is not None:
            return self.rows
        return max(map(len, self.columns.values()), default=0)

    def number_rows(self) -> NDArray[np.int64]:
        """Return the number of each row in its source, from 1."""
        consecutive = np.arange(self.first_row + 1, self.first_row + len(self) + 1)
        return consecutive if self.row_numbers is None else self.row_numbers

    def locate(self, position: int) -> str:
        """Return where a row was read, as messages print it: `new.csv:17`, or `row 17` for rows of no file."""
        if not self.files or self.file_of_row is None or self.line_of_row is None:
            return f"row {self.first_row + position + 1}"
        file, line = self.files[self.file_of_row[position]], int(self.line_of_row[position])
        return f"{file}:{line}" if line else file


@dataclass(frozen=True, eq=False)
class AnswerChunk:
    """The answers to the rows of a chunk."""

    # By output column, in output order: (N,) numbers, (N, ...) numbers of rows with one shape, or (N,) objects: str,
    # list, or None.
    columns: Mapping[str, NDArray[Any]]
    problems: Mapping[int, str] = field(default_factory=dict)  # why a row has no answer, by position in the chunk
    # How often: (`unknown`, `missing` or `cut`, column), for cells that training did not have.
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)
