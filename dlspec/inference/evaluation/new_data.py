"""New rows as samples to evaluate: encoded with what the run has fitted, with their targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.encoding.image_columns import list_fitted_images
from dlspec.data.encoding.table_notes import describe_notes
from dlspec.data.prepare.alphabet import Alphabet
from dlspec.data.prepare.decoding import CHARACTERS, get_preprocessing_kind
from dlspec.data.prepare.kinds.image import FittedImage
from dlspec.data.sources.running_text import RunningText
from dlspec.data.sources.table_rows import TableRows, add_joined_tables
from dlspec.data.tables.python_rows import table_from_python
from dlspec.data.tables.table import TEXT, Column, Table
from dlspec.errors import UserError
from dlspec.formatting import quote_for_shell
from dlspec.inference.evaluation.evaluation_data import EvaluationData
from dlspec.inference.loading.loaded_run import LoadedRun
from dlspec.inference.loading.own_data import align_split
from dlspec.inference.rows.input_chunks import iterate_row_chunks
from dlspec.inference.rows.input_settings import make_input_settings
from dlspec.inference.rows.input_sources import find_inputs
from dlspec.inference.rows.python_inputs import list_images
from dlspec.inference.rows.row_chunk import RowChunk
from dlspec.inference.rows.row_encoding import encode_chunk
from dlspec.inference.rows.value_ranges import describe_unlike_numbers

MAX_REASONS = 20  # of rows that are left out, in a message
CHUNK_ROWS = 50_000  # read at a time


def read_new_files(run: LoadedRun, path: str | Sequence[str], written: Mapping[str, Any]) -> EvaluationData:
    """Read and encode all rows of a file, a list of files, a glob or a folder.

    Args:
        run: the run
        path: the files
        written: options of reading that differ from those of the run's files, such as `delimiter`

    Raises:
        DataError: if a file can't be read.
        UserError: if a column that the run needs is missing.
    """
    shown = path if isinstance(path, str) else ", ".join(path)
    source = run.spec.data
    if isinstance(source, RunningText):
        return _read_running_text(run, source, shown, written)
    settings = make_input_settings(source, run.require_preparation(), written, keep=True)
    chunks = list(iterate_row_chunks(find_inputs(path, settings, "data.path"), settings, CHUNK_ROWS))
    table, problems = _join_chunks(chunks)
    table = add_joined_tables(TableRows(table), getattr(source, "join", [])).table
    return _encode(run, table, problems, shown)


def read_python_rows(run: LoadedRun, rows: Any) -> EvaluationData:
    """Encode rows given in Python: a frame, a list of mappings, or `(X, y)`."""
    return _encode(run, table_from_python(_name_arrays(run.require_preparation(), rows)), {}, None)


def _name_arrays(fitted: FittedTable, rows: Any) -> Any:
    """Name `(X, y)` after the only input and the only target, if the input is an image or another array."""
    if not isinstance(rows, tuple) or len(rows) != 2 or len(fitted.inputs) != 1 or len(fitted.targets) != 1:
        return rows
    ((name, column),), (target,) = fitted.inputs.items(), fitted.targets
    images = list_images(rows[0]) if isinstance(column, FittedImage) else None
    if images is not None:
        return {name: images, target: rows[1]}
    return {name: np.asarray(rows[0]), target: rows[1]} if column.kind == "array" else rows


def _read_running_text(run: LoadedRun, source: RunningText, path: str, written: Mapping[str, Any]) -> EvaluationData:
    saved = run.data.get_preprocessing("text")
    if get_preprocessing_kind(saved) not in CHARACTERS or written:
        fix = f"remove data.{next(iter(written))}" if written else "train it again with this version of dlspec"
        raise UserError(f"'{path}' can't be encoded as the run's text was; {fix}")
    windows = source.model_copy(update={"path": path}).read_windows(Alphabet.from_json(saved))
    return EvaluationData(align_split(windows, run.data), None, path)


# ---- from chunks to a table ------------------------------------------------------------------------------------------


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


# ---- from a table to samples -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Columns:
    """Which columns the run needs, and which of them are missing."""

    fitted: FittedTable
    table: Table

    def find_missing(self) -> list[str]:
        needed = [*self.fitted.targets, *self.fitted.inputs, *filter(None, [self.fitted.weight])]
        patterns = list_fitted_images(self.fitted)
        missing = [name for name in needed if name not in self.table.columns]
        return [name for name in missing if not self._is_stacked(name) and not patterns.get(name)]

    def _is_stacked(self, name: str) -> bool:
        members = self.fitted.stacks.get(name, ())
        return bool(members) and all(each in self.table.columns for each in members)


def _encode(run: LoadedRun, table: Table, problems: Mapping[int, str], path: str | None) -> EvaluationData:
    fitted = run.require_preparation()
    _check_columns(run, _Columns(fitted, table), path)
    chunk = RowChunk(
        table.columns, problems=problems, rows=len(table), files=table.files, file_of_row=table.file_of_row,
        line_of_row=table.line_of_row,
    )  # fmt: skip
    encoded = encode_chunk(fitted, chunk, with_targets=True)
    bad = encoded.problems
    reasons = tuple(f"{table.locate(row)}: {bad[row]}" for row in list(bad)[:MAX_REASONS])
    if not len(encoded.kept):
        raise UserError(f"no row can be evaluated; {reasons[0] if reasons else 'there are none'}")
    split = replace(align_split(encoded.split, run.data), rows=encoded.kept + 1)
    unlike = describe_unlike_numbers(fitted, table.columns)
    notes = (*describe_notes(encoded.notes), *([unlike] if unlike else []))
    return EvaluationData(split, None, path, table.take(encoded.kept), len(bad), reasons, notes)


def _check_columns(run: LoadedRun, columns: _Columns, path: str | None) -> None:
    """Refuse rows without a target, which can only be predicted, or without a column that the run needs."""
    missing = columns.find_missing()
    if not missing:
        return
    shown = "the rows have" if path is None else f"'{path}' has"
    found = f"{shown} no column '{missing[0]}', which the run"
    if missing[0] not in columns.fitted.targets:
        names = ", ".join(list(columns.table.columns)[:20])
        raise UserError(f"{found} needs; the columns are {names}")
    command = format_predict_command(str(run.folder), path or "FILE.csv")
    raise UserError(f"{found} predicts: there is nothing to compare with; to predict it: {command}")


def format_predict_command(folder: str, path: str, *more: str) -> str:
    """Format the command that predicts the rows of a file.

    Args:
        folder: the run's folder
        path: the file
        more: further arguments, such as `threshold=0.3`
    """
    words = [f"run={folder}", f"input={path}", "output=predictions.csv", *more]
    return f"python -m dlspec predict {' '.join(map(quote_for_shell, words))}"
