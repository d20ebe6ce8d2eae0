"""New rows with their targets as one table, and whether it has the columns that are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.encoding.image_columns import list_fitted_images
from dlspec.data.sources.source import DataSource
from dlspec.data.sources.table_rows import TableRows, add_joined_tables
from dlspec.data.tables.table import TEXT, Column, Table
from dlspec.errors import UserError
from dlspec.formatting import quote_for_shell
from dlspec.inference.rows.input_chunks import iterate_row_chunks
from dlspec.inference.rows.input_settings import make_input_settings
from dlspec.inference.rows.input_sources import find_inputs
from dlspec.inference.rows.row_chunk import RowChunk

CHUNK_ROWS = 50_000  # read at a time


def read_new_table(
    source: DataSource | None, fitted: FittedTable, path: str | Sequence[str], written: Mapping[str, Any]
) -> tuple[Table, dict[int, str]]:
    """Read all rows of a file, a list of files, a glob or a folder.

    Args:
        source: where the training rows came from; None for data given in Python
        fitted: what encodes rows
        path: the files
        written: options of reading that differ from those of the training files, such as `delimiter`

    Returns:
        The rows, and the reasons of rows that can't be read, by row.

    Raises:
        DataError: if a file can't be read.
    """
    settings = make_input_settings(source, fitted, written, keep=True)
    chunks = list(iterate_row_chunks(find_inputs(path, settings, "data.path"), settings, CHUNK_ROWS))
    table, problems = _join_chunks(chunks)
    return add_joined_tables(TableRows(table), getattr(source, "join", [])).table, problems


def _join_chunks(chunks: Sequence[RowChunk]) -> tuple[Table, dict[int, str]]:
    """Join chunks to one table; and the reasons of rows that can't be read, by row."""
    names = list(dict.fromkeys(name for chunk in chunks for name in chunk.columns))
    columns = {name: _join_columns([chunk.columns.get(name) for chunk in chunks], chunks) for name in names}
    problems = {chunk.first_row + at: reason for chunk in chunks for at, reason in chunk.problems.items()}
    files = chunks[0].files
    lines = [_number_lines(chunk) for chunk in chunks]
    numbers = [np.zeros(len(chunk), np.int32) if chunk.file_of_row is None else chunk.file_of_row for chunk in chunks]
    return Table(columns, files, np.concatenate(numbers), np.concatenate(lines)), problems


def _number_lines(chunk: RowChunk) -> NDArray[np.int64]:
    if chunk.line_of_row is not None:
        return chunk.line_of_row
    return np.arange(chunk.first_row + 1, chunk.first_row + len(chunk) + 1)


def _join_columns(parts: Sequence[Column | None], chunks: Sequence[RowChunk]) -> Column:
    filled = [
        np.full(len(chunk), None, TEXT) if part is None else part for part, chunk in zip(parts, chunks, strict=True)
    ]
    if len({(each.dtype, each.shape[1:]) for each in filled}) > 1:  # lists in some chunks alone
        filled = [each.astype(object) for each in filled]
    return np.concatenate(filled)


def check_columns(fitted: FittedTable, table: Table, path: str | None, model: str) -> None:
    """Refuse rows without a target, which can only be predicted, or without a column that is needed.

    Args:
        fitted: what encodes rows
        table: the rows
        path: their file; None for rows given in Python
        model: what evaluates them, as a word of a command: `run=FOLDER`

    Raises:
        UserError: if a column is missing.
    """
    missing = _find_missing(fitted, table)
    if not missing:
        return
    shown = "the rows have" if path is None else f"'{path}' has"
    found = f"{shown} no column '{missing[0]}', which the run"
    if missing[0] not in fitted.targets:
        names = ", ".join(list(table.columns)[:20])
        raise UserError(f"{found} needs; the columns are {names}")
    command = format_predict_command(model, path or "FILE.csv")
    raise UserError(f"{found} predicts: there is nothing to compare with; to predict it: {command}")


def _find_missing(fitted: FittedTable, table: Table) -> list[str]:
    """Return the columns that are needed, do not exist, and are not made of others."""
    needed = [*fitted.targets, *fitted.inputs, *fitted.group_columns, *filter(None, [fitted.weight])]
    patterns = list_fitted_images(fitted)
    missing = [name for name in needed if name not in table.columns and not patterns.get(name)]
    return [name for name in missing if not _is_stacked(fitted.stacks.get(name, ()), table)]


def _is_stacked(members: Sequence[str], table: Table) -> bool:
    return bool(members) and all(each in table.columns for each in members)


def format_predict_command(model: str, path: str, *more: str) -> str:
    """Format the command that predicts the rows of a file.

    Args:
        model: what predicts them: `run=FOLDER` or `file=MODEL.onnx`
        path: the file of rows
        more: further arguments, such as `threshold=0.3`
    """
    words = [model, f"input={path}", "output=predictions.csv", *more]
    return f"python -m dlspec predict {' '.join(map(quote_for_shell, words))}"
