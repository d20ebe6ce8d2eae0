"""The rows of a table before anything is fitted: all of its files, chosen, with the columns that dlspec adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from dlspec.data.sources.table_settings import TableSettings
from dlspec.data.split_indices import TEST, VALIDATION, IntArray
from dlspec.data.splitting.split_column import FREE
from dlspec.data.tables.column_extraction import extract_columns
from dlspec.data.tables.column_values import NumberFormat
from dlspec.data.tables.concatenation import concatenate_tables
from dlspec.data.tables.read_options import ReadOptions
from dlspec.data.tables.reading import read_table
from dlspec.data.tables.row_formulas import choose_rows
from dlspec.data.tables.table import TEXT, ReadNotes, Table
from dlspec.data.tables.table_joins import join_tables
from dlspec.errors import DataError

ROW, FILE = "row", "file"  # names for a row's number and its file, where the table has no such columns
SPLIT_OF_KEY = {"validation": VALIDATION, "test": TEST}


class JoinedOptions(Protocol):
    """The settings of a table to join."""

    @property
    def path(self) -> str | list[str]:
        """Its files."""


@dataclass(frozen=True)
class TableRows:
    """Rows to split and encode."""

    table: Table
    split_of_file: IntArray | None = None  # by row: VALIDATION, TEST or FREE, if these splits have files of their own
    notes: tuple[str, ...] = ()  # lines for the user
    needs_naming: bool = False  # whether only columns that `columns` names are inputs
    numbers: IntArray | None = None  # (N,) number of each row in the files of its setting, from 1; None: its position

    def number_rows(self) -> IntArray:
        """Return the number of each row in the files that it was read from, from 1."""
        return np.arange(1, len(self.table) + 1) if self.numbers is None else self.numbers

    def take(self, rows: IntArray) -> TableRows:
        """Return some of the rows, given by their indices."""
        split = None if self.split_of_file is None else self.split_of_file[rows]
        return replace(self, table=self.table.take(rows), split_of_file=split, numbers=self.number_rows()[rows])


def join_files(read: Mapping[str, tuple[Table, ReadNotes]]) -> TableRows:
    """Join the tables that were read.

    Args:
        read: the table and its notes by setting: `path`, and where they have files of their own `validation`, `test`
    """
    tables = [table for table, _ in read.values()]
    joined = concatenate_tables(tables, list(read))
    splits = [np.full(len(table), SPLIT_OF_KEY.get(key, FREE)) for key, (table, _) in read.items()]
    first, notes = next(iter(read.values()))[1], _describe_reading(list(read.values()))
    more = len(joined.files) - 1
    name = joined.files[0] + (f" and {more:,} more file{'s' if more > 1 else ''}" if more else "")
    head = f"{name}: {len(joined):,} rows, {len(joined.columns):,} columns"
    found = f" ({notes[0]})" if first.delimiter is not None and notes else ""
    numbers = np.concatenate([np.arange(1, len(table) + 1) for table in tables])
    return TableRows(
        joined, np.concatenate(splits) if len(tables) > 1 else None, (head + found, *notes[bool(found) :]),
        numbers=numbers,
    )  # fmt: skip


def _describe_reading(read: Sequence[tuple[Table, ReadNotes]]) -> list[str]:
    """Return the notes about the first table, and those about the others that differ, each with its file."""
    first = read[0][1].describe()
    return [
        *first,
        *(f"{table.files[0]}: {note}" for table, each in read[1:] for note in each.describe() if note not in first),
    ]


def add_joined_tables(rows: TableRows, joined: Sequence[JoinedOptions]) -> TableRows:
    """Add the columns of other tables; their relative paths start from the folder of the first file."""
    table, notes = rows.table, list(rows.notes)
    for options in joined:
        read = ReadOptions(**{key: getattr(options, key) for key in ReadOptions.model_fields})
        other, read_notes = read_table(options.path, read, Path(table.files[0]).parent)
        table = join_tables(table, other, other.files[0])
        notes += [f"joined {other.files[0]}: {len(other):,} rows", *read_notes.describe()]
    return replace(rows, table=table, notes=tuple(notes))


def choose_table_rows(rows: TableRows, settings: TableSettings) -> TableRows:
    """Add the columns that the settings ask for, then keep the rows that `where` chooses."""
    table = _extract(rows.table, settings)
    for name in {settings.id, settings.time, *settings.list_groups()} & {ROW, FILE}:
        if name not in table.columns:
            table = _add_own_column(table, str(name))
    rows = replace(rows, table=table)
    numbers = NumberFormat(settings.decimal, settings.thousands)
    return rows if settings.where is None else _choose_where(rows, settings.where, numbers)


def _extract(table: Table, settings: TableSettings) -> Table:
    if not settings.extract:
        return table
    return extract_columns(table, settings.extract)


def _choose_where(rows: TableRows, where: str, numbers: NumberFormat) -> TableRows:
    chosen = np.flatnonzero(choose_rows(rows.table, where, numbers))
    if not len(chosen):
        raise DataError("where", f"no row matches {where}")
    note = f"where keeps {len(chosen):,} of {len(rows.table):,} rows"
    return replace(rows.take(chosen), notes=(*rows.notes, note))


def _add_own_column(table: Table, name: str) -> Table:
    if name == ROW:
        return table.with_column(ROW, np.array([str(row) for row in range(1, len(table) + 1)], TEXT))
    return table.with_column(FILE, np.array(table.files, TEXT)[table.file_of_row])


def drop_rows(rows: TableRows, dropped: Mapping[str, IntArray]) -> TableRows:
    """Leave out rows whose cells are missing, by column: those that `missing: drop` lists."""
    is_dropped = np.zeros(len(rows.table), np.bool_)
    for indices in dropped.values():
        is_dropped[indices] = True
    if not is_dropped.any():
        return rows
    names = " or ".join(name for name, indices in dropped.items() if len(indices))
    note = f"{int(is_dropped.sum()):,} rows without {names} are left out"
    kept = rows.take(np.flatnonzero(~is_dropped))
    if not len(kept.table):
        raise DataError("", f"{names} is missing in every row, and such rows are left out")
    return replace(kept, notes=(*rows.notes, note))
