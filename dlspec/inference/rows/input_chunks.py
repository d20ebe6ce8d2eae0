"""Read new rows chunk by chunk: from files, globs, folders and standard input, with flat memory.

Every row keeps its place: one that can't be read is in its chunk, without cells and with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlspec.data.files.idx import read_idx
from dlspec.data.tables.column_extraction import extract_matches
from dlspec.data.tables.file_reader import FileReader, TextFileReader, make_file_reader
from dlspec.data.tables.table import TEXT, Column
from dlspec.data.tables.table_builder import TableChunk
from dlspec.data.tables.text_lines import StandardInputLines, TextLines
from dlspec.errors import DataError
from dlspec.inference.rows.image_inputs import read_image_files
from dlspec.inference.rows.input_settings import InputSettings
from dlspec.inference.rows.input_sources import SETTING, STANDARD_INPUT, InputFiles, find_inputs
from dlspec.inference.rows.row_chunk import RowChunk
from dlspec.inference.rows.text_inputs import read_lines, read_text_files
from dlspec.inference.rows.user_inputs import read_user_rows

Located = tuple[int, TableChunk]  # the number of the file, and rows of it


@dataclass
class BadRowList:
    """Keeps the rows that can't be read until their chunk is made."""

    rows: list[tuple[int, str]] = field(default_factory=list)  # first line, reason

    def add(self, file: Path, line: int, reason: str) -> None:
        """Note a bad row.

        Args:
            file: the file
            line: its first line
            reason: why it can't be read
        """
        self.rows.append((line, reason))

    def take(self) -> list[tuple[int, str]]:
        """Return the bad rows since the last call."""
        rows, self.rows = self.rows, []
        return rows


def iterate_row_chunks(
    source: str | Sequence[str] | InputFiles, settings: InputSettings, max_rows: int
) -> Iterator[RowChunk]:
    """Yield the rows of new data in their order.

    Args:
        source: a file, a list of files, a glob, a folder, or `-` for JSON lines from standard input; or files that were
            found already
        settings: how files are read
        max_rows: the most rows of a chunk

    Raises:
        DataError: if a file can't be read, or is damaged so that its further rows can't be trusted.
    """
    inputs, bad = source if isinstance(source, InputFiles) else find_inputs(source, settings), BadRowList()
    if inputs.kind == "images":
        yield from read_image_files(inputs, settings, max_rows)
        return
    names, first_row = _ColumnNames(), 0
    for file, chunk in _read_chunks(inputs, settings, bad, max_rows):
        merged, problems = insert_bad_rows(chunk, bad.take())
        columns = _extract(names.complete(merged), settings.extract)
        for start in range(0, len(merged.lines), max_rows):
            rows = slice(start, start + max_rows)
            made = _make_row_chunk(columns, merged.lines, problems, rows, first_row, file, inputs.names)
            yield made
            first_row += len(made)
    if not first_row:
        read = f"'{inputs.files[0]}'" if inputs.files else "standard input"
        raise DataError(SETTING, f"{read} has no rows of data")


def _read_chunks(inputs: InputFiles, settings: InputSettings, bad: BadRowList, max_rows: int) -> Iterator[Located]:
    if inputs.kind == "stdin":
        options = settings.choose_options(Path("standard input.jsonl"))
        if options.format != "jsonl":
            found = 'standard input must be JSON lines, such as {"age": 30}'
            raise DataError("format", f"{found}; remove data.format, or write the rows into a file")
        reader = TextFileReader(Path(STANDARD_INPUT), options, bad, max_rows)
        yield from ((0, chunk) for chunk in reader.read_lines(StandardInputLines(options.encoding, options.comment)))
    elif inputs.kind == "texts":
        yield from read_text_files(inputs, settings, bad)
    elif inputs.kind == "user":
        yield from read_user_rows(inputs, settings, max_rows)
    else:
        yield from _read_files(inputs, settings, bad, max_rows)


def _read_files(inputs: InputFiles, settings: InputSettings, bad: BadRowList, max_rows: int) -> Iterator[Located]:
    reader: FileReader | None = None
    for number, file in enumerate(inputs.files):
        if inputs.kind == "idx":
            images = read_idx(file, settings.array_shape)
            yield number, TableChunk({settings.array_column: images}, np.arange(1, len(images) + 1))
        elif inputs.kind == "lines":
            options = settings.choose_options(file)
            lines = TextLines(file, options.encoding, options.comment)
            yield from ((number, chunk) for chunk in read_lines(lines, settings.text_column, max_rows))
        else:
            reader = reader or make_file_reader(file, settings.choose_options(file), bad, max_rows, settings.use)
            yield from ((number, chunk) for chunk in reader.read(file))


# ---- bad rows in their places ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Merged:
    """The rows of a chunk with its bad rows among them."""

    columns: Mapping[str, Column]
    lines: NDArray[np.int64]


def insert_bad_rows(chunk: TableChunk, bad: Sequence[tuple[int, str]]) -> tuple[_Merged, dict[int, str]]:
    """Put rows that can't be read where they are in the file; all their cells are missing.

    Args:
        chunk: the rows that can be read
        bad: first line and reason of each other row

    Returns:
        The rows, and the reasons by position.
    """
    columns = {name: _to_array(cells) for name, cells in chunk.columns.items()}
    lines = np.asarray(chunk.lines, np.int64)
    if not bad:
        return _Merged(columns, lines), {}
    count = len(lines)
    lines = np.concatenate([lines, [line for line, _ in bad]]).astype(np.int64)
    order = np.argsort(lines, kind="stable")
    places = np.where(order < count, order, -1)
    positions = {int(at): position for position, at in enumerate(order.tolist()) if at >= count}
    problems = {positions[count + number]: reason for number, (_, reason) in enumerate(bad)}
    return _Merged({name: _take_or_miss(column, places) for name, column in columns.items()}, lines[order]), problems


def _to_array(cells: Column | list[str | None]) -> Column:
    return np.array(cells, TEXT) if isinstance(cells, list) else cells


def _take_or_miss(column: Column, places: NDArray[np.int64]) -> Column:
    """Return the cells at some places; a missing one at -1."""
    empty = np.zeros((1, *column.shape[1:]), column.dtype) if column.dtype.kind in "biuf" else _make_missing(1, column)
    return np.concatenate([column, empty])[places]


def _make_missing(rows: int, like: Column) -> Column:
    kind = object if like.dtype == object else TEXT
    return np.full((rows, *like.shape[1:]), None, kind)


class _ColumnNames:
    """Gives all rows the columns of the first ones: JSON lines may lack keys, and files may differ in their order."""

    def __init__(self) -> None:
        self._examples: dict[str, Column] = {}

    def complete(self, merged: _Merged) -> dict[str, Column]:
        rows = len(merged.lines)
        if not self._examples:
            self._examples = {name: column[:0] for name, column in merged.columns.items()}
        return {
            name: merged.columns[name] if name in merged.columns else _make_missing(rows, example)
            for name, example in self._examples.items()
        }


def _extract(columns: dict[str, Column], patterns: Mapping[str, str]) -> dict[str, Column]:
    for name, pattern in patterns.items():
        if name in columns:
            columns |= extract_matches(columns[name], pattern, name)
    return columns


def _make_row_chunk(
    columns: Mapping[str, Column], lines: NDArray[np.int64], problems: Mapping[int, str], rows: slice, first_row: int,
    file: int, files: tuple[str, ...],
) -> RowChunk:  # fmt: skip
    taken = lines[rows]
    return RowChunk(
        {name: column[rows] for name, column in columns.items()}, first_row,
        {at - rows.start: reason for at, reason in problems.items() if rows.start <= at < rows.stop}, files,
        np.full(len(taken), file, np.int32) if files else None, taken, len(taken),
    )  # fmt: skip
