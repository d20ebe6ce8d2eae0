"""New rows as samples to evaluate: encoded with what the run has fitted, with their targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.encoding.table_notes import describe_notes
from dlspec.data.prepare.alphabet import Alphabet
from dlspec.data.prepare.decoding import CHARACTERS, get_preprocessing_kind
from dlspec.data.prepare.kinds.image import FittedImage
from dlspec.data.sources.running_text import RunningText
from dlspec.data.tables.python_rows import table_from_python
from dlspec.data.tables.table import Table
from dlspec.errors import UserError
from dlspec.inference.evaluation.evaluation_data import EvaluationData
from dlspec.inference.evaluation.new_table import check_columns, read_new_table
from dlspec.inference.loading.loaded_run import LoadedRun
from dlspec.inference.loading.own_data import align_split
from dlspec.inference.rows.python_inputs import list_images
from dlspec.inference.rows.row_chunk import RowChunk
from dlspec.inference.rows.row_encoding import encode_chunk
from dlspec.inference.rows.value_ranges import describe_unlike_numbers

MAX_REASONS = 20  # of rows that are left out, in a message


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
    table, problems = read_new_table(source, run.require_preparation(), path, written)
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


def _encode(run: LoadedRun, table: Table, problems: Mapping[int, str], path: str | None) -> EvaluationData:
    fitted = run.require_preparation()
    check_columns(fitted, table, path, f"run={run.folder}")
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
