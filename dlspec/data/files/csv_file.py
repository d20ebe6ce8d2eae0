"""Reads two columns of a CSV file; whatever is wrong with it is a `DataError` that says where."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from dlspec.data.files.paths import expand_home
from dlspec.errors import Code, DataError, find_closest, suggest
from dlspec.limits import GIGABYTE

CsvRow = list[str]


def read_columns(path: str | None, text: str, label: str, delimiter: str, encoding: str) -> tuple[list[str], list[str]]:
    """The cells of the columns `text` and `label`, labels without spaces around them; at least one row."""
    if path is None:
        raise DataError("path", "no file is named; write data.path=FILE.csv", Code.MISSING_VALUE)
    file = _check_file(expand_home(path))
    rows = _read_numbered_rows(file, delimiter, encoding)
    _, header = next(rows, (1, []))
    columns = _find_column(file, header, "text", text, delimiter), _find_column(file, header, "label", label, delimiter)
    texts, labels = [], []
    for line, row in rows:
        _check_row(file, line, row, header)
        name = row[columns[1]].strip()
        if not name:
            raise DataError("label", f"{file}:{line}: the label is missing; write one or take the row out")
        texts.append(row[columns[0]])
        labels.append(name)
    if not texts:
        raise DataError("path", f"'{file}' has no rows below its header")
    return texts, labels


def _check_file(file: Path) -> Path:
    if not file.exists():
        guess = find_closest(file.name, (each.name for each in file.parent.iterdir())) if file.parent.is_dir() else ""
        fix = f"did you mean '{file.parent / guess}'?" if guess else "write data.path=FILE.csv"
        raise DataError("path", f"no file '{file}'; {fix}", Code.FILE_UNREADABLE)
    if not file.is_file():
        raise DataError("path", f"'{file}' is no file; a CSV file is wanted", Code.FILE_UNREADABLE)
    if file.stat().st_size > GIGABYTE:
        size = f"{file.stat().st_size / GIGABYTE:.1f} GB"
        raise DataError("path", f"'{file}' has {size}; text_csv reads at most 1 GB: take a part of it", Code.TOO_LARGE)
    return file


def _read_numbered_rows(file: Path, delimiter: str, encoding: str) -> Iterator[tuple[int, CsvRow]]:
    """Rows that are not empty, each with the number of its last line."""
    # Spreadsheets put a byte order mark in front of UTF-8, which would become part of the first column's name.
    codec = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    line = 0
    try:
        with file.open(encoding=codec, newline="") as lines:
            reader = csv.reader(lines, delimiter=delimiter)
            for row in reader:
                line = reader.line_num
                if row:
                    yield line, row
    except UnicodeError:
        location = f"{file}:{_find_undecodable_line(file, codec)}"
        fix = "write data.encoding=NAME: latin-1, cp1252 (Windows), utf-16"
        raise DataError("encoding", f"{location}: not in {encoding}; {fix}", Code.FILE_UNREADABLE) from None
    except csv.Error as error:
        raise DataError("path", f"{file}:{line + 1}: {error}; is a closing quote missing?") from None
    except OSError as error:
        raise DataError("path", f"'{file}' can't be read: {error.strerror}", Code.FILE_UNREADABLE) from None


def _find_undecodable_line(file: Path, encoding: str) -> int:
    """Where the file first is not in the encoding: it was decoded in large pieces, so read it again."""
    content = file.read_bytes()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        return content.count(b"\n", 0, error.start) + 1
    except UnicodeError:
        pass
    return 1


def _find_column(file: Path, header: CsvRow, key: str, name: str, delimiter: str) -> int:
    names = [each.strip() for each in header]
    if names.count(name) == 1:
        return names.index(name)
    if name in names:
        raise DataError(key, f"'{file}' has {names.count(name)} columns '{name}'; one is wanted", Code.AMBIGUOUS)
    fix = suggest(name, [each for each in names if each])
    if len(names) == 1:
        fix = f"there is: {names[0]} (one column only: is '{delimiter}' the delimiter? else data.delimiter=';')"
    raise DataError(key, f"'{file}' has no column '{name}'; {fix or 'it is empty'}", Code.UNKNOWN_FIELD)


def _check_row(file: Path, line: int, row: CsvRow, header: CsvRow) -> None:
    if len(row) != len(header):
        fix = "put quotes around a text that has the delimiter in it" if len(row) > len(header) else "fill it in"
        raise DataError("path", f"{file}:{line}: {len(row)} cells where the header has {len(header)}; {fix}")
