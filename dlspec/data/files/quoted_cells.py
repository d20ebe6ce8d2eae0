"""Quotes around the cells of delimited text: find those that never close, which the csv module accepts."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Literal


@dataclass(frozen=True)
class QuoteProblem:
    """A cell whose quotes are wrong."""

    # open: never closed; split: text follows the closing quote, which is in a later line; rest: the same in one line
    kind: Literal["open", "split", "rest"]
    line: int  # where the cell starts, from 0 within the row
    last_line: int  # where its closing quote is, from 0 within the row
    cell: int  # number of the cell, from 1


@lru_cache(maxsize=100)
def _compile_cell(delimiter: str, quote: str, strict: bool) -> re.Pattern[str]:
    unquoted = rf"[^{re.escape(delimiter)}\r\n]*"
    mark = re.escape(quote)
    quoted = rf"{' *' if strict else ''}(?:(?P<quoted>{mark}(?:[^{mark}]|{mark}{mark})*+{mark})(?P<rest>{unquoted})"
    return re.compile(rf"{quoted}|(?P<open>{mark}))|{unquoted}")


def find_quote_problem(text: str, delimiter: str, quote: str = '"', strict: bool = False) -> QuoteProblem | None:
    """Find the first cell with a quote that is never closed, or that only a quote of a later row closes.

    The csv module accepts both, and the rows in between become part of one cell.

    Args:
        text: the lines that the csv module read as one row
        delimiter: the character between cells
        quote: the character around cells
        strict: whether text after a closing quote is a problem in any line, and spaces before a quote are left out

    Returns:
        The problem, or None.
    """
    pattern, start, number = _compile_cell(delimiter, quote, strict), 0, 1
    while start < len(text) and (cell := pattern.match(text, start)):
        is_split = bool(cell["rest"]) and count_line_breaks(cell["quoted"]) > 0
        if cell["open"] or is_split or (strict and cell["rest"]):
            line = count_line_breaks(text[:start])
            kind: Literal["open", "split", "rest"] = "open" if cell["open"] else "split" if is_split else "rest"
            return QuoteProblem(kind, line, line + count_line_breaks(cell[0]), number)
        start, number = cell.end() + 1, number + 1
    return None


def describe_quote_problem(problem: QuoteProblem, first_line: int) -> str:
    """Return what is wrong and the fix, for a row that starts in line `first_line`."""
    if problem.kind == "rest":
        return f"cell {problem.cell} has text after its closing quote; write each quote inside of a cell twice"
    found = "the cell that this line opens with a quote "
    if problem.kind == "split":
        found += f"has text after the closing quote in line {first_line + problem.last_line}"
    else:
        found += "is never closed"
    return f"{found}; close it with a quote, and write each quote inside of it twice"


def count_line_breaks(text: str) -> int:
    """Count line ends of any system: LF, CR LF or CR."""
    return len(re.findall(r"\r\n|\r|\n", text))


_LOCK = Lock()
_LIMITS: list[int] = []  # of all readers that are open, after the limit that was there before them


@contextmanager
def set_cell_limit(characters: int) -> Iterator[None]:
    """Raise the csv module's limit of 131,072 characters per cell, which holds for the whole process.

    Readers may be open at the same time, in several threads: the largest of their limits holds.
    """
    with _LOCK:
        _LIMITS.extend([characters] if _LIMITS else [csv.field_size_limit(), characters])
        csv.field_size_limit(max(_LIMITS[1:]))
    try:
        yield
    finally:
        with _LOCK:
            del _LIMITS[_LIMITS.index(characters, 1)]
            csv.field_size_limit(max(_LIMITS[1:], default=_LIMITS[0]))
            if len(_LIMITS) == 1:
                _LIMITS.clear()
