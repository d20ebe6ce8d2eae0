"""The formats of prediction files. Each writes chunk by chunk, so memory does not grow with the rows."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count, islice
from typing import Any, BinaryIO, Protocol

from numpy.typing import NDArray

from dlspec.errors import UserError
from dlspec.formatting import first_line, quote_spreadsheet_formula
from dlspec.inference.output.number_formats import list_values

PROBLEM = "problem"  # the column with the reason why a row has no answer, unless there is another of that name
PredictionColumn = Sequence[Any] | NDArray[Any]
PredictionColumns = Mapping[str, PredictionColumn]
Reasons = Sequence[str | None]
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")  # its sign does not make it a formula
COPIED_ROWS = 10_000  # at once
MAX_WAITING = 64  # chunks that are held until every column has a type
MAX_WAITING_BYTES = 256 * 2**20  # of these chunks
# Who reads a Parquet file decodes a row group at once.
MAX_GROUP_ROWS = 100_000
MAX_GROUP_BYTES = 64 * 2**20  # rows may be large: a class for each pixel


class FormatWriter(Protocol):
    """Writes chunks of columns in one format."""

    @property
    def is_closed(self) -> bool:
        """Whether nobody reads the output any more."""

    def write(self, columns: PredictionColumns, reasons: Reasons | None) -> None:
        """Write some rows; `reasons` are None where all rows of this chunk have answers."""

    def close(self) -> None:
        """Write what is left; the file itself stays open."""


class JsonLinesFormat:
    """An object for each row. `problem` is a key of those rows alone that have no answer."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @property
    def is_closed(self) -> bool:
        """Whether nobody reads the output any more."""
        return getattr(self._file, "error", None) is not None

    def write(self, columns: PredictionColumns, reasons: Reasons | None) -> None:
        names = list(columns)
        rows: Iterable[dict[str, Any]] = (
            dict(zip(names, values, strict=True)) for values in zip(*map(list_values, columns.values()), strict=True)
        )
        if reasons is not None:
            rows = _add_reasons(rows, reasons, name_problem_column(columns))
        encode = _JSON.encode
        text = "".join(f"{encode(row)}\n" for row in rows)
        self._file.write(text.encode(errors="backslashreplace"))
        self._file.flush()

    def close(self) -> None:
        """Nothing is left to write."""


_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def _add_reasons(rows: Iterable[dict[str, Any]], reasons: Reasons, name: str) -> Iterator[dict[str, Any]]:
    for row, reason in zip(rows, reasons, strict=True):
        yield row if reason is None else {**row, name: reason}


def name_problem_column(columns: Iterable[str]) -> str:
    """Name the column of reasons so that it replaces no output column: `problem`, else `problem_2`, ..."""
    taken = set(columns)
    names = chain([PROBLEM], (f"{PROBLEM}_{number}" for number in count(2)))
    return next(each for each in names if each not in taken)


class DelimitedFormat:
    """CSV or TSV. Text that a spreadsheet would evaluate gets a quote before it; lists are written as JSON."""

    is_closed = False

    def __init__(self, file: BinaryIO, delimiter: str = ",") -> None:
        self._file, self._delimiter = file, delimiter
        self._names: list[str] = []
        self._has_problems = False

    def write(self, columns: PredictionColumns, reasons: Reasons | None) -> None:
        if not self._names:
            self._names = list(columns)
            self._has_problems = reasons is not None
            head = [*self._names, name_problem_column(self._names)] if self._has_problems else self._names
            self._write_rows([[quote_spreadsheet_formula(name) for name in head]])
        elif reasons is not None and not self._has_problems:
            self._add_problem_column()
        cells = [_format_cells(list_values(values)) for values in columns.values()]
        if self._has_problems:
            cells.append(_format_cells(list(reasons or [None] * len(cells[0]))))
        text = join_plain_cells(cells, self._delimiter)
        if text is None:
            self._write_rows(zip(*cells, strict=True))
        else:
            self._file.write(text.encode(errors="backslashreplace"))

    def _write_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode(errors="backslashreplace"))

    def _add_problem_column(self) -> None:
        """Write all rows so far again, with an empty cell for the problem."""
        with tempfile.TemporaryFile() as copy:
            copy_content(self._file, copy)
            copy.seek(0)
            self._file.seek(0)
            self._file.truncate()
            with io.TextIOWrapper(copy, encoding="utf-8", newline="") as lines:
                reader = csv.reader(lines, delimiter=self._delimiter)
                self._write_rows([[*next(reader), name_problem_column(self._names)]])
                for rows in _take_chunks(reader):
                    self._write_rows([*cells, ""] for cells in rows)
        self._has_problems = True

    def close(self) -> None:
        """Nothing is left to write."""


def join_plain_cells(columns: Sequence[list[Any]], delimiter: str) -> str | None:
    """Join columns as the csv module does, which takes longer; None if a cell needs quotes around it.

    Args:
        columns: the cells of each column: texts, numbers, or None
        delimiter: the character between cells
    """
    special = re.compile(f'["\\r\\n{delimiter}]')
    texts = [_list_texts(values, special) for values in columns]
    found = [each for each in texts if each is not None]
    if len(found) < max(2, len(texts)):  # a single empty cell is quoted, too
        return None
    return "".join(f"{line}\n" for line in map(delimiter.join, zip(*found, strict=True)))


def _list_texts(values: list[Any], special: re.Pattern[str]) -> list[str] | None:
    """Return the cells of a column as they are written; None if one of them needs quotes."""
    kinds = set(map(type, values))
    if kinds <= {int, float}:
        return list(map(repr, values))
    if str in kinds and special.search("".join({value for value in values if isinstance(value, str)})):
        return None
    return values if kinds == {str} else [_write_cell(value) for value in values]


def _write_cell(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else repr(value)


def copy_content(source: BinaryIO, target: BinaryIO) -> None:
    """Copy a file that was written so far into another one."""
    source.flush()
    source.seek(0)
    shutil.copyfileobj(source, target)


def _take_chunks(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    while chunk := list(islice(rows, COPIED_ROWS)):
        yield chunk


def _format_cells(values: list[Any]) -> list[Any]:
    """Format the cells of a column; numbers are left to the csv module, which writes them as `repr` does."""
    kinds = set(map(type, values))
    if kinds <= {int, float, type(None)}:
        return values
    if kinds <= {str, type(None)}:
        quoted = {value: _quote(value) for value in set(values) if value and not value[0].isalnum()}
        return [quoted.get(value, value) for value in values] if quoted else values
    return [_format_cell(value) for value in values]


def _quote(text: str) -> str:
    return text if _NUMBER.fullmatch(text) else quote_spreadsheet_formula(text)


def _format_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quote(value)
    return _JSON.encode(value) if isinstance(value, list | dict) else value


class ParquetFormat:
    """Parquet, one or more row groups a chunk. The column `problem` is always there: columns are fixed at the start."""

    is_closed = False

    def __init__(self, file: BinaryIO) -> None:
        import_pyarrow()
        self._file = file
        self._writer: Any = None
        self._waiting: list[Any] = []  # tables before the first whose columns all have a type

    def write(self, columns: PredictionColumns, reasons: Reasons | None) -> None:
        import pyarrow

        arrays = {name: self._make_array(name, values) for name, values in columns.items()}
        rows = len(next(iter(columns.values()), ()))
        arrays[name_problem_column(columns)] = pyarrow.array(list(reasons or [None] * rows), pyarrow.string())
        table = pyarrow.table(arrays)
        if self._writer is not None:
            self._write_table(table)
            return
        self._waiting.append(table)
        is_full = len(self._waiting) >= MAX_WAITING or sum(each.nbytes for each in self._waiting) > MAX_WAITING_BYTES
        if is_full or not any(pyarrow.types.is_null(each.type) for each in table.schema):
            self._start(table.schema)

    def _make_array(self, name: str, values: PredictionColumn) -> Any:
        import pyarrow

        try:
            return pyarrow.array(list_values(values))
        except (pyarrow.ArrowException, UnicodeError, OverflowError) as error:
            found = f"'{name}' can't be written as Parquet: {first_line(error)}"
            raise UserError(f"{found}; write output=FILE.jsonl") from None

    def _start(self, schema: Any) -> None:
        """Open the file with the types of a table; columns that are still empty contain text."""
        import pyarrow
        import pyarrow.parquet

        types = [(each.name, pyarrow.string() if pyarrow.types.is_null(each.type) else each.type) for each in schema]
        self._writer = pyarrow.parquet.ParquetWriter(self._file, pyarrow.schema(types))
        waiting, self._waiting = self._waiting, []
        for table in waiting:
            self._write_table(table)

    def _write_table(self, table: Any) -> None:
        import pyarrow

        assert self._writer is not None  # `_start` has opened it
        try:
            for group in _divide_table(table.cast(self._writer.schema)):
                self._writer.write_table(group)
        except (pyarrow.ArrowException, ValueError) as error:
            found = f"the rows have values of different types, which Parquet can't contain: {first_line(error)}"
            raise UserError(f"{found}; write output=FILE.jsonl") from None

    def close(self) -> None:
        if self._waiting:
            self._start(self._waiting[-1].schema)
        if self._writer is not None:
            self._writer.close()


def _divide_table(table: Any) -> Iterator[Any]:
    """Halve a table of pyarrow until each part is small enough for a row group; a single row is not divided."""
    rows = table.num_rows
    if rows <= 1 or (rows <= MAX_GROUP_ROWS and table.nbytes <= MAX_GROUP_BYTES):
        yield table
        return
    yield from _divide_table(table.slice(0, rows // 2))
    yield from _divide_table(table.slice(rows // 2))


def import_pyarrow() -> None:
    """Check that pyarrow is installed; UserError with the fix if it is not."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UserError("writing Parquet needs pyarrow: pip install 'dlspec[tables]'") from None


def _open_tsv(file: BinaryIO) -> FormatWriter:
    return DelimitedFormat(file, "\t")


FORMATS: Mapping[str, Callable[[BinaryIO], FormatWriter]] = {
    ".csv": DelimitedFormat,
    ".tsv": _open_tsv,
    ".jsonl": JsonLinesFormat,
    ".ndjson": JsonLinesFormat,
    ".parquet": ParquetFormat,
}
