"""Rows of Parquet files, by pyarrow (the extra `tables`). Values become text, lists stay lists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlspec.data.tables.column_names import check_unique, normalize_name
from dlspec.data.tables.column_use import ALL_COLUMNS, ColumnUse
from dlspec.data.tables.table import Column, ReadOptions
from dlspec.data.tables.table_builder import CellReader, TableChunk, get_chunk_rows, make_list_column
from dlspec.errors import Code, DataError
from dlspec.formatting import first_line

IMAGE_ROWS = 1_000  # of a chunk with bytes, such as images
BYTES_OF_AN_ITEM = 16  # of a table's limit
_ZERO_FRACTION = re.compile(r"\.0+(?=Z?$)")  # of a second


class ParquetReader:
    """Reads Parquet files, in chunks that are parts of their row groups."""

    def __init__(self, options: ReadOptions, max_rows: int | None = None, use: ColumnUse = ALL_COLUMNS) -> None:
        self.max_rows, self.use = max_rows, use
        self._cells = CellReader(options.missing)

    def read(self, file: Path) -> Iterator[TableChunk]:
        """Yield the rows of one file, in chunks; DataError if pyarrow is not installed, or the file is damaged."""
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            fix = "pip install 'dlspec[tables]'"
            raise DataError("path", f"reading '{file}' needs pyarrow: {fix}", Code.NOT_INSTALLED) from None
        try:
            with pyarrow.parquet.ParquetFile(file) as opened:
                count = self.max_rows or get_chunk_rows(len(opened.schema_arrow))
                count = min(count, IMAGE_ROWS) if any(map(_has_bytes, opened.schema_arrow.types)) else count
                yield from self._read_batches(file, opened.iter_batches(batch_size=count))
        except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
            found = f"'{file}' can't be read as Parquet: {first_line(error)}"
            raise DataError("path", found, Code.FILE_UNREADABLE) from None

    def _read_batches(self, file: Path, batches: Iterator[Any]) -> Iterator[TableChunk]:
        import pyarrow

        row = 1
        for batch in batches:
            columns = read_arrow_table(pyarrow.Table.from_batches([batch]), str(file), self._cells, self.use)
            yield TableChunk(columns, np.arange(row, row + batch.num_rows), _count_items(columns))
            row += batch.num_rows


def _count_items(columns: dict[str, Column]) -> int:
    lists = [column for column in columns.values() if column.dtype == object]
    return sum(map(_count_items_of_cell, (cell for column in lists for cell in column if cell is not None)))


def _count_items_of_cell(cell: Any) -> int:
    return len(cell) // (BYTES_OF_AN_ITEM if isinstance(cell, bytes) else 1)


def _has_bytes(kind: Any) -> bool:
    """Whether cells are bytes, or mappings with bytes."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(_has_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _is_image(kind: Any) -> bool:
    """Whether cells are mappings of `bytes` and `path`, as images are in Hugging Face's data sets."""
    from pyarrow import types

    return bool(types.is_struct(kind)) and {field.name for field in kind} == {"bytes", "path"}


def _flatten(name: str, column: Any) -> Iterator[tuple[str, Any]]:
    """Yield a column, or those of its structs as `struct.field`; an image stays one column."""
    from pyarrow import types

    if not types.is_struct(column.type) or _is_image(column.type):
        yield name, column
        return
    for field, each in zip(column.type, column.flatten(), strict=True):
        yield from _flatten(f"{name}.{field.name}", each)


def read_arrow_table(table: Any, name: str, cells: CellReader, use: ColumnUse = ALL_COLUMNS) -> dict[str, Column]:
    """Return the columns of a pyarrow.Table as text and lists; those of structs as `struct.field`.

    Args:
        table: the pyarrow.Table
        name: what messages call it
        cells: cleans the texts
        use: which columns are needed, and which contain numbers
    """
    pairs = zip(table.column_names, table.columns, strict=True)
    columns = [found for each, column in pairs for found in _flatten(each, column)]
    names = check_unique([normalize_name(each) for each, _ in columns], "path", f"'{name}'")
    arrays, use = zip(names, (column for _, column in columns), strict=True), use.choose(names)
    return {
        each: _read_numbers(column)
        if each in use.numbers and _is_exact(column.type) and not cells.has_missing_numbers
        else _read_arrow_column(column, cells)
        for each, column in arrays
        if use.is_needed(each)
    }


def _is_exact(kind: Any) -> bool:
    """Whether numbers of a type are those of their texts; the short text of a float32 is another float64."""
    import pyarrow

    return bool(pyarrow.types.is_integer(kind) or pyarrow.types.is_float64(kind))


def _read_numbers(column: Any) -> Column:
    """Return numbers, NaN where missing."""
    return np.asarray(column.to_numpy(), np.float64)


def _read_arrow_column(column: Any, cells: CellReader) -> Column:
    import pyarrow

    kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
    types = pyarrow.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return make_list_column([None if cell is None else _convert_items(cell) for cell in column.to_pylist()])
    if _is_image(kind):
        return make_list_column([_choose_content(cell) for cell in column.to_pylist()])
    if _has_bytes(kind):
        return make_list_column(column.to_pylist())
    if types.is_null(kind):
        return cells.clean_values([None] * len(column))
    texts = column.cast(pyarrow.string()).to_pylist()
    if types.is_floating(kind):
        texts = [None if text == "nan" else text for text in texts]
    if types.is_timestamp(kind):
        texts = [text and _ZERO_FRACTION.sub("", text) for text in texts]
    return cells.clean_values(texts)


def _choose_content(image: Mapping[str, Any] | None) -> bytes | str | None:
    """Return the bytes of an image, or else the name of its file."""
    if image is None:
        return None
    content: bytes | str | None = image["path"] if image["bytes"] is None else image["bytes"]
    return content


def _convert_items(items: Sequence[Any]) -> list[Any]:
    """Return a list of numbers, texts, None and lists; anything else, such as a date, becomes text."""
    return [
        _convert_items(each)
        if isinstance(each, list)
        else each
        if each is None or (isinstance(each, int | float | str) and not isinstance(each, bool))
        else str(each)
        for each in items
    ]
