"""Collect rows in chunks and build a table of compact columns from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from unicodedata import is_normalized, normalize

import numpy as np
from numpy.typing import NDArray

from dlspec.data.tables.table import TEXT, Column, Table
from dlspec.errors import Code, DataError
from dlspec.limits import GIGABYTE, MAX_DATA_BYTES

MAX_CELLS = MAX_DATA_BYTES // TEXT.itemsize  # what 16 bytes a cell allow
CHUNK_CELLS = 200_000  # Python strings of one chunk: about 15 MB
MIN_CHUNK_ROWS = 64


def get_chunk_rows(columns: int) -> int:
    """Return how many rows make a chunk: few enough for memory, and not too few for tables of 20,000 columns."""
    return max(MIN_CHUNK_ROWS, CHUNK_CELLS // max(1, columns))


class CellReader:
    """Cleans cells: without surrounding spaces, in NFC, None where missing."""

    def __init__(self, missing: Iterable[str]) -> None:
        self._missing: Mapping[str, None] = dict.fromkeys(normalize("NFC", each).strip() for each in missing)

    def clean(self, cell: str) -> str | None:
        """Clean one cell."""
        cell = cell.strip()
        if not is_normalized("NFC", cell):
            cell = normalize("NFC", cell)
        return None if cell in self._missing else cell

    def clean_column(self, cells: Iterable[str], is_ascii: bool) -> Column:
        """Return a column of clean cells, TEXT.

        Args:
            cells: the cells as written
            is_ascii: whether all are ASCII, which needs no normalizing
        """
        get = self._missing.get
        if is_ascii:  # this line takes a fifth of the time of reading
            return np.array([get(bare := cell.strip(), bare) for cell in cells], dtype=TEXT)
        return np.array([self.clean(cell) for cell in cells], dtype=TEXT)

    def clean_values(self, values: Iterable[str | None]) -> Column:
        """Return a column of clean cells, TEXT, where None is missing as well."""
        return np.array([None if value is None else self.clean(value) for value in values], dtype=TEXT)


class TableBuilder:
    """Collects chunks of columns. Columns may be missing in some chunks; their cells are None there."""

    def __init__(self) -> None:
        self._chunks: dict[str, list[tuple[int, Column]]] = {}  # for each column: number of the chunk, values
        self._counts: list[int] = []  # rows of each chunk
        self._files: list[str] = []
        self._lines: list[Column] = []
        self._file_of_chunk: list[int] = []
        self._list_items = 0
        self.rows = 0

    def start_file(self, file: str) -> None:
        """Begin a file: the following chunks are from it."""
        self._files.append(file)

    def add_chunk(self, columns: Mapping[str, Column], lines: Sequence[int] | Column, list_items: int = 0) -> None:
        """Add rows of the current file; DataError if the table becomes too large.

        Args:
            columns: the columns (N, ...) by name
            lines: the line of each row (N,)
            list_items: how many items the lists in the columns have
        """
        number = len(self._counts)
        for name, column in columns.items():
            self._chunks.setdefault(name, []).append((number, column))
        self._counts.append(len(lines))
        self._lines.append(np.asarray(lines, np.int64))
        self._file_of_chunk.append(len(self._files) - 1)
        self.rows += len(lines)
        self._list_items += list_items
        if self.rows * len(self._chunks) + self._list_items > MAX_CELLS:
            found = f"'{self._files[-1]}': the table has more than {MAX_CELLS:,} cells"
            found += f", the most that fit in {MAX_DATA_BYTES // GIGABYTE} GB"
            raise DataError("path", f"{found}; leave out columns or use a part of the rows", Code.TOO_LARGE)

    def build(self) -> Table:
        """Return the table. The chunks are released column by column, so that memory is not needed twice."""
        columns = {}
        for name in list(self._chunks):
            columns[name] = self._join_chunks(name, dict(self._chunks.pop(name)))
        files = [np.repeat(np.int32(at), count) for at, count in zip(self._file_of_chunk, self._counts, strict=True)]
        lines = np.concatenate(self._lines) if self._lines else np.zeros(0, np.int64)
        return Table(columns, tuple(self._files), np.concatenate(files) if files else np.zeros(0, np.int32), lines)

    def _join_chunks(self, name: str, chunks: dict[int, Column]) -> Column:
        first = next(iter(chunks.values()))
        has_lists = any(chunk.dtype == object for chunk in chunks.values())
        if has_lists:
            chunks = {number: _require_lists(name, chunk) for number, chunk in chunks.items()}
        dtype = np.dtype(object) if has_lists else first.dtype
        parts = [
            chunks[number] if number in chunks else np.array(list(repeat(None, count)), dtype)
            for number, count in enumerate(self._counts)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _require_lists(name: str, chunk: Column) -> Column:
    if chunk.dtype == object:
        return chunk
    if any(cell is not None for cell in chunk):
        found = f"the column '{name}' has lists in some rows and other values in others"
        raise DataError("columns", f"{found}; write a list in each", Code.WRONG_TYPE)
    return np.full(len(chunk), None, object)


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
