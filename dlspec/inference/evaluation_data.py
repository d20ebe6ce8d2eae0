"""The samples to evaluate: a split of the run's own data, or all rows of new data, with their raw rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dlspec.data.dataset import Dataset, Split, make_field_name
from dlspec.data.encoding.encoded_rows import encode_rows
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.encoding.stacked_columns import stack_columns
from dlspec.data.prepare.alphabet import Alphabet
from dlspec.data.prepare.decoding import CHARACTERS, get_preprocessing_kind
from dlspec.data.sources.file_rows import FileSource
from dlspec.data.sources.running_text import RunningText
from dlspec.data.sources.source import DataSource, open_data
from dlspec.data.sources.table_dataset import EncodedTable, make_split
from dlspec.data.sources.table_rows import TableRows, add_joined_tables, choose_table_rows
from dlspec.data.sources.table_settings import TableSettings
from dlspec.data.sources.user_rows import UserRows
from dlspec.data.split_indices import SplitIndices
from dlspec.data.tables.python_rows import table_from_python
from dlspec.data.tables.read_options import ReadOptions
from dlspec.data.tables.reading import read_table
from dlspec.data.tables.table import ReadNotes, Table
from dlspec.errors import UserError
from dlspec.formatting import quote_for_shell

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
MAX_REASONS = 20  # of rows that are left out, in a message


@dataclass(frozen=True)
class EvaluationData:
    """Samples to evaluate, and where they come from."""

    split: Split
    name: SplitName | None  # the split of the run's own data; None for new data
    path: str | None = None  # the new file; None for the run's own data
    table: Table | None = None  # the raw rows, one for each sample; None for data that are not a table
    left_out: int = 0  # rows that can't be evaluated
    reasons: tuple[str, ...] = ()  # why the first of them can't be
    notes: tuple[str, ...] = ()  # lines for the user


@dataclass(frozen=True)
class OpenedSource:
    """The run's own data, read again."""

    dataset: Dataset
    table: Table | None = None
    parts: SplitIndices | None = None  # rows of the table in each split

    def select(self, name: SplitName, description: Dataset) -> EvaluationData:
        """Select a split, with the targets that the run has."""
        split = align_split(getattr(self.dataset, name), description)
        table = None if self.table is None or self.parts is None else self.table.take(getattr(self.parts, name))
        return EvaluationData(split, name, table=table)


class _TableReader(Protocol):
    def open_table(self) -> EncodedTable: ...


def open_source(source: DataSource) -> OpenedSource:
    """Read the run's own data as training did; DataError if that is impossible."""
    if isinstance(source, TableSettings) and hasattr(source, "open_table"):
        reader: _TableReader = source
        found = reader.open_table()
        return OpenedSource(found.dataset, found.table, found.parts)
    return OpenedSource(open_data(source))


def align_split(split: Split, description: Dataset) -> Split:
    """Return a split whose targets are those of the run: a field of tokens may be its own target."""
    names = [each.name for each in description.targets]
    tensors = {name: each for name, each in split.tensors.items() if name not in names}
    return Split(tensors, {name: split.get_loss_target(name) for name in names})


# ---- new data --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewData:
    """How new rows become samples: with what the run has fitted."""

    fitted: FittedTable
    description: Dataset
    source: DataSource
    folder: str  # the run's, for the command that predicts without targets

    def read_file(self, path: str | Sequence[str]) -> EvaluationData:
        """Read and encode all rows of a file, a list of files or a glob.

        Raises:
            DataError: if a file can't be read, or lacks a column.
            UserError: if it lacks a target.
        """
        shown = path if isinstance(path, str) else ", ".join(path)
        if isinstance(self.source, RunningText):
            return self._read_running_text(shown)
        rows, notes = self._read_table_rows(path)
        if isinstance(self.source, TableSettings):
            rows = choose_table_rows(rows, self.source)
        found = self._encode(rows.table, shown)
        reasons = tuple(f"{each.location}: {each.reason}" for each in notes.skipped)
        left_out = found.left_out + notes.skipped_count
        return replace(found, left_out=left_out, reasons=(*reasons, *found.reasons)[:MAX_REASONS])

    def _read_table_rows(self, path: str | Sequence[str]) -> tuple[TableRows, ReadNotes]:
        if isinstance(self.source, FileSource | UserRows):  # which read paths in their own way
            own = self.source.model_copy(update={"path": path, "validation": None, "test": None})
            return own.read_rows(), ReadNotes()
        table, notes = read_table(path, find_read_options(self.source))
        return add_joined_tables(TableRows(table), getattr(self.source, "join", [])), notes

    def read_rows(self, rows: Any) -> EvaluationData:
        """Encode rows given in Python: a frame, a list of mappings, or `(X, y)`."""
        return self._encode(table_from_python(rows), None)

    def _read_running_text(self, path: str) -> EvaluationData:
        source = self.source.model_copy(update={"path": path})
        saved = self.description.get_preprocessing("text")
        if not isinstance(source, RunningText) or get_preprocessing_kind(saved) not in CHARACTERS:
            raise UserError(f"'{path}' can't be encoded: the run did not save its characters")
        split = source.read_windows(Alphabet.from_json(saved))
        return EvaluationData(align_split(split, self.description), None, path)

    def _encode(self, table: Table, path: str | None) -> EvaluationData:
        self._check_columns(table, path)
        for name, members in self.fitted.stacks.items():
            if all(member in table.columns for member in members):
                table = table.with_column(name, stack_columns(table.columns, members))
        encoded = encode_rows(self.fitted, table.columns, np.arange(len(table)))
        bad = np.array(sorted(encoded.problems), np.int64)
        reasons = tuple(f"{table.locate(row)}: {'; '.join(encoded.problems[row])}" for row in bad[:MAX_REASONS])
        if len(bad):
            kept = np.setdiff1d(np.arange(len(table)), bad, assume_unique=True)
            if not len(kept):
                raise UserError(f"no row can be evaluated: {reasons[0]}")
            encoded = encode_rows(self.fitted, table.columns, kept)
            table = table.take(kept)
        split = align_split(make_split(encoded), self.description)
        notes = tuple(_describe_notes(encoded.notes))
        return EvaluationData(split, None, path, table, len(bad), reasons, notes)

    def _check_columns(self, table: Table, path: str | None) -> None:
        """Refuse rows without a target, which can only be predicted, or without a column that the run needs."""
        shown = "the rows" if path is None else f"'{path}'"
        missing = [
            name
            for name in (
                *self.fitted.targets,
                *self.fitted.inputs,
                *([self.fitted.weight] if self.fitted.weight else []),
            )
            if name not in table.columns
            and not (name in self.fitted.stacks and all(each in table.columns for each in self.fitted.stacks[name]))
        ]
        if not missing:
            return
        has = f"has the columns {', '.join(list(table.columns)[:20])}"
        if missing[0] in self.fitted.targets:
            fix = f"to predict it: {format_predict_command(self.folder, path or 'FILE.csv')}"
            raise UserError(f"{shown} has no column '{missing[0]}', which the run predicts, so there is nothing to "
                            f"compare with; {fix}")  # fmt: skip
        raise UserError(f"{shown} has no column '{missing[0]}', which the run needs; it {has}")


def format_predict_command(folder: str, path: str, *more: str) -> str:
    """Format the command that predicts the rows of a file."""
    words = [f"run={folder}", f"input={path}", "output=predictions.csv", *more]
    return f"python -m dlspec predict {' '.join(map(quote_for_shell, words))}"


def find_read_options(source: DataSource) -> ReadOptions:
    """Return how a run's files are read, as its source says; rows that can't be read are left out and counted."""
    names = [name for name in ReadOptions.model_fields if name in type(source).model_fields]
    return ReadOptions(**{name: getattr(source, name) for name in names}).model_copy(update={"bad_rows": "skip"})


def _describe_notes(notes: Mapping[tuple[str, str], int]) -> list[str]:
    texts = {"unknown": "cells that training did not have", "missing": "missing cells where training had none",
             "cut": "texts that were cut"}  # fmt: skip
    found = []
    for what, text in texts.items():
        columns = [f"{name} {count:,}" for (each, name), count in notes.items() if each == what and count]
        if columns:
            found.append(f"{text}: {', '.join(columns[:12])}")
    return found


# ---- columns ---------------------------------------------------------------------------------------------------------


def find_group_cells(data: EvaluationData, description: Dataset, column: str) -> NDArray[Any]:
    """Return the value of each sample in a column of the raw rows, or in a target.

    Args:
        data: the samples
        description: the run's data set
        column: a column of the table, also one that is no input; or a target

    Raises:
        UserError: if there is no such column.
    """
    if data.table is not None and column in data.table.columns:
        return data.table.columns[column]
    target = next((each for each in description.targets if column in (each.name, make_field_name(each.name))), None)
    if target is not None and target.kind == "classes" and not target.shape:
        names_of_classes: NDArray[Any] = np.array(target.classes, object)
        cells: NDArray[Any] = names_of_classes[data.split.targets[target.name].cpu().numpy()]
        return cells
    classes = [each.name for each in description.targets if each.kind == "classes" and not each.shape]
    names = classes if data.table is None else list(data.table.columns)
    found = f"no column '{column}' to divide the results by"
    if not names:
        raise UserError(f"{found}; the run's data are not a table, so leave by out")
    raise UserError(f"{found}; choose one of {', '.join(names[:40])}")


def list_input_columns(fitted: FittedTable | None) -> list[str]:
    """List the columns of a file that the network sees; [] for data that are not a table."""
    if fitted is None:
        return []
    return [member for name in fitted.inputs for member in fitted.stacks.get(name, (name,))]
