"""The content of text files as a column, for `type: files`."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import numpy as np

from dlspec.data.tables.input_files import check_regular_file
from dlspec.data.tables.table import TEXT, Table
from dlspec.data.tables.text_lines import MAX_CELL_CHARACTERS, TextLines
from dlspec.errors import Code, DataError
from dlspec.limits import GIGABYTE, MAX_DATA_BYTES

TEXT_COLUMN = "text"


def read_file_texts(table: Table, encoding: str = "utf-8") -> Table:
    """Add the column `text`, with the content of each row's file, in NFC and without surrounding spaces.

    Raises:
        DataError: if a file is not text, or too large.
    """
    texts: list[str] = []
    remaining = MAX_DATA_BYTES
    for at in table.file_of_row.tolist():
        texts.append(read_file_text(Path(table.files[at]), encoding))
        remaining -= len(texts[-1])
        if remaining < 0:
            found = f"the files contain more than {MAX_DATA_BYTES // GIGABYTE} GB of text"
            raise DataError("path", f"{found}; use a part of them", Code.TOO_LARGE)
    return table.with_column(TEXT_COLUMN, np.array(texts, dtype=TEXT))


def read_file_text(file: Path, encoding: str = "utf-8") -> str:
    """Read the text of one file; DataError if it is not text, or too long for a cell."""
    lines, parts, size = TextLines(check_regular_file(file), encoding), [], 0
    with lines.open() as stream:
        for line in stream:
            lines.take_row()
            parts.append(line)
            size += len(line)
            if size > MAX_CELL_CHARACTERS:
                found = f"'{file}' has more than {MAX_CELL_CHARACTERS // 10**6} MB of text"
                raise DataError("path", f"{found}, the most of a cell; split it", Code.TOO_LARGE)
    return normalize("NFC", "".join(parts).replace("\r\n", "\n").strip())
