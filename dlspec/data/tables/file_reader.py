"""Read the rows of files in chunks, one file after the other: the part that whole tables and new rows share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, get_args

from dlspec.data.files.quoted_cells import set_cell_limit
from dlspec.data.tables.bad_rows import BadRowCollector
from dlspec.data.tables.column_use import ALL_COLUMNS, ColumnUse
from dlspec.data.tables.delimited_rows import DelimitedRows, Dialect, NumberedRow, choose_dialect
from dlspec.data.tables.json_lines import JsonLinesReader
from dlspec.data.tables.npz_file import NpzReader
from dlspec.data.tables.parquet_file import ParquetReader
from dlspec.data.tables.table import ReadNotes, ReadOptions, RowFormat
from dlspec.data.tables.table_builder import TableChunk
from dlspec.data.tables.text_lines import MAX_CELL_CHARACTERS, TextLines
from dlspec.data.tables.text_rows import TextRowsReader
from dlspec.data.tables.word_rows import BlocksReader, read_words
from dlspec.errors import Code, DataError

ENDINGS: Mapping[str, RowFormat] = {
    ".csv": "csv",
    ".txt": "csv",
    ".data": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".npz": "npz",
    ".conll": "blocks",
    ".conllu": "blocks",
}
FORMATS: tuple[str, ...] = get_args(RowFormat)


class FileReader(Protocol):
    """Reads files of one format."""

    @property
    def notes(self) -> ReadNotes:
        """What was guessed or left out in all files so far."""

    def read(self, file: Path) -> Iterator[TableChunk]:
        """Yield the rows of one file, in chunks."""


def get_ending(file: Path) -> str:
    """Return the ending of a file in lower case, such as `.csv`; `.gz` does not count."""
    return Path(file.name.lower().removesuffix(".gz")).suffix


def choose_format(file: Path, options: ReadOptions) -> RowFormat:
    """Return the format that the options name, else that of the file's ending; `.gz` does not count."""
    if options.format is not None:
        return options.format
    ending = get_ending(file)
    if ending in (".xlsx", ".xls", ".ods"):
        raise DataError("path", f"'{file}' is a workbook; save the sheet as CSV", Code.FILE_UNREADABLE)
    if ending not in ENDINGS:
        found = f"'{file}': its ending does not tell the format"
        raise DataError("format", f"{found}; write data.format=csv, or {', '.join(FORMATS[1:])}", Code.MISSING_VALUE)
    return ENDINGS[ending]


def make_file_reader(
    file: Path,
    options: ReadOptions,
    bad: BadRowCollector,
    max_rows: int | None = None,
    use: ColumnUse = ALL_COLUMNS,
) -> FileReader:
    """Make the reader for files of one format.

    Args:
        file: the first file, which decides the format and the delimiter if the options leave them open
        options: how files are read
        bad: is given the rows that can't be read
        max_rows: the most rows of a chunk; None: as many as take little memory
        use: which columns are needed, and which contain numbers

    Raises:
        DataError: if the format is unknown, or an option has no effect on it.
    """
    chosen = choose_format(file, options)
    _refuse_unused_options(options, chosen)
    options = options.model_copy(update={"format": chosen})
    if chosen == "npz":
        return _BinaryFileReader(NpzReader(options))
    if chosen == "parquet":
        return _BinaryFileReader(ParquetReader(options, max_rows, use))
    return TextFileReader(file, options, bad, max_rows, use)


class _BinaryFileReader:
    """Reads files in which no row is bad by itself."""

    def __init__(self, reader: NpzReader | ParquetReader) -> None:
        self.read = reader.read
        self.notes = ReadNotes()


class TextFileReader:
    """Reads text files line by line, each in the same way."""

    def __init__(
        self,
        file: Path,
        options: ReadOptions,
        bad: BadRowCollector,
        max_rows: int | None = None,
        use: ColumnUse = ALL_COLUMNS,
    ) -> None:
        self._options, self._bad = options, bad
        self._comments, self._encoding = 0, ""
        self._dialect: Dialect | None = None
        self._rows = TextRowsReader(options, bad, max_rows, use)
        self._objects: JsonLinesReader | BlocksReader | None = None
        if options.format == "jsonl":
            self._objects = JsonLinesReader(options, bad, max_rows)
        elif options.format == "blocks":
            self._objects = BlocksReader(options, bad, max_rows)
        elif options.format != "words":
            self._dialect = choose_dialect(file, options)

    @property
    def notes(self) -> ReadNotes:
        """What was guessed or left out in all files so far."""
        found = self._dialect.delimiter if self._dialect is not None and self._dialect.is_found else None
        return replace(self._rows.notes, delimiter=found, encoding=self._encoding or None, comment_lines=self._comments)

    def read(self, file: Path) -> Iterator[TableChunk]:
        """Yield the rows of one file, in chunks."""
        yield from self.read_lines(TextLines(file, self._options.encoding, self._options.comment))

    def read_lines(self, lines: TextLines) -> Iterator[TableChunk]:
        """Yield the rows of lines, in chunks."""
        with set_cell_limit(MAX_CELL_CHARACTERS), lines.open() as stream:
            lines.skip(stream, self._options.skip)
            yield from self._objects.read(lines, stream) if self._objects else self._read_cells(lines, stream)
        self._comments += lines.comment_lines
        self._encoding = lines.found_encoding or self._encoding

    def _read_cells(self, lines: TextLines, stream: Iterator[str]) -> Iterator[TableChunk]:
        rows: Iterator[NumberedRow]
        if self._dialect is None:
            rows = read_words(lines, stream, self._options, self._bad)
        else:
            rows = DelimitedRows(lines, stream, self._dialect, self._bad)
        yield from self._rows.read(lines, rows)


# The options that have no effect in a format, and would be ignored silently.
_UNUSED: Mapping[RowFormat, tuple[str, ...]] = {
    "words": ("delimiter",),
    "blocks": ("quote", "missing"),
    "jsonl": ("delimiter", "quote", "header"),
    "npz": ("delimiter", "quote", "encoding", "header", "skip", "comment", "bad_rows"),
    "parquet": ("delimiter", "quote", "encoding", "header", "skip", "comment", "bad_rows"),
}


def list_unused_options(format: RowFormat) -> tuple[str, ...]:
    """Return the options that have no effect on files of a format."""
    return _UNUSED.get(format, ())


def _refuse_unused_options(options: ReadOptions, format: RowFormat) -> None:
    for name in list_unused_options(format):
        if getattr(options, name) != ReadOptions.model_fields[name].default:
            found = f"data.{name} has no effect on files of the format {format}; leave it out"
            raise DataError(name, found, Code.UNUSED)
