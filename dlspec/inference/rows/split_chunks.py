"""Divide a split of a run's own data into chunks of rows, which keep their ids and numbers."""

from __future__ import annotations

from collections.abc import Iterator

from dlspec.inference.loading.own_data import SplitRows
from dlspec.inference.rows.row_chunk import RowChunk


def iterate_split_chunks(rows: SplitRows, chunk_rows: int) -> Iterator[RowChunk]:
    """Yield the rows of a split: as they were read if the data are a table, else as samples.

    Args:
        rows: the split
        chunk_rows: the most rows of a chunk
    """
    for start in range(0, len(rows.split), chunk_rows):
        part = slice(start, start + chunk_rows)
        samples = rows.split.take(part)
        if rows.table is None:
            yield RowChunk({}, start, rows=len(samples), row_numbers=samples.rows, samples=samples)
            continue
        columns = {name: column[part] for name, column in rows.table.columns.items()}
        yield RowChunk(
            columns, start, {}, rows.table.files, rows.table.file_of_row[part], rows.table.line_of_row[part],
            len(samples), row_numbers=samples.rows,
        )  # fmt: skip
