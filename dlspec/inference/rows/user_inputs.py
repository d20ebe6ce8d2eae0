"""Read new rows by the function of the user's own that a run was trained with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from dlspec.data.sources.user_rows import iterate_user_rows
from dlspec.data.tables.python_rows import table_from_python
from dlspec.data.tables.table_builder import TableChunk
from dlspec.inference.rows.input_settings import InputSettings
from dlspec.inference.rows.input_sources import InputFiles


def read_user_rows(inputs: InputFiles, settings: InputSettings, max_rows: int) -> Iterator[tuple[int, TableChunk]]:
    """Yield the rows that the function yields for each path.

    Args:
        inputs: the paths
        settings: how they are read
        max_rows: the most rows of a chunk
    """
    source = settings.user_rows
    assert source is not None  # the paths are of this kind
    for number, path in enumerate(inputs.names):
        rows, start = iterate_user_rows(source.read_path, path, "input"), 1
        while chunk := list(islice(rows, max_rows)):
            table = table_from_python(chunk)
            yield number, TableChunk(table.columns, np.arange(start, start + len(chunk)))
            start += len(chunk)
