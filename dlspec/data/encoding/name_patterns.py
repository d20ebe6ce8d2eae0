"""Choose columns by names and patterns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import TypeVar
from unicodedata import normalize

from dlspec.data.prepare.kinds.cells import is_number
from dlspec.errors import Code, DataError, find_closest

MAX_LISTED = 12  # columns in a message
V = TypeVar("V")


def is_pattern(name: str) -> bool:
    """Whether a name has one of the characters of patterns: `*`, `?`, `[`."""
    return any(character in name for character in "*?[")


def match_names(key: str, patterns: Iterable[str], columns: Sequence[str]) -> list[str]:
    """List the columns that names and patterns choose, in the order of the table.

    Args:
        key: the setting of `data` that contains the names, for messages
        patterns: names, which must exist, and patterns such as `I*`, which must match a column
        columns: the names of the table's columns

    Raises:
        DataError: if a name or pattern chooses nothing.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        found = match_one(pattern, columns)
        if not found:
            raise make_unknown_column_error(key, pattern, columns)
        chosen.update(found)
    return [name for name in columns if name in chosen]


def match_one(pattern: str, columns: Sequence[str]) -> list[str]:
    """List the columns that one name or pattern chooses; a column of exactly this name wins over the pattern."""
    pattern = normalize("NFC", pattern)
    if pattern in columns or not is_pattern(pattern):
        return [pattern] if pattern in columns else []
    return [name for name in columns if fnmatchcase(name, pattern)]


def make_unknown_column_error(key: str, name: str, columns: Iterable[str]) -> DataError:
    """Make the error for a name or pattern that no column has.

    Args:
        key: the setting of `data` that contains it
        name: the name or pattern
        columns: the names of the table's columns
    """
    names = list(columns)
    guess = find_closest(name, sorted(names))
    more = f" and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else ""
    fix = f"did you mean '{guess}'?" if guess else f"available: {', '.join(names[:MAX_LISTED])}{more}"
    if is_pattern(name):
        return DataError(key, f"no column matches '{name}'; {fix}", Code.NO_MATCH)
    if _look_like_data(names):
        fix += "; the first row looks like data: if the file has no header, write data.header=false"
    return DataError(key, f"no column '{name}'; {fix}", Code.UNKNOWN_FIELD)


def _look_like_data(names: Sequence[str]) -> bool:
    """Whether at least half of the names are numbers that do not just count up, as those of years do."""
    numbers = [float(name) for name in names if is_number(name)]
    rises_by_one = all(later - earlier == 1 for earlier, later in pairwise(numbers))
    counts_up = rises_by_one and bool(numbers) and numbers[0].is_integer()
    return bool(numbers) and 2 * len(numbers) >= len(names) and not counts_up


def assign_by_name(key: str, settings: Mapping[str, V], columns: Sequence[str]) -> dict[str, V]:
    """Assign settings to columns: an exact name wins, then the last pattern that matches.

    Args:
        key: the setting of `data` that contains the names, for messages
        settings: by name or pattern
        columns: the names of the table's columns
    """
    assigned: dict[str, V] = {}
    exact = {normalize("NFC", name) for name in settings if not is_pattern(name) or name in columns}
    for pattern, setting in settings.items():
        found = match_one(pattern, columns)
        if not found:
            raise make_unknown_column_error(key, pattern, columns)
        assigned |= {name: setting for name in found if name not in exact or name == normalize("NFC", pattern)}
    return assigned
