"""Read one or more files as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dlspec.data.tables.bad_rows import BadRows
from dlspec.data.tables.file_reader import choose_format, make_file_reader
from dlspec.data.tables.input_files import find_input_files
from dlspec.data.tables.table import ReadNotes, ReadOptions, Table
from dlspec.data.tables.table_builder import TableBuilder
from dlspec.errors import Code, DataError


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
    builder, bad = TableBuilder(), BadRows(options.bad_rows)
    reader = make_file_reader(files[0], options, bad)
    for file in files:
        builder.start_file(str(file))
        for chunk in reader.read(file):
            builder.add_chunk(chunk)
    bad.check()
    table = builder.build()
    if not len(table):
        raise DataError("path", f"'{files[0]}' has no rows" + _count_skipped(bad), Code.BAD_DATA)
    return table, replace(
        reader.notes,
        format=choose_format(files[0], options),
        files=len(files),
        skipped=tuple(bad.first),
        skipped_count=bad.count,
    )


def _count_skipped(bad: BadRows) -> str:
    return f" that can be read: {bad.first[0].location}: {bad.first[0].reason}" if bad.count else " of data"
