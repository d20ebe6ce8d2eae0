"""Rows of CSV and TSV files. The csv module reads them in strict mode; quotes that it misreads are refused."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import methodcaller
from pathlib import Path

from dlspec.data.files.quoted_cells import describe_quote_problem, find_quote_problem
from dlspec.data.tables.bad_rows import BadRowCollector
from dlspec.data.tables.delimiter import SAMPLE_CHARACTERS, SAMPLE_LINES, find_delimiter
from dlspec.data.tables.table import ReadOptions
from dlspec.data.tables.text_lines import MAX_CELL_CHARACTERS, TextLines
from dlspec.errors import Code, DataError

NumberedRow = tuple[int, list[str]]  # the number of its first line, and its cells


@dataclass(frozen=True)
class Dialect:
    """How the cells of a row are written."""

    delimiter: str
    quote: str | None  # None: quotes are ordinary characters
    is_found: bool  # whether the delimiter was found in the file, as the options do not name it


def choose_dialect(file: Path, options: ReadOptions) -> Dialect:
    """Return the dialect that the options name; look at the first lines of the file for what they leave open."""
    is_tsv = options.format == "tsv"
    quote = None if options.quote == "none" or (options.quote is None and is_tsv) else options.quote or '"'
    delimiter = options.delimiter or ("\t" if is_tsv else None)
    if delimiter is not None:
        return Dialect(delimiter, quote, False)
    return Dialect(find_delimiter(_read_sample(file, options), quote, file), quote, True)


def _read_sample(file: Path, options: ReadOptions) -> list[str]:
    lines, sample, size = TextLines(file, options.encoding, options.comment), [], 0
    with lines.open() as stream:
        lines.skip(stream, options.skip)
        for line in stream:
            lines.take_row()
            sample.append(line)
            size += len(line)
            if len(sample) >= SAMPLE_LINES or size > SAMPLE_CHARACTERS:
                break
    return sample


class DelimitedRows:
    """The rows of a file: one by one, or as the cells of many rows where these are simple."""

    def __init__(self, lines: TextLines, stream: Iterator[str], dialect: Dialect, bad: BadRowCollector) -> None:
        self._lines, self._dialect = lines, dialect
        self._rows = read_delimited(lines, stream, dialect, bad)

    def __iter__(self) -> DelimitedRows:
        return self

    def __next__(self) -> NumberedRow:
        return next(self._rows)

    @property
    def delimiter(self) -> str:
        """The character between cells."""
        return self._dialect.delimiter

    def take_lines(self, rows: int) -> list[str]:
        """Return the lines of the next rows if they contain nothing but cells and delimiters; [] otherwise.

        They must be returned by `TextLines.return_lines` if they can't be split.
        """
        if self.delimiter == " ":  # several of them are one
            return []
        return self._lines.take_plain_lines(rows, self._dialect.quote)

    def split_lines(self, lines: list[str], width: int) -> list[str]:
        """Return the cells of lines one after another; [] if a line does not have as many as expected.

        This is several times faster than the csv module with a step in Python for each row.

        Args:
            lines: the result of `take_lines`
            width: how many cells each of them must have, at least two
        """
        delimiter = self.delimiter
        if set(map(methodcaller("count", delimiter), lines)) != {width - 1}:
            self._lines.return_lines(lines)
            return []
        text = "".join(lines).replace("\r\n", "\n").removesuffix("\n")
        return text.replace("\n", delimiter).split(delimiter)


def read_delimited(
    lines: TextLines, stream: Iterator[str], dialect: Dialect, bad: BadRowCollector
) -> Iterator[NumberedRow]:
    """Yield the rows, each with the number of its first line; [] for lines of nothing but spaces.

    Args:
        lines: the file
        stream: its lines
        dialect: how cells are written
        bad: collects rows with text after a closing quote

    Raises:
        DataError: for a quote that is never closed, after which no row can be trusted.
    """
    quote = dialect.quote
    reader = csv.reader(
        stream,
        delimiter=dialect.delimiter,
        quotechar=quote,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        skipinitialspace=True,
        strict=True,
    )
    while True:
        try:
            for row in reader:
                raw = lines.take_row()
                first = lines.line - len(raw) + 1
                if quote is not None and quote in raw[0]:
                    _check_quotes(lines.file, first, raw, dialect)
                yield first, [] if len(row) == 1 and not raw[0].strip(" \t\r\n") else row
            return
        except csv.Error as error:
            _report_csv_error(lines, dialect, str(error), bad)


@lru_cache(maxsize=100)
def _compile_row(delimiter: str, quote: str) -> re.Pattern[str]:
    """Compile the pattern of a row in which every quote is right. One match is quicker than one for each cell."""
    mark, end = re.escape(quote), rf"[^{re.escape(delimiter)}\r\n]*+"
    cell = rf" *+(?:{mark}(?:[^{mark}]|{mark}{mark})*+{mark}|(?!{mark}){end})"
    return re.compile(rf"{cell}(?:{re.escape(delimiter)}{cell})*+[\r\n]*")


def _check_quotes(file: Path, first: int, raw: list[str], dialect: Dialect) -> None:
    text, quote = "".join(raw), dialect.quote or ""
    if _compile_row(dialect.delimiter, quote).fullmatch(text):
        return
    problem = find_quote_problem(text, dialect.delimiter, quote, strict=True)
    if problem is not None:
        location = f"{file}:{first + problem.line}"
        raise DataError("path", f"{location}: {describe_quote_problem(problem, first)}")


def _report_csv_error(lines: TextLines, dialect: Dialect, message: str, bad: BadRowCollector) -> None:
    """Note a row that the csv module refuses; DataError if the rows after it can't be trusted."""
    raw = lines.take_row()
    first = lines.line - len(raw) + 1
    problem = None
    if dialect.quote is not None:
        problem = find_quote_problem("".join(raw), dialect.delimiter, dialect.quote, strict=True)
    if problem is not None and problem.kind == "rest":
        bad.add(lines.file, first, describe_quote_problem(problem, first))
        return
    if problem is not None:
        raise DataError("path", f"{lines.file}:{first + problem.line}: {describe_quote_problem(problem, first)}")
    if sum(map(len, raw)) > MAX_CELL_CHARACTERS:
        found = f"{lines.file}:{first}: a cell has more than {MAX_CELL_CHARACTERS // 10**6} MB"
        raise DataError("path", f"{found}, the most that is read; shorten it", Code.TOO_LARGE)
    raise DataError("path", f"{lines.file}:{first}: {message}")
