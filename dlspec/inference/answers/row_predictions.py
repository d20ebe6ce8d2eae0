"""The predictions of rows as columns: joined over chunks, in the order of the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.prepare.kinds.cells import list_cells
from dlspec.errors import UserError, suggest
from dlspec.inference.answers.answer_columns import Answers
from dlspec.inference.rows.row_chunk import AnswerChunk, RowChunk

ROW = "row"  # the output column with a row's number, where no column identifies it


@dataclass(frozen=True, repr=False)
class Predictions:
    """The predictions of rows, in the order of the rows."""

    columns: Mapping[str, Sequence[Any]]  # values by output column; None for a row without a prediction
    problems: Mapping[int, str] = field(default_factory=dict)  # why a row has no prediction, by its position
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)  # how often: (`unknown`, column), ...

    def __getitem__(self, name: str) -> Sequence[Any]:
        """Return the values of one output column."""
        if name not in self.columns:
            raise KeyError(f"no output column '{name}'; {suggest(name, self.columns)}")
        return self.columns[name]

    def __len__(self) -> int:
        """Count the rows, those without a prediction too."""
        return max(map(len, self.columns.values()), default=0)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The predictions row by row, as mappings from output columns to values."""
        names = list(self.columns)
        return [dict(zip(names, values, strict=True)) for values in zip(*self.columns.values(), strict=True)]

    def to_pandas(self) -> Any:
        """Convert to a frame of pandas, which must be installed."""
        from importlib import import_module

        return import_module("pandas").DataFrame(dict(self.columns))

    def __repr__(self) -> str:
        """Show the first rows, as a notebook should."""
        count, problems = len(self), f", {len(self.problems):,} without a prediction" if self.problems else ""
        shown = "".join(f"\n  {row}" for row in self._take(3))
        more = f"\n  ... and {count - 3:,} more" if count > 3 else ""
        return f"Predictions({count:,} rows of {', '.join(self.columns)}{problems}){shown}{more}"

    def _take(self, count: int) -> list[dict[str, Any]]:
        return Predictions({name: values[:count] for name, values in self.columns.items()}).rows


def identify_rows(fitted: FittedTable, chunk: RowChunk, *, is_file_a_row: bool) -> Answers:
    """Return the column that identifies the rows: their id, file or number.

    Args:
        fitted: what encodes rows
        chunk: the rows
        is_file_a_row: whether each file is one row
    """
    if fitted.id and fitted.id in chunk.columns:
        return {fitted.id: list_values(chunk.columns[fitted.id])}
    if is_file_a_row and chunk.files and chunk.file_of_row is not None:
        return {"file": [chunk.files[at] for at in chunk.file_of_row.tolist()]}
    return {ROW: list(range(chunk.first_row + 1, chunk.first_row + len(chunk) + 1))}


def list_values(column: NDArray[Any]) -> list[Any]:
    """List cells as JSON values: numbers stay numbers, missing ones are None."""
    if column.dtype.kind in "biu" or column.ndim > 1:
        found: list[Any] = column.tolist()
        return found
    if column.dtype.kind == "f":
        return [None if each != each else each for each in column.tolist()]  # nan
    return column.tolist() if column.dtype.kind == "O" else list(list_cells(column))


def spread_answers(answers: Answers, kept: NDArray[np.int64], rows: int) -> Answers:
    """Put the answers at the positions of their rows; None for the others.

    Args:
        answers: the answers of the rows that could be read
        kept: their positions
        rows: the number of all rows
    """
    if len(kept) == rows:
        return answers
    found: Answers = {}
    for name, values in answers.items():
        found[name] = [None] * rows
        for position, value in zip(kept.tolist(), values, strict=True):
            found[name][position] = value
    return found


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
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}


def join_chunks(chunks: Sequence[AnswerChunk]) -> Predictions:
    """Join the answers of all chunks."""
    columns: dict[str, list[Any]] = {name: [] for name in chunks[0].columns}
    problems: dict[int, str] = {}
    notes: Counter[tuple[str, str]] = Counter()
    first = 0
    for chunk in chunks:
        for name, values in chunk.columns.items():
            columns[name].extend(values)
        problems |= {first + position: reason for position, reason in chunk.problems.items()}
        notes += chunk.notes
        first += max(map(len, chunk.columns.values()), default=0)
    return Predictions(columns, problems, notes)
