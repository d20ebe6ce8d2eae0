"""The predictions of rows as columns and row by row: joined over chunks, in the order of the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.prepare.kinds.cells import list_cells
from dlspec.errors import UserError, suggest
from dlspec.inference.answers.answer_columns import AnswerOptions
from dlspec.inference.answers.column_arrays import Answers, join_columns, make_object_column, spread_column
from dlspec.inference.rows.row_chunk import AnswerChunk, RowChunk

ROW = "row"  # the output column with a row's number, where no column identifies it
ROWS_AT_ONCE = 1_024  # rows that become Python's values together


@dataclass(frozen=True, repr=False, eq=False)
class Predictions:
    """The predictions of rows, in the order of the rows: a sequence of rows, and columns by name."""

    # By output column: (N,) numbers, (N, ...) numbers of rows with one shape, or (N,) objects (class names, lists). The
    # arrays are of objects if a row has no prediction, with None there.
    columns: Mapping[str, NDArray[Any]]
    problems: Mapping[int, str] = field(default_factory=dict)  # why a row has no prediction, by its position
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)  # how often: (`unknown`, column), ...

    @overload
    def __getitem__(self, key: str) -> NDArray[Any]: ...

    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...

    def __getitem__(self, key: str | int) -> NDArray[Any] | dict[str, Any]:
        """Return the values of one output column by its name, or one row by its position."""
        if not isinstance(key, str):
            return self._get_row(index(key))
        if key not in self.columns:
            raise KeyError(f"no output column '{key}'; {suggest(key, self.columns)}")
        return self.columns[key]

    def _get_row(self, position: int) -> dict[str, Any]:
        count = len(self)
        if not -count <= position < count:
            raise IndexError(f"no row {position}; there are {count:,}")
        start = position % count
        return next(self._iterate_rows(start, start + 1))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the predictions row by row, as mappings from output columns to values."""
        for start in range(0, len(self), ROWS_AT_ONCE):
            yield from self._iterate_rows(start, start + ROWS_AT_ONCE)

    def _iterate_rows(self, start: int, end: int) -> Iterator[dict[str, Any]]:
        """Yield some rows, with Python's own types."""
        names, columns = list(self.columns), [values[start:end].tolist() for values in self.columns.values()]
        return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))

    def __len__(self) -> int:
        """Count the rows, those without a prediction too."""
        return max(map(len, self.columns.values()), default=0)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The predictions row by row, as mappings from output columns to values."""
        return list(self)

    def to_pandas(self) -> Any:
        """Convert to a frame of pandas, which must be installed."""
        from importlib import import_module

        return import_module("pandas").DataFrame({name: values.tolist() for name, values in self.columns.items()})

    def __repr__(self) -> str:
        """Show the first rows, as a notebook should."""
        count, problems = len(self), f", {len(self.problems):,} without a prediction" if self.problems else ""
        shown = "".join(f"\n  {row}" for row in self._iterate_rows(0, 3))
        more = f"\n  ... and {count - 3:,} more" if count > 3 else ""
        return f"Predictions({count:,} rows of {', '.join(self.columns)}{problems}){shown}{more}"


def add_own_columns(
    fitted: FittedTable | None, chunk: RowChunk, options: AnswerOptions, answers: Answers, is_file_a_row: bool
) -> Answers:
    """Put what identifies a row before its answers, and the columns of the input that are kept or named.

    Args:
        fitted: what encodes rows; None if the samples of a split are all there is
        chunk: the rows
        options: what is written
        answers: their answers; a column of the input with the same name is left out
        is_file_a_row: whether each file is one row
    """
    kept = [name for name in chunk.columns if options.keep or name in (options.columns or ())]
    own: Answers = {name: convert_cells(chunk.columns[name]) for name in kept}
    if not options.keep:
        own |= _identify_rows(fitted, chunk, is_file_a_row)
    return {**{name: each for name, each in own.items() if name not in answers}, **answers}


def _identify_rows(fitted: FittedTable | None, chunk: RowChunk, is_file_a_row: bool) -> Answers:
    """Return the column that identifies the rows: their id, file or number."""
    if fitted is not None and fitted.id and fitted.id in chunk.columns:
        return {fitted.id: convert_cells(chunk.columns[fitted.id])}
    if is_file_a_row and chunk.files and chunk.file_of_row is not None:
        return {"file": np.array(chunk.files, object).take(chunk.file_of_row)}
    return {ROW: chunk.number_rows()}


def convert_cells(column: NDArray[Any]) -> NDArray[Any]:
    """Convert cells of the input to an output column: numbers stay numbers, missing ones are None."""
    if column.dtype.kind in "biuO" or column.ndim > 1:
        return column
    if column.dtype.kind == "f":
        return _replace_nan(column)
    return make_object_column(list_cells(column))


def _replace_nan(column: NDArray[Any]) -> NDArray[Any]:
    missing = np.isnan(column)
    if not missing.any():
        return column
    found = column.astype(object)
    found[missing] = None
    return found


def spread_answers(answers: Answers, kept: NDArray[np.int64], rows: int) -> Answers:
    """Put the answers at the positions of their rows; None for the others.

    Args:
        answers: the answers of the rows that could be read
        kept: their positions
        rows: the number of all rows
    """
    if len(kept) == rows:
        return answers
    return {name: spread_column(values, kept, rows) for name, values in answers.items()}


def choose_columns(answers: Answers, columns: Sequence[str] | None, available: Iterable[str] = ()) -> Answers:
    """Return the output columns that the user names, in that order; all without names.

    Args:
        answers: the output columns, with those of the input that `columns` names
        columns: the names that the user gives; None for all
        available: columns of the input, which a message lists beside the output columns
    """
    if columns is None:
        return answers
    for name in columns:
        if name not in answers:
            raise UserError(f"columns: no output column '{name}'; {suggest(name, {*answers, *available})}")
    return {name: answers[name] for name in columns}


def join_answers(parts: Sequence[Answers]) -> Answers:
    """Join the answers of several batches."""
    if len(parts) == 1:
        return parts[0]
    return {name: join_columns([part[name] for part in parts]) for name in parts[0]}


def join_chunks(chunks: Sequence[AnswerChunk]) -> Predictions:
    """Join the answers of all chunks."""
    problems: dict[int, str] = {}
    notes: Counter[tuple[str, str]] = Counter()
    first = 0
    for chunk in chunks:
        problems |= {first + position: reason for position, reason in chunk.problems.items()}
        notes += chunk.notes
        first += max(map(len, chunk.columns.values()), default=0)
    columns = {name: join_columns([chunk.columns[name] for chunk in chunks]) for name in chunks[0].columns}
    return Predictions(columns, problems, notes)
