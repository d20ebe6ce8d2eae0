"""Read two columns of a CSV file. Every error is a `DataError` with the file and line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from dlspec.data.files.paths import expand_home
from dlspec.data.files.quoted_cells import describe_quote_problem, find_quote_problem, set_cell_limit
from dlspec.errors import Code, DataError, find_closest, suggest
from dlspec.formatting import format_argument
from dlspec.limits import GIGABYTE

CsvRow = list[str]


def read_columns(path: str | None, text: str, label: str, delimiter: str, encoding: str) -> tuple[list[str], list[str]]:
    """Read the columns of texts and labels; the file must have at least one row.

    Args:
        path: the CSV file, with a header
        text: name of the column of texts
        label: name of the column of labels
        delimiter: the character between cells
        encoding: the file's character encoding, such as utf-8

    Returns:
        The texts, and the labels without surrounding spaces.

    Raises:
        DataError: if the file or a column cannot be read.
    """
    if path is None:
        raise DataError("path", "no file is given; write data.path=FILE.csv", Code.MISSING_VALUE)
    file = _check_file(expand_home(path))
    with set_cell_limit(GIGABYTE):
        return _read_texts_and_labels(file, text, label, delimiter, encoding)


def _read_texts_and_labels(
    file: Path, text: str, label: str, delimiter: str, encoding: str
) -> tuple[list[str], list[str]]:
    rows = _read_numbered_rows(file, delimiter, encoding)
    _, header = next(rows, (1, []))
    columns = _find_column(file, header, "text", text, delimiter), _find_column(file, header, "label", label, delimiter)
    texts, labels = [], []
    for line, row in rows:
        _check_row(file, line, row, header)
        name = row[columns[1]].strip()
        if not name:
            raise DataError("label", f"{file}:{line}: the label is missing; add one or remove the row")
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
        raise DataError("path", f"'{file}' is not a file; write data.path=FILE.csv", Code.FILE_UNREADABLE)
    if file.stat().st_size > GIGABYTE:
        size = f"{file.stat().st_size / GIGABYTE:.1f} GB"
        raise DataError(
            "path", f"'{file}' has {size}, but text_csv reads at most 1 GB; use a part of it", Code.TOO_LARGE
        )
    return file


def _read_numbered_rows(file: Path, delimiter: str, encoding: str) -> Iterator[tuple[int, CsvRow]]:
    """Yield the rows that are not empty, each with the number of its last line."""
    # Spreadsheets start UTF-8 files with a byte order mark, which would become part of the first column's name.
    codec = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    line = 0
    try:
        with file.open(encoding=codec, newline="") as lines:
            recorder = _LineRecorder(lines)
            reader = csv.reader(recorder, delimiter=delimiter)
            for row in reader:
                _check_quotes(file, line + 1, recorder.take_lines(), delimiter)
                line = reader.line_num
                if row:
                    yield line, row
    except UnicodeError:
        location = f"{file}:{_find_undecodable_line(file, codec)}"
        fix = "write data.encoding=NAME: latin-1, cp1252 (Windows), utf-16"
        raise DataError("encoding", f"{location}: not valid {encoding}; {fix}", Code.FILE_UNREADABLE) from None
    except csv.Error as error:
        raise DataError("path", f"{file}:{line + 1}: {error}") from None
    except OSError as error:
        raise DataError("path", f"'{file}' can't be read: {error.strerror}", Code.FILE_UNREADABLE) from None


class _LineRecorder:
    """Iterator over a file's lines that keeps the lines of the current row."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._row_lines: list[str] = []

    def __iter__(self) -> _LineRecorder:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._row_lines.append(line)
        return line

    def take_lines(self) -> list[str]:
        """Return the lines since the last call."""
        lines, self._row_lines = self._row_lines, []
        return lines


def _check_quotes(file: Path, first_line: int, lines: list[str], delimiter: str) -> None:
    """Refuse a row with a quote that is never closed, or that only a quote of a later row closes.

    The csv module accepts both, and the rows in between become part of one cell.

    Args:
        file: the CSV file
        first_line: number of the row's first line
        lines: the lines of the row
        delimiter: the character between cells
    """
    if not any('"' in line for line in lines):
        return
    problem = find_quote_problem("".join(lines), delimiter)
    if problem is not None:
        location = f"{file}:{first_line + problem.line}"
        raise DataError("path", f"{location}: {describe_quote_problem(problem, first_line)}")


def _find_undecodable_line(file: Path, encoding: str) -> int:
    """Find the first line that is not in the encoding. Files are decoded in large pieces, so this reads it again."""
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
        raise DataError(key, f"'{file}' must have one column '{name}', got {names.count(name)}", Code.AMBIGUOUS)
    fix = suggest(name, [each for each in names if each])
    if len(names) == 1:
        other = format_argument("data.delimiter", ";" if delimiter == "," else ",")
        fix = f"there is only '{names[0]}'; if '{delimiter}' is not the delimiter, write for example {other}"
    raise DataError(key, f"'{file}' has no column '{name}'; {fix or 'it is empty'}", Code.UNKNOWN_FIELD)


def _check_row(file: Path, line: int, row: CsvRow, header: CsvRow) -> None:
    if len(row) != len(header):
        fix = "put texts that contain the delimiter in quotes" if len(row) > len(header) else "add the missing cells"
        raise DataError("path", f"{file}:{line}: {len(row)} cells, but the header has {len(header)}; {fix}")
