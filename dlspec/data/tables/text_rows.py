"""From rows of cells to columns: the header, the number of cells of each row, chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dlspec.data.tables.arrow_blocks import MIN_CELLS, read_block
from dlspec.data.tables.bad_rows import BadRowCollector
from dlspec.data.tables.column_names import (
    REST,
    check_unique,
    expand_header,
    looks_like_data,
    name_columns,
    number_columns,
    suggest_header,
)
from dlspec.data.tables.column_use import ALL_COLUMNS, ColumnUse
from dlspec.data.tables.delimited_rows import DelimitedRows, NumberedRow
from dlspec.data.tables.table import Column, ReadNotes, ReadOptions
from dlspec.data.tables.table_builder import CellReader, TableChunk, TextCells, get_chunk_rows, make_list_column
from dlspec.data.tables.text_lines import TextLines
from dlspec.errors import Code, DataError, format_value


@dataclass(frozen=True)
class Header:
    """The names of a file's columns."""

    names: tuple[str, ...]
    made: tuple[str, ...] = ()  # names that dlspec made
    first_row: NumberedRow | None = None  # the row that was read to count the columns, and is data
    last_line: int = 0  # of the file's header

    @property
    def has_rest(self) -> bool:
        """Whether the last column takes the remaining cells of each row."""
        return self.names[-1].endswith(REST)

    @property
    def columns(self) -> list[str]:
        """The names without the mark of the remaining cells."""
        return [name.removesuffix(REST) for name in self.names]


def read_header(lines: TextLines, rows: Iterator[NumberedRow], options: ReadOptions) -> Header:
    """Read or make the names of the columns; consumes the file's header row if it has one.

    Args:
        lines: the file
        rows: its rows
        options: the options of reading

    Returns:
        The header.
    """
    file = lines.file
    line, cells = next(((line, cells) for line, cells in rows if cells), (0, None))
    if cells is None:
        raise DataError("path", f"'{file}' is empty; it must have a header and rows", Code.BAD_DATA)
    if isinstance(options.header, list):
        names = expand_header(options.header)
        if [cell.strip() for cell in cells] == names:
            found = f"{file}:{line}: the first row has the names that data.header lists"
            raise DataError("header", f"{found}; leave data.header out", Code.CONFLICT)
        return Header(tuple(names), (), (line, cells))
    if options.header is False:
        return Header(tuple(number_columns(len(cells))), (), (line, cells))
    _check_first_row(file, line, cells, options)
    names, made = name_columns(cells)
    names = check_unique(names, "header", f"{file}:{line}", lines.line)
    return Header(tuple(names), tuple(made), last_line=lines.line)


def _check_first_row(file: Path, line: int, cells: list[str], options: ReadOptions) -> None:
    if cells[0].startswith("sep=") and not any(cells[1:]):
        found = f"{file}:{line}: this line tells Excel the delimiter"
        raise DataError("skip", f"{found}; write data.skip={line} to leave it out", Code.WRONG_VALUE)
    if options.header is None and looks_like_data(cells):
        found = f"{file}:{line}: the first row looks like data, not like names: {format_value(', '.join(cells))}"
        raise DataError("header", f"{found}; write data.header=false, or data.header=true if these are names")


@dataclass
class _RowCells:
    """The cells of some rows."""

    cells: list[str] = field(default_factory=list)  # of all rows, one after another, without the remaining cells
    rests: list[list[str | None]] = field(default_factory=list)  # the remaining cells of each row, if a column has them
    lines: list[int] = field(default_factory=list)  # of each row


class TextRowsReader:
    """Reads the rows of text files, in chunks. The columns of all files are those of the first."""

    def __init__(
        self, options: ReadOptions, bad: BadRowCollector, max_rows: int | None = None, use: ColumnUse = ALL_COLUMNS
    ) -> None:
        self.options, self.bad, self.max_rows, self.use = options, bad, max_rows, use
        self.cells = CellReader(options.missing)
        self.empty_lines = 0
        self.made_names: tuple[str, ...] = ()
        self._first_file: Path | None = None
        self._names: list[str] = []
        self._rows = 0  # of all chunks

    @property
    def notes(self) -> ReadNotes:
        """The notes about all files so far."""
        return ReadNotes(named_columns=self.made_names, empty_lines=self.empty_lines)

    def read(self, lines: TextLines, rows: Iterator[NumberedRow]) -> Iterator[TableChunk]:
        """Read the header of one file, and yield its rows in chunks."""
        header = read_header(lines, rows, self.options)
        self._check_columns(lines.file, header.columns)
        self.made_names = self.made_names or header.made
        size, chunk = self.max_rows or get_chunk_rows(len(header.names)), _RowCells()
        if header.first_row is not None:
            self._add_row(lines.file, *header.first_row, header, chunk)
        while True:
            simple = self._take_simple_lines(rows, header, size - len(chunk.lines))
            block = self._read_block(lines, simple, rows, header) if not chunk.lines else None
            if block is not None:
                yield block
                continue
            if not self._add_simple_rows(lines, simple, rows, header, chunk):
                row = next(rows, None)
                if row is None:
                    break
                self._add_row(lines.file, *row, header, chunk)
            if len(chunk.lines) >= size:
                yield self._make_chunk(lines, header, chunk)
                chunk = _RowCells()
        yield self._make_chunk(lines, header, chunk)

    def _take_simple_lines(self, rows: Iterator[NumberedRow], header: Header, count: int) -> list[str]:
        if len(header.names) < 2 or header.has_rest or not isinstance(rows, DelimitedRows):
            return []
        return rows.take_lines(count)

    def _read_block(
        self, lines: TextLines, simple: list[str], rows: Iterator[NumberedRow], header: Header
    ) -> TableChunk | None:
        """Read the lines of a long file by pyarrow; None if that is not possible."""
        use = self.use.choose(header.columns)
        is_short = self._rows * len(use.numbers) < MIN_CELLS
        if not simple or is_short or not use.numbers or not isinstance(rows, DelimitedRows):
            return None
        found = None
        if not self.cells.has_missing_numbers:
            found = read_block(simple, header.columns, rows.delimiter, use, self.options.missing)
        if found is None:
            return None
        columns = {
            name: self.cells.clean_cells(each, lines.is_ascii) if isinstance(each, list) else each
            for name, each in found.items()
        }
        lines.is_ascii = True
        self._rows += len(simple)
        return TableChunk(columns, range(lines.line - len(simple) + 1, lines.line + 1))

    def _add_simple_rows(
        self, lines: TextLines, simple: list[str], rows: Iterator[NumberedRow], header: Header, chunk: _RowCells
    ) -> bool:
        """Add rows that can simply be split, and return whether there were some."""
        width = len(header.names)
        if not simple or not isinstance(rows, DelimitedRows):
            return False
        cells = rows.split_lines(simple, width)
        chunk.cells += cells
        chunk.lines.extend(range(lines.line - len(cells) // width + 1, lines.line + 1))
        return bool(cells)

    def _add_row(self, file: Path, line: int, cells: list[str], header: Header, chunk: _RowCells) -> None:
        count = len(header.names)
        if len(cells) != count and not (header.has_rest and len(cells) >= count - 1):
            self._add_bad_row(file, line, cells, header, chunk.lines)
            return
        if header.has_rest:
            chunk.rests.append(self._clean_rest(cells[count - 1 :]))
            cells = cells[: count - 1]
        chunk.cells += cells
        chunk.lines.append(line)

    def _check_columns(self, file: Path, names: list[str]) -> None:
        if self._first_file is None:
            self._first_file, self._names = file, names
            return
        expected, given = set(self._names), set(names)
        lacking = [name for name in self._names if name not in given]
        extra = [name for name in names if name not in expected]
        if lacking or extra:
            found = f"lacks the column '{lacking[0]}'" if lacking else f"has a column '{extra[0]}'"
            fix = f"all files must have the columns of the first, '{self._first_file}'"
            raise DataError("path", f"'{file}' {found}; {fix}", Code.CONFLICT)

    def _add_bad_row(self, file: Path, line: int, cells: list[str], header: Header, numbers: list[int]) -> None:
        if not cells:
            self.empty_lines += 1
            return
        if len(cells) == len(header.names) + 1 and header.last_line and not self._rows and not numbers:
            self._refuse_short_header(file, line, cells, header)
        count = f"{len(cells)} cell{'s' if len(cells) != 1 else ''}"
        expected = "the first row" if self.options.header is False else "the header"
        expected = "data.header" if isinstance(self.options.header, list) else expected
        self.bad.add(file, line, f"{count}, but {expected} has {len(header.names)}")

    def _refuse_short_header(self, file: Path, line: int, cells: list[str], header: Header) -> None:
        """Refuse a file whose first row has a cell more than its header: R leaves out the name of the first column."""
        names = [*header.names, "empty"] if not cells[-1].strip() else ["row", *header.names]
        fix = suggest_header(names, header.last_line) or "write a name for each column"
        found = f"{file}:{line}: the first row has {len(cells)} cells, but the header has {len(header.names)}"
        raise DataError("header", f"{found}; if a column has no name, {fix}")

    def _make_chunk(self, lines: TextLines, header: Header, chunk: _RowCells) -> TableChunk:
        names, width = header.columns, len(header.names) - header.has_rest
        use = self.use.choose(names)
        columns = {
            name: self._make_column(chunk.cells[at::width], lines.is_ascii, name in use.numbers)
            for at, name in enumerate(names[:width])
            if use.is_needed(name)
        }
        if header.has_rest:
            columns[names[-1]] = make_list_column(chunk.rests)
        lines.is_ascii = True
        self._rows += len(chunk.lines)
        return TableChunk(columns, chunk.lines)

    def _make_column(self, cells: list[str], is_ascii: bool, has_numbers: bool) -> Column | TextCells:
        return self.cells.clean_numbers(cells, is_ascii) if has_numbers else self.cells.clean_cells(cells, is_ascii)

    def _clean_rest(self, cells: list[str]) -> list[str | None]:
        found = [self.cells.clean(cell) for cell in cells]
        while found and found[-1] is None:
            found.pop()
        return found
