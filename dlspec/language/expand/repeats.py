"""`repeat` and `if`: how often an entry stands, and with which variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlspec.errors import Code, KeyPath, shown
from dlspec.language.expressions.expressions import Unknown, Wrong
from dlspec.language.parse.deferred import is_deferred
from dlspec.language.parse.entry import Entry, read_words
from dlspec.language.parse.params import INDEX, Scope, can_name_param
from dlspec.language.parse.part import NOTHING
from dlspec.language.problems import Problems
from dlspec.limits import how_to_raise, limit

Row = Mapping[str, Any]


class TooMany(Exception):
    """More entries than a network may have."""


def known_early(value: Any, path: KeyPath, key: str, problems: Problems) -> Any:
    """The value of a key that decides what stands; one that only the built layer tells is a mistake."""
    if not is_deferred(value):
        return value
    found = f"{key} depends on $in_channels, which is known only when the layer is built"
    problems.add(Code.KNOWN_TOO_LATE, path, found, "take a param", at_value=True)
    return Wrong(key)


def stands(entry: Entry, scope: Scope) -> bool:
    """Whether the entry's `if` holds."""
    if "if" not in entry.part.keys:
        return True
    path, raw = entry.part.where("if"), entry.part.keys["if"]
    value = known_early(scope.evaluate(raw, path), path, "if", scope.problems)
    if isinstance(value, str | list | dict) or raw is None:
        found = f"if is {shown(value)}, wanted true, false or a formula"
        scope.problems.add(Code.WRONG_VALUE, path, found, "write if: $(stride != 1)", at_value=True)
    return isinstance(value, Unknown) or bool(value)


def rows_of(entry: Entry, scope: Scope) -> list[Row] | None:
    """The variables of each copy; None where there is no `repeat`."""
    if "repeat" not in entry.part.keys:
        return None
    path, problems = entry.part.where("repeat"), scope.problems
    raw = known_early(scope.evaluate(entry.part.keys["repeat"], path), path, "repeat", problems)
    if isinstance(raw, Unknown):
        return [{}]
    raw = int(raw) if isinstance(raw, str) and raw.isascii() and raw.isdigit() and len(raw) < 20 else raw
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return _times(raw, path, problems)
    rows = _table(raw, path, problems)
    if rows is None:
        fix = "write a whole number >= 0, columns {width: [64, 128]} or rows [{width: 64}, {width: 128}]"
        problems.add(Code.WRONG_VALUE, path, f"repeat is {shown(raw)}", fix, at_value=True)
        return [{name: Wrong(str(name)) for name in raw} if isinstance(raw, dict) else {}]
    _check_variables(entry, rows, path, problems)
    used = {name: Wrong(name) for row in rows for name in row if name in entry.words}
    return [{**{name: each for name, each in used.items() if name not in row}, **row} for row in rows]


def _times(count: int, path: KeyPath, problems: Problems) -> list[Row]:
    most = limit("layers")
    if count > most:
        found = f"{count:,} times, and a network may have {most:,} layers"
        problems.add(Code.TOO_LARGE, path, found, how_to_raise("layers"), at_value=True)
        raise TooMany
    return [{} for _ in range(count)]


def _table(raw: Any, path: KeyPath, problems: Problems) -> list[Row] | None:
    """Rows as they are, columns read side by side; None where it is neither."""
    if isinstance(raw, list) and all(isinstance(each, dict) for each in raw):
        return [dict(each) for each in raw]
    if not isinstance(raw, dict) or not raw or not all(isinstance(each, list) for each in raw.values()):
        return None
    lengths = {name: len(each) for name, each in raw.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in lengths.items())
        problems.add(
            Code.SHAPE_MISMATCH,
            path,
            f"columns of different lengths: {told}",
            "give each as many values",
            at_value=True,
        )
    return [dict(zip(raw, row, strict=True)) for row in zip(*raw.values(), strict=False)]


def _check_variables(entry: Entry, rows: Sequence[Row], path: KeyPath, problems: Problems) -> None:
    names = dict.fromkeys(name for row in rows for name in row)
    is_columns = isinstance(entry.part.keys["repeat"], dict)
    places = {name: (*path, name) if is_columns else cells(entry, rows[0], 0).get(name, path) for name in names}
    wrong = [name for name in names if not can_name_param(name)]
    for name in wrong:
        fix = "take a word that no function or keyword has"
        problems.add(Code.INVALID_NAME, places[name], f"{shown(name)} can't name a variable", fix)
    unused = [name for name in names if name not in entry.words and name not in wrong]
    for name in () if is_bare(entry) else unused:
        problems.add(
            Code.UNUSED, places[name], f"nothing in the entry uses '{name}'", f"write it as ${name}, or remove it"
        )
    for index, row in enumerate(rows):
        missing = [name for name in names if name not in row and name in entry.words]
        if missing:
            fix = "give each row the same names"
            problems.add(Code.MISSING_VALUE, (*path, index), f"row {index} has no '{missing[0]}'", fix, at_value=True)


def is_bare(entry: Entry) -> bool:
    """Whether an entry has no settings, so that it takes a row as its settings."""
    return entry.part.value is NOTHING and not entry.part.settings and not entry.bodies


def has_own_names(entry: Entry, rows: Sequence[Row]) -> bool:
    """Whether the name says which copy it is (`name: stage$index`), so that each is an entry of its own."""
    variables = {INDEX, *(name for row in rows for name in row)}
    return bool(read_words(entry.part.keys.get("name")) & variables)


def cells(entry: Entry, row: Row, index: int) -> dict[str, KeyPath]:
    """Where each of a copy's variables was written: in a row, or in a column."""
    path, is_rows = entry.part.where("repeat"), isinstance(entry.part.keys["repeat"], list)
    return {name: (*path, index, name) if is_rows else (*path, name, index) for name in row}
