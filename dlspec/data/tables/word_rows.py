"""Rows of words that spaces separate, and rows that are blocks of lines, as in CoNLL files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from unicodedata import normalize

from dlspec.data.tables.bad_rows import BadRowCollector
from dlspec.data.tables.column_names import check_unique, expand_header, name_columns, number_columns
from dlspec.data.tables.delimited_rows import NumberedRow
from dlspec.data.tables.table import Column, ReadOptions
from dlspec.data.tables.table_builder import CHUNK_CELLS, TableChunk, TextCells, make_list_column
from dlspec.data.tables.text_lines import TextLines
from dlspec.errors import DataError

Block = tuple[int, list[list[str]]]  # the number of its first line, and the cells of its lines


@lru_cache(maxsize=100)
def _compile_word(quote: str) -> re.Pattern[str]:
    mark = re.escape(quote)
    return re.compile(rf"{mark}((?:[^{mark}]|{mark}{mark})*+){mark}(?!\S)|(?!{mark})(\S+)|(\S+)")


def read_words(
    lines: TextLines, stream: Iterator[str], options: ReadOptions, bad: BadRowCollector
) -> Iterator[NumberedRow]:
    """Yield rows of cells between spaces and tabs; a cell in quotes may contain spaces.

    Args:
        lines: the file
        stream: its lines
        options: the options of reading
        bad: collects lines with a quote that is not closed
    """
    quote = None if options.quote == "none" else options.quote or '"'
    for line in stream:
        lines.take_row()
        if quote is None or quote not in line:
            yield lines.line, line.split()
            continue
        found = [match.groups() for match in _compile_word(quote).finditer(line)]
        if any(wrong is not None for _, _, wrong in found):
            bad.add(lines.file, lines.line, "the quotes around a cell are not closed, or text follows them")
            continue
        yield lines.line, [plain if plain is not None else text.replace(quote * 2, quote) for text, plain, _ in found]


class BlocksReader:
    """Reads blocks: each block of lines is a row, and each of its columns a list of cells.

    Cells are kept as they are: the word `null` of a sentence is not a missing value.
    """

    def __init__(self, options: ReadOptions, bad: BadRowCollector, max_rows: int | None = None) -> None:
        self.options, self.bad, self.max_rows = options, bad, max_rows
        self._names: list[str] = []
        self._words: dict[str, str] = {}  # equal words are stored once

    def read(self, lines: TextLines, stream: Iterator[str]) -> Iterator[TableChunk]:
        """Yield all blocks of one file, in chunks."""
        blocks = _split_blocks(lines, stream, self.options.delimiter)
        chunk: list[Block] = []
        cells = 0
        for line, rows in self._read_names(lines, blocks):
            wrong = next((each for each in rows if len(each) != len(self._names)), None)
            if wrong is not None:
                number = line + rows.index(wrong)
                expected = f"{len(self._names)} are expected"
                self.bad.add(lines.file, number, f"{len(wrong)} cells in this line of a block, but {expected}")
                continue
            chunk.append((line, rows))
            cells += len(rows) * len(self._names)
            if cells >= CHUNK_CELLS or len(chunk) == self.max_rows:
                yield self._make_chunk(chunk, cells)
                chunk, cells = [], 0
        yield self._make_chunk(chunk, cells)

    def _read_names(self, lines: TextLines, blocks: Iterator[Block]) -> Iterator[Block]:
        """Take the names from the options or the first line, and return the remaining blocks."""
        first = next(blocks, None)
        if first is None:
            raise DataError("path", f"'{lines.file}' is empty; it must have blocks of lines")
        line, rows = first
        if isinstance(self.options.header, list):
            names = expand_header(self.options.header)
        elif self.options.header:
            names = check_unique(name_columns(rows[0])[0], "header", f"{lines.file}:{line}", line)
            line, rows = line + 1, rows[1:]
        else:
            names = number_columns(len(rows[0]))
        if self._names and names != self._names:
            raise DataError("path", f"'{lines.file}' has other columns than the first file")
        self._names = names
        return chain([(line, rows)] if rows else [], blocks)

    def _make_chunk(self, chunk: Sequence[Block], cells: int) -> TableChunk:
        share = self._words.setdefault
        columns: dict[str, Column | TextCells] = {}
        for at, name in enumerate(self._names):
            lists = [[share(row[at], row[at]) for row in rows] for _, rows in chunk]
            columns[name] = make_list_column(lists)
        return TableChunk(columns, [line for line, _ in chunk], cells)


def _split_blocks(lines: TextLines, stream: Iterator[str], delimiter: str | None) -> Iterator[Block]:
    """Yield the lines between empty lines, split into cells in NFC."""
    block: list[list[str]] = []
    first = 0
    for line in stream:
        lines.take_row()
        text = line if line.isascii() else normalize("NFC", line)
        if not text.strip():
            if block:
                yield first, block
            block = []
            continue
        first = first if block else lines.line
        cells = text.split() if delimiter is None else [cell.strip() for cell in text.split(delimiter)]
        block.append(cells)
    if block:
        yield first, block
