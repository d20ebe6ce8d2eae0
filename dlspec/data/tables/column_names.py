"""Names of columns: the header of a file, or the names and patterns of the setting `header`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from unicodedata import normalize

from dlspec.errors import Code, DataError, format_value
from dlspec.formatting import format_argument

MAX_COLUMNS = 100_000
MAX_LISTED_NAMES = 40  # in a message: a longer list can't be typed
MAX_LISTED_CHARACTERS = 400  # a longer message is cut
MAX_NAME_STEP = 10  # between numbers that are names, on average: decades
MAX_NAME_DIGITS = 19  # of a number that may be a name; more are not compared
_RANGE = re.compile(r"(?P<before>.*)\[(?P<first>\d{1,9})-(?P<last>\d{1,9})\](?P<after>.*)", re.S)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORD = re.compile(r"(?!(?i:true|false|null|nan|inf)$)[A-Za-z_]\w*")  # what a command line reads as text
REST = "..."  # ends a name that takes the remaining cells of each row, as a list


def normalize_name(name: str) -> str:
    """Return a name in NFC on one line, without surrounding spaces."""
    return " ".join(normalize("NFC", name).split())


def expand_header(header: Sequence[str]) -> list[str]:
    """Replace patterns by names: `I[1-13]` by I1 to I13. A name that ends with `...` must be the last."""
    names: list[str] = []
    for each in header:
        match = _RANGE.fullmatch(each)
        names += _expand_range(match) if match else [normalize_name(each)]
        if len(names) > MAX_COLUMNS:
            raise DataError("header", f"the header has more than {MAX_COLUMNS:,} names", Code.TOO_LARGE)
    wrong = [name for name in names[:-1] if name.endswith(REST)]
    if wrong:
        raise DataError("header", f"'{wrong[0]}' takes the remaining cells, so it must be the last name")
    if not all(name.removesuffix(REST) for name in names):
        raise DataError("header", "a name in the header is empty; write a name for each column")
    return check_unique(names, "header", "the header")


def _expand_range(match: re.Match[str]) -> list[str]:
    first, last = int(match["first"]), int(match["last"])
    if last < first or last - first >= MAX_COLUMNS:
        raise DataError("header", f"'{match[0]}' must be a range such as I[1-13], of at most {MAX_COLUMNS:,} names")
    width = len(match["first"]) if match["first"].startswith("0") else 0  # x[00-99] is x00, x01, ...
    return [f"{match['before']}{number:0{width}d}{match['after']}" for number in range(first, last + 1)]


def name_columns(cells: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names in a file's header row, and those that were made for cells without a name."""
    names, made = [normalize_name(cell) for cell in cells], []
    taken = set(names)
    for at, name in enumerate(names):
        if not name:
            names[at] = _make_name(at + 1, taken)
            made.append(names[at])
    return names, made


def _make_name(number: int, taken: set[str]) -> str:
    name = f"column_{number}"
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def number_columns(count: int) -> list[str]:
    """Return the names of a file without a header: column_1, column_2, ..."""
    return [f"column_{number}" for number in range(1, count + 1)]


def check_unique(names: list[str], key: str, what: str, skip: int | None = None) -> list[str]:
    """Return the names; DataError if two are equal, with names that work.

    Args:
        names: the names of the columns
        key: the setting of `data` to report
        what: where the names are written, such as `churn.csv:1`
        skip: the lines to skip if `data.header` replaces the names, None where it can't
    """
    first: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if first.setdefault(name, number) != number:
            found = f"{what}: columns {first[name]} and {number} have the same name {format_value(name)}"
            fix = "rename one of them"
            if skip is not None:
                fix = f"{suggest_header(names, skip) or fix}, or write data.header=false if the row contains no names"
            raise DataError(key, f"{found}; {fix}", Code.NAME_TAKEN)
    return names


def suggest_header(names: Sequence[str], skip: int) -> str:
    """Return the settings to write to replace a file's header, as a shell takes them; '' if they are too long.

    Args:
        names: the names; equal ones get a number
        skip: the lines of the file to skip, with its header
    """
    unique: list[str] = []
    for name in names[: MAX_LISTED_NAMES + 1]:
        number, new = 1, name
        while new in unique:
            number += 1
            new = f"{name}_{number}"
        unique.append(new)
    is_long = len(unique) > MAX_LISTED_NAMES or sum(map(len, unique)) > MAX_LISTED_CHARACTERS
    if is_long or any(set(name) & set("\"'\\$") or not name.isprintable() for name in unique):
        return ""
    return f"write {format_argument('data.header', unique)} data.skip={skip}"


def looks_like_data(cells: Sequence[str]) -> bool:
    """Whether a first row is more likely data than names.

    All of its cells are numbers, or one has a fraction or sign, or its whole numbers do not count up as the names of
    years and pixels do.
    """
    numbers = [cell.strip() for cell in cells if _NUMBER.fullmatch(cell.strip())]
    if len(numbers) == len(cells) or not all(number.isdigit() for number in numbers):
        return True
    return bool(numbers) and not _count_up(numbers)


def _count_up(numbers: Sequence[str]) -> bool:
    """Whether numbers rise in small steps: 0, 1, 2 or 1990, 2000, 2010, but neither 39, 77516, 13 nor a single 2."""
    values = [int(number[:MAX_NAME_DIGITS]) for number in numbers]
    rises = all(one < other for one, other in pairwise(values))
    return len(values) > 1 and rises and values[-1] - values[0] <= MAX_NAME_STEP * len(values)
