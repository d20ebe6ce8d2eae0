"""`repeat` and `if`: whether an entry is present, how often, and with which variables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dlspec.errors import Code, KeyPath, format_value
from dlspec.language.expressions.expression_parsing import InvalidValue, UnknownValue
from dlspec.language.parse.deferred import is_deferred
from dlspec.language.parse.entry import Entry, find_expression_words
from dlspec.language.parse.params import INDEX, Scope, can_name_param
from dlspec.language.parse.part import NO_VALUE
from dlspec.language.problems import Problems
from dlspec.limits import explain_raising_limit, get_limit

RepeatRow = Mapping[str, Any]


class TooManyEntries(Exception):
    """The model has more entries than the limit."""


def require_not_deferred(value: Any, path: KeyPath, key: str, problems: Problems) -> Any:
    """Require that a value of a key such as `if` does not depend on `$in_channels`.

    Args:
        value: the evaluated value.
        path: the path of the key.
        key: the key.
        problems: receives a problem if the value is deferred.

    Returns:
        The value, or an `InvalidValue` if it is deferred.
    """
    if not is_deferred(value):
        return value
    found = f"{key} depends on $in_channels, which is known only when the layer is built"
    problems.add(Code.KNOWN_TOO_LATE, path, found, "use a param instead", at_value=True)
    return InvalidValue(key)


def is_entry_present(entry: Entry, scope: Scope) -> bool:
    """Whether an entry has no `if`, or one that is true."""
    if "if" not in entry.part.keys:
        return True
    path, raw = entry.part.path_of("if"), entry.part.keys["if"]
    value = require_not_deferred(scope.evaluate(raw, path), path, "if", scope.problems)
    if isinstance(value, str | list | dict) or raw is None:
        found = f"'if' expects true, false or an expression, got {format_value(value)}"
        scope.problems.add(Code.WRONG_VALUE, path, found, "write for example if: $(stride != 1)", at_value=True)
    return isinstance(value, UnknownValue) or bool(value)


def read_repeat_rows(entry: Entry, scope: Scope) -> list[RepeatRow] | None:
    """Read the variables of each copy of a repeated entry; return None without `repeat`."""
    if "repeat" not in entry.part.keys:
        return None
    path, problems = entry.part.path_of("repeat"), scope.problems
    raw = require_not_deferred(scope.evaluate(entry.part.keys["repeat"], path), path, "repeat", problems)
    if isinstance(raw, UnknownValue):
        return [{}]
    raw = int(raw) if isinstance(raw, str) and raw.isascii() and raw.isdigit() and len(raw) < 20 else raw
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return _make_empty_rows(raw, path, problems)
    rows = _read_table(raw, path, problems)
    if rows is None:
        found = f"'repeat' must be a whole number >= 0, or lists of values for variables, got {format_value(raw)}"
        fix = "write repeat: 3, repeat: {width: [64, 128]} or repeat: [{width: 64}, {width: 128}]"
        fix += "; an expression needs $( )" if isinstance(raw, str) and re.search(r"[-+*/]", raw) else ""
        problems.add(Code.WRONG_VALUE, path, found, fix, at_value=True)
        return [{name: InvalidValue(str(name)) for name in raw} if isinstance(raw, dict) else {}]
    _check_variables(entry, rows, path, problems)
    used = {name: InvalidValue(name) for row in rows for name in row if name in entry.words}
    return [{**{name: each for name, each in used.items() if name not in row}, **row} for row in rows]


def _make_empty_rows(count: int, path: KeyPath, problems: Problems) -> list[RepeatRow]:
    max_layers = get_limit("layers")
    if count > max_layers:
        found = f"repeat is {count:,}, and a network may have at most {max_layers:,} layers"
        problems.add(Code.TOO_LARGE, path, found, explain_raising_limit("layers"), at_value=True)
        raise TooManyEntries
    return [{} for _ in range(count)]


def _read_table(raw: Any, path: KeyPath, problems: Problems) -> list[RepeatRow] | None:
    """Return the rows of a table that is written as rows or as columns; None if it is neither."""
    if isinstance(raw, list) and all(isinstance(each, dict) for each in raw):
        return [dict(each) for each in raw]
    if not isinstance(raw, dict) or not raw or not all(isinstance(each, list) for each in raw.values()):
        return None
    lengths = {name: len(each) for name, each in raw.items()}
    if len(set(lengths.values())) > 1:
        description = ", ".join(f"{name} has {count}" for name, count in lengths.items())
        problems.add(
            Code.SHAPE_MISMATCH,
            path,
            f"the lists of 'repeat' have different lengths: {description}",
            "give all lists the same number of values",
            at_value=True,
        )
    return [dict(zip(raw, row, strict=True)) for row in zip(*raw.values(), strict=False)]


def _check_variables(entry: Entry, rows: Sequence[RepeatRow], path: KeyPath, problems: Problems) -> None:
    names = dict.fromkeys(name for row in rows for name in row)
    is_columns = isinstance(entry.part.keys["repeat"], dict)
    paths = {
        name: (*path, name) if is_columns else find_variable_paths(entry, rows[0], 0).get(name, path) for name in names
    }
    wrong = [name for name in names if not can_name_param(name)]
    for name in wrong:
        fix = "use letters, digits and _; names of functions and keywords are reserved"
        problems.add(Code.INVALID_NAME, paths[name], f"{format_value(name)} is not a valid name for a variable", fix)
    unused = [name for name in names if name not in entry.words and name not in wrong]
    for name in () if has_no_settings(entry) else unused:
        problems.add(
            Code.UNUSED, paths[name], f"nothing in the entry uses '{name}'", f"write it as ${name}, or remove it"
        )
    for index, row in enumerate(rows):
        missing = [name for name in names if name not in row and name in entry.words]
        if missing:
            fix = "give all rows the same names"
            problems.add(Code.MISSING_VALUE, (*path, index), f"row {index} has no '{missing[0]}'", fix, at_value=True)


def has_no_settings(entry: Entry) -> bool:
    """Whether an entry has no settings, so that each row contains the settings of one copy."""
    return entry.part.value is NO_VALUE and not entry.part.settings and not entry.bodies


def has_distinct_copy_names(entry: Entry, rows: Sequence[RepeatRow]) -> bool:
    """Whether each copy gets a different name, as in `name: stage$index`."""
    variables = {INDEX, *(name for row in rows for name in row)}
    return bool(find_expression_words(entry.part.keys.get("name")) & variables)


def find_variable_paths(entry: Entry, row: RepeatRow, index: int) -> dict[str, KeyPath]:
    """Find the path at which each variable of a copy is written, in a row or in a column.

    Args:
        entry: the repeated entry.
        row: the copy's variables.
        index: the copy's index.

    Returns:
        The paths by variable.
    """
    path, is_rows = entry.part.path_of("repeat"), isinstance(entry.part.keys["repeat"], list)
    return {name: (*path, index, name) if is_rows else (*path, name, index) for name in row}
