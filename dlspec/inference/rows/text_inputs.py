"""Read new texts: one in each line of a file, or one in each file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dlspec.data.tables.bad_rows import BadRowCollector
from dlspec.data.tables.file_texts import read_file_text
from dlspec.data.tables.table import TEXT, Column
from dlspec.data.tables.table_builder import CHUNK_CELLS, CellReader, TableChunk
from dlspec.data.tables.text_lines import TextLines
from dlspec.errors import UserError
from dlspec.formatting import first_line
from dlspec.inference.rows.input_settings import InputSettings
from dlspec.inference.rows.input_sources import InputFiles

FILE_LINE = 1  # where a text that is a whole file begins


def read_lines(lines: TextLines, column: str, max_rows: int) -> Iterator[TableChunk]:
    """Yield the lines of a file as texts. A line of nothing but spaces is an empty text, so that no row moves.

    Args:
        lines: the file
        column: the name of the column
        max_rows: the most rows of a chunk
    """
    cells, texts, numbers, size = CellReader(()), [], [], 0
    with lines.open() as stream:
        for line in stream:
            lines.take_row()
            texts.append(cells.clean(line))
            numbers.append(lines.line)
            size += len(line) // 100
            if len(texts) == max_rows or size >= CHUNK_CELLS:
                yield TableChunk({column: texts}, numbers)
                texts, numbers, size = [], [], 0
    yield TableChunk({column: texts}, numbers)


def read_text_files(
    inputs: InputFiles, settings: InputSettings, bad: BadRowCollector
) -> Iterator[tuple[int, TableChunk]]:
    """Yield each file as a row, with what the braces of the path catch; one that is not text is a bad row.

    Every file is a chunk of its own, so that its row knows its file.

    Args:
        inputs: the files
        settings: how they are read
        bad: is given the files that can't be read
    """
    encoding = str(settings.written.get("encoding") or settings.options.encoding)
    for number, file in enumerate(inputs.files):
        caught = {name: column[number : number + 1] for name, column in (inputs.caught or {}).items()}
        columns: dict[str, Column] = {**caught, "file": np.array([str(file)], TEXT)}
        try:
            if settings.text_column:
                columns[settings.text_column] = np.array([read_file_text(file, encoding)], TEXT)
        except UserError as error:
            bad.add(file, FILE_LINE, first_line(error))
            columns = {name: column[:0] for name, column in columns.items()}
        yield number, TableChunk(columns, [FILE_LINE] * len(next(iter(columns.values()))))
