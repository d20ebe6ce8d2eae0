"""Read one or more files as one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dlspec.data.files.quoted_cells import set_cell_limit
from dlspec.data.tables.bad_rows import BadRows
from dlspec.data.tables.delimited_rows import choose_dialect, read_delimited
from dlspec.data.tables.input_files import find_input_files
from dlspec.data.tables.json_lines import JsonLinesReader
from dlspec.data.tables.npz_file import read_npz_files
from dlspec.data.tables.parquet_file import read_parquet_files
from dlspec.data.tables.table import ReadNotes, ReadOptions, RowFormat, Table
from dlspec.data.tables.table_builder import TableBuilder
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
FORMATS = ("csv", "tsv", "words", "jsonl", "parquet", "npz", "blocks")


def read_table(path: str | Sequence[str], options: ReadOptions, base: Path | None = None) -> tuple[Table, ReadNotes]:
    """Read one file, a list of files or a glob as one table.

    Args:
        path: what the setting `path` contains
        options: how the files are read
        base: the folder that relative paths start from; None: the working folder

    Returns:
        The table, and what was guessed or left out.

    Raises:
        DataError: if a file can't be read or has rows that can't be read.
    """
    files = find_input_files(path, base)
    chosen = choose_format(files[0], options)
    _refuse_unused_options(options, chosen)
    options = options.model_copy(update={"format": chosen})
    builder, bad = TableBuilder(), BadRows(options.bad_rows)
    notes = _BINARY_READERS.get(chosen, _read_text_files)(files, options, builder, bad)
    bad.check()
    table = builder.build()
    if not len(table):
        raise DataError("path", f"'{files[0]}' has no rows" + _count_skipped(bad), Code.BAD_DATA)
    return table, replace(
        notes,
        format=chosen,
        files=len(files),
        skipped=tuple(bad.first),
        skipped_count=bad.count,
    )


def _count_skipped(bad: BadRows) -> str:
    return f" that can be read: {bad.first[0].location}: {bad.first[0].reason}" if bad.count else " of data"


def choose_format(file: Path, options: ReadOptions) -> RowFormat:
    """Return the format that the options name, else that of the file's ending; `.gz` does not count."""
    if options.format is not None:
        return options.format
    name = file.name.lower().removesuffix(".gz")
    ending = Path(name).suffix
    if ending in (".xlsx", ".xls", ".ods"):
        raise DataError("path", f"'{file}' is a workbook; save the sheet as CSV", Code.FILE_UNREADABLE)
    if ending not in ENDINGS:
        found = f"'{file}': its ending does not tell the format"
        raise DataError("format", f"{found}; write data.format=csv, or {', '.join(FORMATS[1:])}", Code.MISSING_VALUE)
    return ENDINGS[ending]


def _read_text_files(files: Sequence[Path], options: ReadOptions, builder: TableBuilder, bad: BadRows) -> ReadNotes:
    """Read files line by line, each in the same way."""
    read_file = _make_file_reader(files[0], options, builder, bad)
    comments, encoding = 0, None
    for file in files:
        builder.start_file(str(file))
        lines = TextLines(file, options.encoding, options.comment)
        with set_cell_limit(MAX_CELL_CHARACTERS), lines.open() as stream:
            lines.skip(stream, options.skip)
            notes = read_file(lines, stream)
        comments, encoding = comments + lines.comment_lines, lines.found_encoding or encoding
    return replace(notes, encoding=encoding, comment_lines=comments)


_FileReader = Callable[[TextLines, Iterator[str]], ReadNotes]


def _make_file_reader(file: Path, options: ReadOptions, builder: TableBuilder, bad: BadRows) -> _FileReader:
    if options.format == "jsonl":
        return JsonLinesReader(builder, options, bad).read
    if options.format == "blocks":
        return BlocksReader(builder, options, bad).read
    reader = TextRowsReader(builder, options, bad)
    if options.format == "words":
        return lambda lines, stream: reader.read(lines, read_words(lines, stream, options, bad))
    dialect = choose_dialect(file, options)
    found = dialect.delimiter if dialect.is_found else None
    return lambda lines, stream: replace(
        reader.read(lines, read_delimited(lines, stream, dialect, bad)), delimiter=found
    )


_Reader = Callable[[Sequence[Path], ReadOptions, TableBuilder, BadRows], ReadNotes]
_BINARY_READERS: Mapping[RowFormat, _Reader] = {"npz": read_npz_files, "parquet": read_parquet_files}
# The options that have no effect in a format, and would be ignored silently.
_UNUSED: Mapping[RowFormat, Sequence[str]] = {
    "words": ("delimiter",),
    "blocks": ("quote", "missing"),
    "jsonl": ("delimiter", "quote", "header"),
    "npz": ("delimiter", "quote", "encoding", "header", "skip", "comment", "bad_rows"),
    "parquet": ("delimiter", "quote", "encoding", "header", "skip", "comment", "bad_rows"),
}


def _refuse_unused_options(options: ReadOptions, format: RowFormat) -> None:
    for name in _UNUSED.get(format, ()):
        if getattr(options, name) != ReadOptions.model_fields[name].default:
            found = f"data.{name} has no effect on files of the format {format}; leave it out"
            raise DataError(name, found, Code.UNUSED)
