"""Summarize many names of tensors by few patterns that match exactly these names."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

MAX_NAMES = 4  # names that are shown as they are
MAX_SHOWN = 12  # patterns in one message; of the others only the first part of their names is shown
_PATTERN_CHARACTERS = re.compile(r"[*?\[\]]")
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")  # a whole part of a name: the 3 of `blocks.3.fc`


@dataclass(frozen=True)
class NamePattern:
    """A pattern, as fnmatch reads it, and the names that it matches."""

    pattern: str
    names: tuple[str, ...]


def find_patterns(names: Sequence[str], others: Iterable[str]) -> list[NamePattern]:
    """Find few patterns that match all of some names, and none of the others.

    Args:
        names: The names, without duplicates.
        others: Names that no pattern may match. Names that are patterns themselves are never summarized.
    """
    others = list(others)
    if any(map(_PATTERN_CHARACTERS.search, names)):
        return [NamePattern(each, (each,)) for each in names]
    return _join_copies(_join_by_prefix(names, others), others)


def replace_numbers(name: str) -> str:
    """Replace the numbers of copies by `*`: `blocks.3.fc.weight` becomes `blocks.*.fc.weight`."""
    return _NUMBER.sub("*", name)


def list_numbers(name: str) -> list[str]:
    """List the numbers of copies in a name, in order."""
    return _NUMBER.findall(name)


def format_patterns(patterns: Sequence[NamePattern]) -> str:
    """Format patterns with the number of names of each: `head.bias, blocks.*.norm.* (8)`. Few names are listed."""
    names = [name for each in patterns for name in each.names]
    if len(names) <= MAX_NAMES:
        return ", ".join(names)
    shown = [_format_pattern(each) for each in patterns[:MAX_SHOWN]]
    return ", ".join([*shown, *format_rest([name for each in patterns[MAX_SHOWN:] for name in each.names])])


def format_rest(names: Sequence[str]) -> Iterator[str]:
    """Say how many more names there are below each first part: `24 more in layers.*`."""
    counts: dict[str, int] = {}
    for name in names:
        first, dot, _ = name.partition(".")
        counts[first + ".*" if dot else first] = counts.get(first + ".*" if dot else first, 0) + 1
    yield from (f"{count} more in {prefix}" for prefix, count in counts.items())


def _format_pattern(each: NamePattern) -> str:
    return f"{each.pattern} ({len(each.names)})" if len(each.names) > 1 else each.pattern


def _join_by_prefix(names: Sequence[str], others: Iterable[str]) -> list[NamePattern]:
    """Join the names below the shortest prefix that no other name has."""
    taken = {prefix for each in others for prefix in _list_prefixes(each)}
    by_prefix: dict[str, list[str]] = {}
    for name in names:
        prefix = next((each for each in _list_prefixes(name) if each not in taken), name)
        by_prefix.setdefault(prefix, []).append(name)
    return [NamePattern(f"{prefix}*" if len(each) > 1 else each[0], tuple(each)) for prefix, each in by_prefix.items()]


def _list_prefixes(name: str) -> list[str]:
    """List the prefixes of a name, the shortest first: `blocks.` and `blocks.3.` of `blocks.3.weight`."""
    return [name[: found.end()] for found in re.finditer(r"\.", name)]


def _join_copies(patterns: Sequence[NamePattern], others: Sequence[str]) -> list[NamePattern]:
    """Join patterns that differ only in numbers, where the joined one matches no other name."""
    by_form: dict[str, list[NamePattern]] = {}
    for each in patterns:
        by_form.setdefault(replace_numbers(each.pattern), []).append(each)
    joined: list[NamePattern] = []
    for form, group in by_form.items():
        if len(group) > 1 and not fnmatch.filter(others, form):
            joined.append(NamePattern(form, tuple(name for each in group for name in each.names)))
        else:
            joined += group
    return joined
