"""Find the differences between specs: the few that identify runs in a table, or all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from dlspec.errors import KeyPath, format_value
from dlspec.language.problems import format_path
from dlspec.language.sections.trainer_keys import OUTPUT_KEYS
from dlspec.report.records import RunRecord

MAX_COLUMNS = 1_000
MAX_VALUE_LENGTH = 200
MAX_ENTRIES = 300
# Settings that do not change any results.
IGNORED_PATHS = {("spec_version",), ("metrics",), *(("trainer", each) for each in OUTPUT_KEYS)}


class _Absent:
    """The value of a key that a spec does not have."""

    def __repr__(self) -> str:
        return ""


ABSENT = _Absent()


class SettingColumns:
    """The settings in which runs differ, named as on the command line, with the values of each run.

    If runs choose different options of a config group (`model=cnn`, `model=mlp`), one column shows the choice instead
    of every setting that follows from it. Settings that differ between runs of one choice, or that were overridden on
    the command line, also get columns.
    """

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self._groups_with_choices: set[str] = set()
        paths: dict[KeyPath, None] = {}
        for key in _list_all_keys(record.spec for record in records):
            paths.update(dict.fromkeys(self._find_section_paths(key, records)))
        self._paths = list(paths)[:MAX_COLUMNS]
        self.names = tuple(format_path(path) for path in self._paths)

    def values(self, record: RunRecord) -> tuple[Any, ...]:
        """Return the run's value for each of the names: a number, bool, None or string; "" if its spec lacks it."""
        if not record.spec:
            return tuple("" for _ in self._paths)
        return tuple(self._value(record, path) for path in self._paths)

    def _value(self, record: RunRecord, path: KeyPath) -> Any:
        if len(path) == 1 and path[0] in self._groups_with_choices:
            return _find_group_choice(record, str(path[0]))
        return to_table_value(get_value_at(record.spec, path))

    def _find_section_paths(self, key: str, records: Sequence[RunRecord]) -> Iterator[KeyPath]:
        records_with_key = [record for record in records if key in record.spec]
        if (key,) in IGNORED_PATHS or _are_equal([record.spec[key] for record in records_with_key]):
            return
        sections_by_choice: dict[str, list[Any]] = {}
        is_group = all(isinstance(record.spec[key], dict | None) for record in records_with_key)
        for record in records_with_key:
            sections_by_choice.setdefault(_find_group_choice(record, key) if is_group else "", []).append(
                record.spec[key]
            )
        if len(sections_by_choice) > 1:
            self._groups_with_choices.add(key)
            yield (key,)
        for sections in sections_by_choice.values():
            yield from (path for path in find_differing_paths(sections, (key,)) if path not in IGNORED_PATHS)
        if len(sections_by_choice) > 1:
            yield from _find_overridden_paths(key, records_with_key)


def _find_overridden_paths(key: str, records: Sequence[RunRecord]) -> Iterator[KeyPath]:
    """Yield the settings of a group that were overridden on a command line, if their values differ between runs."""
    names = {each.lstrip("+~").partition("=")[0] for record in records for each in record.overrides}
    for name in sorted(each for each in names if each.startswith(f"{key}.")):
        path = tuple(int(part) if part.isdecimal() and len(part) < 9 else part for part in name.split("."))
        values = [value for record in records if (value := get_value_at(record.spec, path)) is not ABSENT]
        if path not in IGNORED_PATHS and not any(isinstance(each, dict) for each in values) and not _are_equal(values):
            yield path


def find_differing_paths(values: Sequence[Any], path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the deepest paths at which values differ, ignoring values without the path.

    If the values differ, at least one path is found.
    """
    if _are_equal(values):
        return
    if all(isinstance(each, dict) for each in values):
        inside = [
            found
            for key in _list_all_keys(values)
            for found in find_differing_paths(_list_values_of(values, key), (*path, key))
        ]
    elif all(isinstance(each, list) for each in values) and _have_matching_entries(values):
        numbered = enumerate(zip(*values, strict=True))
        inside = [found for index, items in numbered for found in find_differing_paths(items, (*path, index))]
    else:
        inside = []
    yield from inside or [path]


def find_differences(first: Any, second: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any, Any]]:
    """Yield every difference between two values.

    Args:
        first: a spec, or a part of one
        second: the spec to compare with
        path: key path of both values, for the result

    Returns:
        An iterator over (path, value in `first`, value in `second`), with `ABSENT` for a missing value.
    """
    if _are_equal([first, second]):
        return
    if isinstance(first, dict) and isinstance(second, dict):
        for key in _list_all_keys([first, second]):
            yield from find_differences(first.get(key, ABSENT), second.get(key, ABSENT), (*path, key))
    elif _are_entries(first) and _are_entries(second):
        for index, before, after in _align_entries(first, second):
            yield from find_differences(before, after, (*path, index))
    else:
        yield path, first, second


def _align_entries(first: list[Any], second: list[Any]) -> Iterator[tuple[int, Any, Any]]:
    """Yield the entries in which two lists differ, in pairs and numbered as in the first list.

    An inserted entry does not shift the entries after it.
    """
    matcher = SequenceMatcher(None, [repr(each) for each in first], [repr(each) for each in second], autojunk=False)
    for operation, start, end, other_start, other_end in matcher.get_opcodes():
        if operation != "equal":
            pairs = zip_longest(first[start:end], second[other_start:other_end], fillvalue=ABSENT)
            yield from ((start + index, *pair) for index, pair in enumerate(pairs))


def get_value_at(tree: Any, path: KeyPath) -> Any:
    """Return the value of a spec at a key path; `ABSENT` if there is none."""
    for key in path:
        is_there = key in tree if isinstance(tree, dict) else isinstance(tree, list) and key in range(len(tree))
        if not is_there:
            return ABSENT
        tree = tree[key]
    return tree


def to_table_value(value: Any) -> Any:
    """Convert a value for a table: numbers, bools, None and strings are kept, lists and mappings become YAML."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)[:MAX_VALUE_LENGTH]
    if isinstance(value, str):
        return value[:MAX_VALUE_LENGTH]
    return "" if value is ABSENT else format_value(value, MAX_VALUE_LENGTH)


def _find_group_choice(record: RunRecord, key: str) -> str:
    """Find the option chosen for a config group: from the overrides, or else the part's name, or ""."""
    section = record.spec.get(key)
    overrides = [each.lstrip("+~").partition("=") for each in record.overrides]
    named = next((value for name, _, value in reversed(overrides) if name == key), None)
    if named is not None and len(named) <= MAX_VALUE_LENGTH and not named.startswith(("{", "[")):
        return named
    kind = "null" if section is None else section.get("type", "")
    return kind[:MAX_VALUE_LENGTH] if isinstance(kind, str) else ""


def _are_equal(values: Sequence[Any]) -> bool:
    """Whether all values are equal and of one type; True is different from 1."""
    return all(each == values[0] and type(each) is type(values[0]) for each in values[1:])


def _are_entries(value: Any) -> bool:
    """Whether a value is a list with mappings in it, and short enough to compare entry by entry."""
    return isinstance(value, list) and len(value) <= MAX_ENTRIES and any(isinstance(each, dict) for each in value)


def _have_matching_entries(lists: Sequence[list[Any]]) -> bool:
    """Whether lists have one length and contain mappings, so that their entries are numbered on a command line."""
    have_one_length = len({len(each) for each in lists}) == 1
    return have_one_length and any(isinstance(item, dict) for each in lists for item in each)


def _list_all_keys(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for each in mappings for key in each))


def _list_values_of(values: Sequence[Any], key: str) -> list[Any]:
    return [each[key] for each in values if key in each]
