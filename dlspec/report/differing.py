"""What differs between specs: as columns of a table, few and telling, or every difference there is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from dlspec.errors import KeyPath, shown
from dlspec.language.problems import dotted
from dlspec.language.sections.trainer_keys import WRITING
from dlspec.report.records import Record

MOST_COLUMNS = 1_000
LONGEST_VALUE = 200
MOST_ENTRIES = 300
LEFT_OUT = {("spec_version",), ("metrics",), *(("trainer", each) for each in WRITING)}
"""What changes no result."""


class _Absent:
    """The value of a key that a spec does not have."""

    def __repr__(self) -> str:
        return ""


ABSENT = _Absent()


class Columns:
    """The settings in which runs differ, as a command line names them, and each run's values.

    Where a group's choices differ (`model=cnn`, `model=mlp`), the choice stands for all that follows from it; what
    differs between runs of one choice, and what a command line named, has columns of its own.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._chosen: set[str] = set()
        paths: dict[KeyPath, None] = {}
        for key in _union(record.spec for record in records):
            paths.update(dict.fromkeys(self._of_section(key, records)))
        self._paths = list(paths)[:MOST_COLUMNS]
        self.names = tuple(dotted(path) for path in self._paths)

    def values(self, record: Record) -> tuple[Any, ...]:
        """A number, a truth value, None or a text for each of the names."""
        if not record.spec:
            return tuple("" for _ in self._paths)
        return tuple(self._value(record, path) for path in self._paths)

    def _value(self, record: Record, path: KeyPath) -> Any:
        if len(path) == 1 and path[0] in self._chosen:
            return _choice(record, str(path[0]))
        return plain(value_at(record.spec, path))

    def _of_section(self, key: str, records: Sequence[Record]) -> Iterator[KeyPath]:
        having = [record for record in records if key in record.spec]
        if (key,) in LEFT_OUT or _are_equal([record.spec[key] for record in having]):
            return
        classes: dict[str, list[Any]] = {}
        is_group = all(isinstance(record.spec[key], dict | None) for record in having)
        for record in having:
            classes.setdefault(_choice(record, key) if is_group else "", []).append(record.spec[key])
        if len(classes) > 1:
            self._chosen.add(key)
            yield (key,)
        for sections in classes.values():
            yield from (path for path in differing(sections, (key,)) if path not in LEFT_OUT)
        if len(classes) > 1:
            yield from _overridden(key, having)


def _overridden(key: str, records: Sequence[Record]) -> Iterator[KeyPath]:
    """The settings of a group that a command line named, where their values differ across choices, too."""
    names = {each.lstrip("+~").partition("=")[0] for record in records for each in record.overrides}
    for name in sorted(each for each in names if each.startswith(f"{key}.")):
        path = tuple(int(part) if part.isdecimal() and len(part) < 9 else part for part in name.split("."))
        values = [value for record in records if (value := value_at(record.spec, path)) is not ABSENT]
        if path not in LEFT_OUT and not any(isinstance(each, dict) for each in values) and not _are_equal(values):
            yield path


def differing(values: Sequence[Any], path: KeyPath = ()) -> Iterator[KeyPath]:
    """The deepest places at which the values that have them differ; at least one where the values do."""
    if _are_equal(values):
        return
    if all(isinstance(each, dict) for each in values):
        inside = [found for key in _union(values) for found in differing(_having(values, key), (*path, key))]
    elif all(isinstance(each, list) for each in values) and _are_alike(values):
        numbered = enumerate(zip(*values, strict=True))
        inside = [found for index, items in numbered for found in differing(items, (*path, index))]
    else:
        inside = []
    yield from inside or [path]


def differences(first: Any, second: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any, Any]]:
    """Every place at which two values differ, and what each has there; `ABSENT` where it has nothing."""
    if _are_equal([first, second]):
        return
    if isinstance(first, dict) and isinstance(second, dict):
        for key in _union([first, second]):
            yield from differences(first.get(key, ABSENT), second.get(key, ABSENT), (*path, key))
    elif _are_entries(first) and _are_entries(second):
        for index, before, after in _aligned(first, second):
            yield from differences(before, after, (*path, index))
    else:
        yield path, first, second


def _aligned(first: list[Any], second: list[Any]) -> Iterator[tuple[int, Any, Any]]:
    """Two lists' entries side by side, so that one that was put in shifts no other; numbered as in the first."""
    matcher = SequenceMatcher(None, [repr(each) for each in first], [repr(each) for each in second], autojunk=False)
    for what, start, end, other_start, other_end in matcher.get_opcodes():
        if what != "equal":
            pairs = zip_longest(first[start:end], second[other_start:other_end], fillvalue=ABSENT)
            yield from ((start + index, *pair) for index, pair in enumerate(pairs))


def value_at(tree: Any, path: KeyPath) -> Any:
    """What a spec has at a place, `ABSENT` where it has nothing there."""
    for key in path:
        is_there = key in tree if isinstance(tree, dict) else isinstance(tree, list) and key in range(len(tree))
        if not is_there:
            return ABSENT
        tree = tree[key]
    return tree


def plain(value: Any) -> Any:
    """A number, a truth value or None as it is, a text, and what holds several as YAML would write it in a line."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)[:LONGEST_VALUE]
    if isinstance(value, str):
        return value[:LONGEST_VALUE]
    return "" if value is ABSENT else shown(value, LONGEST_VALUE)


def _choice(record: Record, key: str) -> str:
    """What was chosen for a group: as the overrides name it, else the part's name, '' where it has none."""
    section = record.spec.get(key)
    words = [each.lstrip("+~").partition("=") for each in record.overrides]
    named = next((value for name, _, value in reversed(words) if name == key), None)
    if named is not None and len(named) <= LONGEST_VALUE and not named.startswith(("{", "[")):
        return named
    kind = "null" if section is None else section.get("type", "")
    return kind[:LONGEST_VALUE] if isinstance(kind, str) else ""


def _are_equal(values: Sequence[Any]) -> bool:
    """Whether all are the same; True is not 1."""
    return all(each == values[0] and type(each) is type(values[0]) for each in values[1:])


def _are_entries(value: Any) -> bool:
    """A list of which some items are mappings; of a length that can be compared entry by entry."""
    return isinstance(value, list) and len(value) <= MOST_ENTRIES and any(isinstance(each, dict) for each in value)


def _are_alike(lists: Sequence[list[Any]]) -> bool:
    """Lists of one length, of which some hold mappings: their entries have numbers on a command line."""
    same = len({len(each) for each in lists}) == 1
    return same and any(isinstance(item, dict) for each in lists for item in each)


def _union(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for each in mappings for key in each))


def _having(values: Sequence[Any], key: str) -> list[Any]:
    return [each[key] for each in values if key in each]
