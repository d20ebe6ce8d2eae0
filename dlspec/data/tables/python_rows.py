"""Tables from data in Python: rows, frames of pandas, polars and pyarrow, `(X, y)`, and mappings of arrays.

Frames are recognized by their attributes, so that none of these libraries is needed or imported.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from dlspec.data.tables.column_names import MAX_COLUMNS, normalize_name, number_columns
from dlspec.data.tables.table import Column, Table
from dlspec.data.tables.table_builder import CellReader, format_dates, make_list_column
from dlspec.errors import Code, DataError

TARGET_COLUMN = "target"  # of `(X, y)`, where y has no name
ACCEPTED = (
    "expected a pandas, polars or pyarrow frame, (X, y), a mapping of columns, or a list of rows such as "
    '{"age": 30, "label": "yes"}'
)


def table_from_python(data: Any) -> Table:
    """Make a table from data in Python. Numbers stay numbers, everything else becomes text as in a CSV file.

    Args:
        data: a frame of pandas, polars or pyarrow; `(X, y)`, whose columns of X are named column_1, column_2, ... where
            they have no names; a mapping of columns; or a list of rows as mappings

    Raises:
        DataError: if the data is of another type, or its columns have different lengths.
    """
    columns = _list_columns(data)
    names = [normalize_name(str(name)) for name, _ in columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError("data", f"two columns have the name '{twice}'; rename one of them", Code.NAME_TAKEN)
    converted = {name: _convert_column(name, values) for name, (_, values) in zip(names, columns, strict=True)}
    counts = {name: len(column) for name, column in converted.items()}
    if len(set(counts.values())) != 1:
        shown = ", ".join(f"'{name}' {count:,}" for name, count in list(counts.items())[:6])
        found = f"the columns have different lengths: {shown}" if counts else "the data has no columns"
        raise DataError("data", found)
    count = next(iter(counts.values()))
    if not count:
        raise DataError("data", "the data has no rows")
    return Table(converted, (), np.zeros(count, np.int32), np.arange(1, count + 1))


def _list_columns(data: Any) -> list[tuple[Any, Any]]:
    """Return the columns with their names."""
    if isinstance(data, tuple) and len(data) == 2:
        return [*_list_features(data[0]), *_list_target(data[1])]
    if isinstance(data, Mapping):
        return list(data.items())
    if hasattr(data, "column_names") and hasattr(data, "columns"):  # pyarrow.Table
        return list(zip(data.column_names, data.columns, strict=True))
    if hasattr(data, "columns") and hasattr(data, "shape"):  # pandas.DataFrame, polars.DataFrame
        return _list_frame_columns(data)
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return _list_row_columns(data)
    raise DataError("data", f"the data is {type(data).__name__}; {ACCEPTED}", Code.WRONG_TYPE)


def _list_frame_columns(frame: Any) -> list[tuple[Any, Any]]:
    names = list(frame.columns)
    by_position = getattr(frame, "iloc", None)
    if by_position is None:
        return [(name, frame[name]) for name in names]
    return [(name, by_position[:, at]) for at, name in enumerate(names)]


def _list_row_columns(rows: Sequence[Any]) -> list[tuple[Any, Any]]:
    wrong = next((number for number, row in enumerate(rows, 1) if not isinstance(row, Mapping)), None)
    if wrong is not None:
        found = f"row {wrong} is {type(rows[wrong - 1]).__name__}"
        raise DataError("data", f"{found}; {ACCEPTED}", Code.WRONG_TYPE)
    names = dict.fromkeys(name for row in rows for name in row)
    if len(names) > MAX_COLUMNS:
        raise DataError("data", f"the rows have more than {MAX_COLUMNS:,} different keys", Code.TOO_LARGE)
    return [(name, [row.get(name) for row in rows]) for name in names]


def _list_features(features: Any) -> list[tuple[Any, Any]]:
    if hasattr(features, "columns") or isinstance(features, Mapping):
        return _list_columns(features)
    array = np.asarray(features)
    if array.ndim == 1 or array.ndim > 2:
        return [("features", array)]
    if array.ndim == 0 or array.shape[1] > MAX_COLUMNS:
        raise DataError("data", f"X must have the shape (rows, columns), got {array.shape}", Code.WRONG_TYPE)
    return [(name, array[:, at]) for at, name in enumerate(number_columns(array.shape[1]))]


def _list_target(target: Any) -> list[tuple[Any, Any]]:
    if hasattr(target, "columns") or isinstance(target, Mapping):
        return _list_columns(target)
    return [(getattr(target, "name", None) or TARGET_COLUMN, target)]


def _convert_column(name: str, values: Any) -> Column:
    """Return a column as numbers, text or lists."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise DataError("data", f"'{name}' must be an array or list, got {type(values).__name__}", Code.WRONG_TYPE)
    dtype = getattr(values, "dtype", None)
    if hasattr(values, "detach"):  # a tensor
        values = values.detach().cpu().numpy()
        dtype = values.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "iuf":
        return np.asarray(values)
    if isinstance(dtype, np.dtype) and dtype.kind == "M":
        return format_dates(np.asarray(values))
    if isinstance(values, np.ndarray) and values.ndim > 1:
        flat = _convert_cells(name, values.ravel().tolist())
        return flat.reshape(values.shape)
    to_list = getattr(values, "to_pylist", None) or getattr(values, "to_list", None) or getattr(values, "tolist", None)
    return _convert_cells(name, to_list() if to_list is not None else list(values))


def _convert_cells(name: str, cells: Sequence[Any]) -> Column:
    cells = [None if _is_missing(cell) else cell for cell in cells]
    filled = [cell for cell in cells if cell is not None]
    if filled and all(map(_is_image, filled)):
        return make_list_column(cells)
    if filled and all(isinstance(cell, list | tuple | np.ndarray) for cell in filled):
        return make_list_column([None if cell is None else np.asarray(cell, object).tolist() for cell in cells])
    if filled and all(isinstance(cell, int | float | np.number) and not isinstance(cell, bool) for cell in filled):
        return _convert_numbers(name, cells)
    texts = [None if cell is None else _format_cell(name, row, cell) for row, cell in enumerate(cells)]
    return CellReader(("",)).clean_values(texts)


def _is_image(cell: Any) -> bool:
    """Whether a cell is an image: bytes, bytes with a path, an array of bytes, or one of Pillow's images."""
    if isinstance(cell, np.ndarray):
        return cell.dtype == np.uint8 and cell.ndim in (2, 3)
    if isinstance(cell, Mapping):
        return {"bytes", "path"}.issuperset(cell) and bool(cell)
    return isinstance(cell, bytes | bytearray) or hasattr(cell, "getexif")


def _convert_numbers(name: str, cells: Sequence[Any]) -> Column:
    try:
        if None not in cells and all(isinstance(cell, int | np.integer) for cell in cells):
            return np.array(cells, np.int64)
        return np.array([math.nan if cell is None else float(cell) for cell in cells], np.float64)
    except OverflowError:
        raise DataError("data", f"'{name}' contains an integer that does not fit into 64 bits") from None


def _is_missing(cell: Any) -> bool:
    """Whether a cell is None, NaN, or the missing value of pandas, all of which differ from themselves or say so."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(cell, float | np.floating) and math.isnan(cell)


def _format_cell(name: str, row: int, cell: Any) -> str:
    if isinstance(cell, str):
        return _check_characters(name, row, cell)
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    if isinstance(cell, PurePath):
        return _check_characters(name, row, str(cell))
    if isinstance(cell, datetime.date):  # and datetime.datetime
        return cell.isoformat(" ") if isinstance(cell, datetime.datetime) else cell.isoformat()
    if isinstance(cell, np.datetime64 | int | float | np.number) or type(cell).__name__ == "Decimal":
        return str(cell)
    found = f"row {row + 1}: '{name}' contains {type(cell).__name__}"
    fix = "cells may be text, numbers, dates, true or false, lists, and images"
    raise DataError("data", f"{found}; {fix}", Code.WRONG_TYPE)


def _check_characters(name: str, row: int, cell: str) -> str:
    if not cell.isascii():
        try:
            cell.encode()
        except UnicodeEncodeError:
            found = f"row {row + 1}: '{name}' contains half of a surrogate pair, which is not a character"
            raise DataError("data", found) from None
    return cell
