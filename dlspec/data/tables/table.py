"""A table of named columns as read from files, the options of reading, and the notes about what was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.tables.read_options import DEFAULT_MISSING as DEFAULT_MISSING
from dlspec.data.tables.read_options import DELIMITER_NAMES as DELIMITER_NAMES
from dlspec.data.tables.read_options import ReadOptions as ReadOptions
from dlspec.data.tables.read_options import RowFormat as RowFormat
from dlspec.errors import Code, DataError, suggest

# Cells of text take 16 bytes, more only if they are longer than 15 bytes. A missing cell is None.
TEXT = np.dtypes.StringDType(na_object=None)
Column = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """Rows of named columns, and where each row was read."""

    # (N,) TEXT: cells without surrounding spaces, in NFC, None where missing; (N,) object: lists, None where missing;
    # (N, ...) numbers, from npz.
    columns: Mapping[str, Column]
    files: tuple[str, ...]  # the files that were read; () for data given in Python
    file_of_row: NDArray[np.int32]  # (N,) index into `files`
    # (N,) first line of the row in its file; for binary formats its number, from 1; 0: the row is the whole file
    line_of_row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.line_of_row)

    def get_column(self, name: str, key: str) -> Column:
        """Return a column; DataError that suggests a similar name, for the setting `key`, if there is none."""
        if name not in self.columns:
            fix = suggest(name, self.columns)
            raise DataError(key, f"the table has no column '{name}'; {fix or 'it has none'}", Code.UNKNOWN_FIELD)
        return self.columns[name]

    def take(self, rows: NDArray[Any]) -> Table:
        """Return a table of some rows, given by their indices or by a mask (N,)."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Table(columns, self.files, self.file_of_row[rows], self.line_of_row[rows])

    def locate(self, row: int) -> str:
        """Return where a row was read, as messages print it: `churn.csv:17`."""
        line = int(self.line_of_row[row])
        if not self.files:
            return f"row {line}"
        file = self.files[self.file_of_row[row]]
        return f"{file}:{line}" if line else file

    def with_column(self, name: str, values: Column) -> Table:
        """Return a table with one more column, or with other values in one."""
        return replace(self, columns={**self.columns, name: values})


@dataclass(frozen=True)
class BadRow:
    """A row that can't be read."""

    location: str  # churn.csv:17
    reason: str


@dataclass(frozen=True)
class ReadNotes:
    """What reading guessed or left out. It is shown to the user and kept with the run."""

    format: str = ""
    files: int = 1
    delimiter: str | None = None  # only where it was found in the file
    encoding: str | None = None  # only where a byte order mark told it
    named_columns: tuple[str, ...] = ()  # names that dlspec made, for columns without one
    skipped: tuple[BadRow, ...] = ()  # the first of the bad rows that were left out
    skipped_count: int = 0  # all of them
    empty_lines: int = 0
    comment_lines: int = 0
    missed_files: int = 0  # files beside those that a pattern with braces matches
    missed_examples: tuple[str, ...] = field(default=())
    ambiguous_name: str = ""  # the name of a file that a pattern with braces can divide in two ways, and both ways

    def describe(self) -> list[str]:
        """Return the notes as sentences, the most important first."""
        found = []
        if self.skipped_count:
            first = f"{self.skipped[0].location}: {self.skipped[0].reason}"
            found.append(f"left out {_count(self.skipped_count, 'bad row')}, the first is {first}")
        if self.missed_files:
            names = ", ".join(self.missed_examples)
            found.append(f"left out {_count(self.missed_files, 'file')} that the path does not match, such as {names}")
        if self.ambiguous_name:
            found.append(f"the path is read from the left: {self.ambiguous_name}")
        if self.delimiter is not None:
            found.append(f"found delimiter {DELIMITER_NAMES.get(self.delimiter, self.delimiter)}")
        if self.encoding is not None:
            found.append(f"found encoding {self.encoding}")
        if self.named_columns:
            found.append(f"columns without a name were named {', '.join(self.named_columns[:5])}")
        if self.comment_lines:
            found.append(f"left out {_count(self.comment_lines, 'comment line')}")
        return found


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
