"""Read new images: one in each file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dlspec.data.tables.file_pattern import make_absolute
from dlspec.data.tables.table import TEXT
from dlspec.inference.rows.input_settings import InputSettings
from dlspec.inference.rows.input_sources import InputFiles
from dlspec.inference.rows.row_chunk import RowChunk

WHOLE_FILE = 0  # the line of a row that is a file


def read_image_files(inputs: InputFiles, settings: InputSettings, max_rows: int) -> Iterator[RowChunk]:
    """Yield files of images as rows, with what the braces of the path catch. The files are read later.

    Args:
        inputs: the files
        settings: how they are read
        max_rows: the most rows of a chunk
    """
    columns = {**(inputs.caught or {}), "file": np.array(inputs.names, TEXT)}
    columns.setdefault(settings.image_column, make_absolute(inputs.names))
    for start in range(0, len(inputs.files), max_rows):
        part = slice(start, start + max_rows)
        count = len(inputs.files[part])
        yield RowChunk(
            {name: column[part] for name, column in columns.items()}, start, {}, inputs.names,
            np.arange(start, start + count, dtype=np.int32), np.full(count, WHOLE_FILE), count, is_file_a_row=True,
        )  # fmt: skip
