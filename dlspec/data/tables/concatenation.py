"""Put tables below each other: the files of the training, validation and test rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlspec.data.tables.table import Table
from dlspec.errors import Code, DataError


def concatenate_tables(tables: Sequence[Table], keys: Sequence[str]) -> Table:
    """Put tables with the same columns below each other.

    Args:
        tables: the tables; the first one decides which columns there are
        keys: for each table the setting of `data` that names its files, for messages

    Raises:
        DataError: if a table lacks a column of the first one, or a column has numbers in one table and text in another.
    """
    first, *others = tables
    if not others:
        return first
    for table, key in zip(others, keys[1:], strict=True):
        _check_columns(first, table, key)
    starts = np.cumsum([0, *(len(table.files) for table in tables[:-1])])
    return Table(
        {name: np.concatenate([table.columns[name] for table in tables]) for name in first.columns},
        tuple(file for table in tables for file in table.files),
        np.concatenate([table.file_of_row + start for table, start in zip(tables, starts, strict=True)]).astype(
            np.int32
        ),
        np.concatenate([table.line_of_row for table in tables]),
    )


def _check_columns(first: Table, other: Table, key: str) -> None:
    for name, column in first.columns.items():
        if name not in other.columns:
            found = f"'{other.files[0]}' has no column '{name}', which '{first.files[0]}' has"
            raise DataError(key, f"{found}; {_suggest_file(key)}", Code.UNKNOWN_FIELD)
        if other.columns[name].dtype != column.dtype or other.columns[name].shape[1:] != column.shape[1:]:
            raise DataError(key, f"'{name}' has other values in '{other.files[0]}' than in '{first.files[0]}'")


def _suggest_file(key: str) -> str:
    if key not in ("validation", "test"):
        return "all files must have the same columns"
    return f"name a file with the same columns, the target too, or leave data.{key} out"
