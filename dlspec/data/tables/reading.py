"""Read one or more files as one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dlspec.data.files.quoted_cells import set_cell_limit
from dlspec.data.tables.bad_rows import BadRows
from dlspec.data.tables.delimited_rows import choose_dialect, read_delimited
from dlspec.data.tables.input_files import find_input_files
from dlspec.data.tables.table import ReadNotes, ReadOptions, RowFormat, Table
from dlspec.data.tables.table_builder import TableBuilder
from dlspec.data.tables.text_lines import MAX_CELL_CHARACTERS, TextLines
from dlspec.data.tables.text_rows import TextRowsReader
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
    options = options.model_copy(update={"format": choose_format(files[0], options)})
    builder, bad = TableBuilder(), BadRows(options.bad_rows)
    notes = _READERS[str(options.format)](files, options, builder, bad)
    bad.check()
    table = builder.build()
    if not len(table):
        raise DataError("path", f"'{files[0]}' has no rows" + _count_skipped(bad), Code.BAD_DATA)
    return table, replace(
        notes,
        format=str(options.format),
        files=len(files),
        skipped=tuple(bad.first),
        skipped_count=bad.count,
    )


def _count_skipped(bad: BadRows) -> str:
    return f" that can be read: {bad.first[0].location}: {bad.first[0].reason}" if bad.count else " below its header"


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


def _read_delimited_files(
    files: Sequence[Path], options: ReadOptions, builder: TableBuilder, bad: BadRows
) -> ReadNotes:
    reader = TextRowsReader(builder, options, bad)
    dialect, comments, encoding = choose_dialect(files[0], options), 0, None
    for file in files:
        builder.start_file(str(file))
        lines = TextLines(file, options.encoding, options.comment)
        with set_cell_limit(MAX_CELL_CHARACTERS), lines.open() as stream:
            lines.skip(stream, options.skip)
            reader.read(lines, read_delimited(lines, stream, dialect, bad))
        comments, encoding = comments + lines.comment_lines, lines.found_encoding or encoding
    return ReadNotes(
        delimiter=dialect.delimiter if dialect.is_found else None,
        encoding=encoding,
        named_columns=reader.made_names,
        empty_lines=reader.empty_lines,
        comment_lines=comments,
    )


_Reader = Callable[[Sequence[Path], ReadOptions, TableBuilder, BadRows], ReadNotes]
_READERS: Mapping[str, _Reader] = {"csv": _read_delimited_files, "tsv": _read_delimited_files}
