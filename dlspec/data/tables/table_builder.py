"""Collect rows in chunks and build a table of compact columns from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from unicodedata import is_normalized, normalize

import numpy as np
from numpy.typing import NDArray

from dlspec.data.tables.column_use import contains_only_digits, parse_plain_numbers
from dlspec.data.tables.table import TEXT, Column, Table
from dlspec.data.tables.text_column import TextColumn
from dlspec.errors import Code, DataError
from dlspec.limits import GIGABYTE, MAX_DATA_BYTES

MAX_CELLS = MAX_DATA_BYTES // TEXT.itemsize  # what 16 bytes a cell allow
CHUNK_CELLS = 200_000  # Python strings of one chunk: about 15 MB
MIN_CHUNK_ROWS = 64
TextCells = list[str | None]  # clean cells of a column, None where missing


@dataclass(frozen=True)
class TableChunk:
    """Some consecutive rows of one file."""

    columns: Mapping[str, Column | TextCells]  # (N, ...) by name; text also as a list of clean cells
    lines: Sequence[int] | Column  # the line of each row (N,)
    list_items: int = 0  # how many items the lists in the columns have


def get_chunk_rows(columns: int) -> int:
    """Return how many rows make a chunk: few enough for memory, and not too few for tables of 20,000 columns."""
    return max(MIN_CHUNK_ROWS, CHUNK_CELLS // max(1, columns))


class CellReader:
    """Cleans cells: without surrounding spaces, in NFC, None where missing."""

    def __init__(self, missing: Iterable[str]) -> None:
        self._missing: Mapping[str, None] = dict.fromkeys(normalize("NFC", each).strip() for each in missing)
        # Whether something like -999 is a missing cell, so that a column of numbers may have missing cells.
        self.has_missing_numbers = any(each and contains_only_digits([each]) for each in self._missing)

    def clean(self, cell: str) -> str | None:
        """Clean one cell."""
        cell = cell.strip()
        if not is_normalized("NFC", cell):
            cell = normalize("NFC", cell)
        return None if cell in self._missing else cell

    def clean_cells(self, cells: Iterable[str], is_ascii: bool) -> TextCells:
        """Clean the cells of a column.

        Args:
            cells: the cells as written
            is_ascii: whether all are ASCII, which needs no normalizing
        """
        get = self._missing.get
        if is_ascii:  # these lines take a fifth of the time of reading
            bare = list(map(str.strip, cells))
            return list(map(get, bare, bare))
        return [self.clean(cell) for cell in cells]

    def clean_numbers(self, cells: list[str], is_ascii: bool) -> Column | TextCells:
        """Read a column of plain numbers, NaN where missing; clean cells if one of them is something else.

        Args:
            cells: the cells as written
            is_ascii: whether all are ASCII
        """
        values = None if self.has_missing_numbers else parse_plain_numbers(cells, b" \t")
        if values is not None:
            return values
        clean = self.clean_cells(cells, is_ascii)
        filled = parse_plain_numbers([cell for cell in clean if cell is not None])
        if filled is None:
            return clean
        values = np.full(len(clean), np.nan)
        values[[cell is not None for cell in clean]] = filled
        return values

    def clean_values(self, values: Iterable[str | None]) -> Column:
        """Return a column of clean cells, TEXT, where None is missing as well."""
        return np.array([None if value is None else self.clean(value) for value in values], dtype=TEXT)


class TableBuilder:
    """Collects chunks of columns. Columns may be missing in some chunks; their cells are None there."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._texts: dict[str, TextColumn] = {}
        self._chunks: dict[str, dict[int, Column]] = {}  # other columns: values by number of the chunk
        self._counts: list[int] = []  # rows of each chunk
        self._files: list[str] = []
        self._lines: list[Column] = []
        self._file_of_chunk: list[int] = []
        self._list_items = 0
        self.rows = 0

    def start_file(self, file: str) -> None:
        """Begin a file: the following chunks are from it."""
        self._files.append(file)

    def add_chunk(self, chunk: TableChunk) -> None:
        """Add rows of the current file; DataError if the table becomes too large."""
        columns, lines = chunk.columns, chunk.lines
        self._names.update(dict.fromkeys(columns))
        self._check_size(self.rows + len(lines), chunk.list_items)
        for name, column in columns.items():
            if isinstance(column, list) or (column.dtype == TEXT and column.ndim == 1):
                text = self._texts.setdefault(name, TextColumn())
                text.fill(self.rows)
                text.add(column)
            else:
                self._chunks.setdefault(name, {})[len(self._counts)] = column
        self._counts.append(len(lines))
        self._lines.append(np.asarray(lines, np.int64))
        self._file_of_chunk.append(len(self._files) - 1)
        self.rows += len(lines)

    def _check_size(self, rows: int, list_items: int) -> None:
        self._list_items += list_items
        if rows * len(self._names) + self._list_items > MAX_CELLS:
            found = f"'{self._files[-1]}': the table has more than {MAX_CELLS:,} cells"
            found += f", the most that fit in {MAX_DATA_BYTES // GIGABYTE} GB"
            raise DataError("path", f"{found}; leave out columns or use a part of the rows", Code.TOO_LARGE)

    def build(self) -> Table:
        """Return the table. What was collected is released column by column, so that memory is not needed twice."""
        columns = {name: self._build_column(name) for name in self._names}
        files = [np.repeat(np.int32(at), count) for at, count in zip(self._file_of_chunk, self._counts, strict=True)]
        lines = np.concatenate(self._lines) if self._lines else np.zeros(0, np.int64)
        return Table(columns, tuple(self._files), np.concatenate(files) if files else np.zeros(0, np.int32), lines)

    def _build_column(self, name: str) -> Column:
        text, chunks = self._texts.pop(name, None), self._chunks.pop(name, {})
        if text is not None and not chunks:
            text.fill(self.rows)
            return text.build()
        if text is not None and text.has_text():
            found = f"'{self._files[0]}': the column '{name}' has lists in some rows and other values in others"
            raise DataError("path", f"{found}; write a list in each", Code.WRONG_TYPE)
        parts = [chunks[at] if at in chunks else np.full(rows, None, object) for at, rows in enumerate(self._counts)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def make_list_column(cells: Sequence[object]) -> Column:
    """Return a column of lists, (N,) object; NumPy would make a matrix of lists with equal lengths."""
    column = np.empty(len(cells), object)
    for row, cell in enumerate(cells):
        column[row] = cell
    return column


def format_dates(dates: NDArray[np.datetime64]) -> Column:
    """Return dates as a column of ISO text, with a time unless it is midnight everywhere."""
    is_missing = np.isnat(dates)
    if (dates.astype("datetime64[D]") == dates)[~is_missing].all():
        texts = np.datetime_as_string(dates, unit="D", casting="unsafe")
    elif (dates.astype("datetime64[s]") == dates)[~is_missing].all():
        texts = np.datetime_as_string(dates, unit="s", casting="unsafe")
    else:
        texts = np.datetime_as_string(dates, unit="us", casting="unsafe")
    filled = [
        None if lacks else text.replace("T", " ")
        for lacks, text in zip(is_missing.ravel().tolist(), texts.ravel().tolist(), strict=True)
    ]
    return np.array(filled, dtype=TEXT).reshape(dates.shape)
