"""Read cells as text or numbers: formats of numbers, marks around them, missing and unreadable cells."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from operator import is_
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from dlspec.data.tables.column_use import parse_plain_numbers

Cells = list[str | None]  # None is a missing cell
Floats = NDArray[np.float64]

MAX_NUMBER = float(np.finfo(np.float32).max)
NO_BREAK_SPACES = re.compile("[\u00a0\u202f]")  # spaces that do not break a line, which separate thousands too


@dataclass(frozen=True)
class CellFormat:
    """How numbers are written in a file."""

    decimal: str = "."
    thousands: str | None = None  # the character between groups of three digits; None if there is none


PLAIN = CellFormat()


@dataclass(frozen=True)
class NumberCells:
    """A column read as numbers."""

    values: Floats  # (N,), NaN where the cell is missing or wrong
    missing: NDArray[np.bool_]  # (N,)
    wrong: Mapping[int, str]  # the cells that are not numbers, by row


def list_cells(column: NDArray[Any]) -> Cells:
    """List a column's cells as text. Whole numbers lose their `.0`; None, NaN and empty Python strings are missing."""
    if column.dtype.kind == "T":
        cells: Cells = column.tolist()
        return cells
    if column.dtype.kind == "M":
        column = column.astype("datetime64[us]")  # nanoseconds become integers in Python
    return [_format_cell(cell) for cell in column.tolist()]


def _is_missing(cell: object) -> bool:
    return (
        cell is None or (isinstance(cell, float) and math.isnan(cell)) or (isinstance(cell, str) and not cell.strip())
    )


def _format_cell(cell: object) -> str | None:
    if _is_missing(cell):
        return None
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return str(int(cell))
    return normalize("NFC", str(cell).strip())


def find_missing(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which cells of a column are missing, (N,)."""
    if column.dtype.kind in "biu":
        return np.zeros(len(column), bool)
    if column.dtype.kind == "f":
        return np.asarray(np.isnan(column))
    if column.dtype.kind == "T":
        missing = ~column.astype(np.bool_)  # empty or missing: twenty times as fast as to compare each cell
        missing[missing] = [cell is None for cell in column[missing].tolist()]
        return missing
    return np.fromiter(map(_is_missing, column.tolist()), bool, len(column))


def find_missing_cells(cells: Sequence[str | None]) -> NDArray[np.bool_]:
    """Return which of the cells are None, (N,)."""
    return np.fromiter(map(is_, cells, repeat(None)), bool, len(cells))


def read_numbers(column: NDArray[Any], read: CellFormat = PLAIN, strip: str = "") -> NumberCells:
    """Read a column as numbers.

    Args:
        column: the cells (N,), as text or already as numbers
        read: how the file writes numbers
        strip: characters to remove around numbers, such as `$%`

    Returns:
        The numbers, and which cells are missing or wrong. Numbers beyond float32, which networks use, are wrong.
    """
    if column.dtype.kind in "biuf":
        values, missing = column.astype(np.float64), find_missing(column)
    else:
        cells = list_cells(column)
        filled = [cell for cell in cells if cell is not None]
        missing, values = np.zeros(len(cells), bool), np.full(len(cells), np.nan)
        if len(filled) < len(cells):
            missing = find_missing_cells(cells)
        values[~missing] = _parse_numbers(filled, read, strip)
    finite = np.abs(values) <= MAX_NUMBER
    wrong = {row: str(column[row]) for row in np.flatnonzero(~finite & ~missing).tolist()}
    return NumberCells(np.where(finite, values, np.nan), missing, wrong)


def _parse_numbers(cells: Sequence[str], read: CellFormat, strip: str) -> Floats:
    """Parse filled cells; NaN for one that is not a number."""
    plain = parse_plain_numbers(cells) if not strip and read == PLAIN else None
    if plain is not None:
        return plain
    pattern = _compile_pattern(read, is_strict=False)
    return np.fromiter((_parse_number(cell, pattern, read, strip) for cell in cells), np.float64, len(cells))


def _parse_number(cell: str, pattern: re.Pattern[str], read: CellFormat, strip: str) -> float:
    text = strip_marks(cell, strip)
    text = NO_BREAK_SPACES.sub(" ", text) if read.thousands == " " else text
    if not pattern.fullmatch(text):
        return np.nan
    plain = text.replace(read.thousands, "") if read.thousands else text
    return float(plain.replace(read.decimal, "."))


def strip_marks(cell: str, marks: str) -> str:
    """Remove marks at both ends, also after a sign: `-$5` is -5."""
    sign = cell[:1] if cell[:1] in ("+", "-") else ""
    return sign + cell[len(sign) :].strip(marks + " \u00a0\u202f")


def is_number(cell: str, read: CellFormat = PLAIN) -> bool:
    """Whether a cell is a number beyond doubt: no leading zero as in `01234`, at most two digits of exponent."""
    return make_number_test(read)(cell)


def make_number_test(read: CellFormat) -> Callable[[str], bool]:
    """Return `is_number` for one format: quicker for many cells."""
    matches = _compile_pattern(read, is_strict=True).fullmatch
    if read.thousands == " ":
        return lambda cell: matches(NO_BREAK_SPACES.sub(" ", cell)) is not None
    return lambda cell: matches(cell) is not None


def are_all_numbers(cells: Sequence[str], read: CellFormat) -> bool:
    """Whether all cells are numbers beyond doubt, as `is_number` says of one: by one match of all cells joined."""
    joined = "\n".join(cells)
    if joined.count("\n") != len(cells) - 1 or read.thousands == " ":
        return all(map(make_number_test(read), cells))
    return _compile_lines(read).fullmatch(joined) is not None


@lru_cache(maxsize=64)
def _compile_lines(read: CellFormat) -> re.Pattern[str]:
    """Compile the pattern of lines that are all numbers beyond doubt."""
    line = f"(?>{_compile_pattern(read, is_strict=True).pattern})"  # atomic: a match of one line is never shortened
    return re.compile(f"{line}(?:\n{line})*+")


@lru_cache(maxsize=64)
def _compile_pattern(read: CellFormat, is_strict: bool) -> re.Pattern[str]:
    """Compile the pattern of a number in ASCII digits, with groups of three digits where there is a separator."""
    point = re.escape(read.decimal)
    whole = r"(?:0|[1-9][0-9]*)" if is_strict else "[0-9]+"
    if read.thousands:
        first = "[1-9][0-9]{0,2}" if is_strict else "[0-9]{1,3}"
        whole = f"(?:{first}(?:{re.escape(read.thousands)}[0-9]{{3}})+|{whole})"
    digits = "{1,2}" if is_strict else "+"
    return re.compile(rf"[+-]?(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]{digits})?")


def list_lists(column: NDArray[Any]) -> list[list[Any] | None]:
    """List a column's cells as lists; text is split at spaces, and None or NaN is missing."""
    if column.ndim > 1:
        rows: list[list[Any] | None] = column.tolist()
        return rows
    return [_split_cell(cell) for cell in column.tolist()]


def _split_cell(cell: object) -> list[Any] | None:
    if isinstance(cell, np.ndarray):
        return list(cell.tolist())
    if isinstance(cell, list | tuple):
        return list(cell)
    return None if _is_missing(cell) else str(cell).split()
