"""What an entry takes: `from`, `_`, and the outputs that a `Formula` names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlspec.errors import Code, KeyPath
from dlspec.language.expand.output_names import BEFORE, WRONG, Level, Names, Output
from dlspec.language.expand.repeats import known_early
from dlspec.language.expressions.expressions import ExpressionError, Unknown, formula_of
from dlspec.language.expressions.formula import parse_formula
from dlspec.language.expressions.formula_tree import names_in
from dlspec.language.parse.entry import Entry
from dlspec.language.parse.params import Scope
from dlspec.language.parse.part import NOTHING, Part

Inputs = Mapping[int | str, Output]
"""By their position, or by the argument's name."""
FORMULA, PARAMETER = "Formula", "Parameter"


def inputs_of(entry: Entry, scope: Scope, level: Level, names: Names, *, is_first: bool) -> Inputs:
    """The entry's inputs, `WRONG` among them where one is a mistake.

    Of a repeated entry's copies the first one (`is_first`) reads `from`; the others do where `_` stands in it.
    """
    part, names.reader = entry.part, entry.path
    if part.type == PARAMETER:
        return _no_inputs(part, scope)
    if part.type == FORMULA:
        return formula_inputs(part, scope, level, names)
    if "from" not in part.keys or (not is_first and BEFORE not in heads(_computed(part, scope))):
        found: dict[int | str, list[Output]] = {0: names.find(BEFORE, level, entry.path, at_value=False)}
    else:
        found = _from(part, scope, level, names)
    if all(isinstance(key, int) for key in found):
        return dict(enumerate(each for group in found.values() for each in group))
    for key in (key for key, group in found.items() if len(group) > 1):
        where = (*part.where("from"), key)
        scope.problems.add(
            Code.AMBIGUOUS, where, f"{len(found[key])} outputs for one input", "name one copy", at_value=True
        )
    return {key: group[0] for key, group in found.items()}


def _computed(part: Part, scope: Scope) -> Any:
    """A `from` with its params put in."""
    raw, path = part.keys["from"], part.where("from")
    raw = scope.evaluate(raw, path) if isinstance(raw, str) and formula_of(raw) is not None else raw
    if isinstance(raw, list):
        return [scope.text(each, (*path, index)) for index, each in enumerate(raw)]
    if isinstance(raw, dict):
        return {key: scope.text(each, (*path, key)) for key, each in raw.items()}
    return scope.text(raw, path)


def mark_inputs(entry: Entry, level: Level, names: Names) -> None:
    """What an entry that does not stand would have taken is no mistake for that."""
    wanted = heads(entry.part.keys.get("from", BEFORE))
    if entry.type == FORMULA or any("$" in each for each in wanted):
        wanted |= set(level.all_names())  # it may have named any of them
    for name in wanted:
        names.mark(name, level)


def heads(raw: Any) -> set[str]:
    """The names that a `from` begins with."""
    texts = raw if isinstance(raw, list) else raw.values() if isinstance(raw, dict) else [raw]
    return {str(each).split(".")[0] for each in texts}


def _no_inputs(part: Part, scope: Scope) -> Inputs:
    if "from" in part.keys:
        fix = "bring it in by Add, Multiply, Concat or Formula"
        scope.problems.add(Code.INPUT_COUNT, part.where("from"), "a Parameter takes no input", fix)
    return {}


def _from(part: Part, scope: Scope, level: Level, names: Names) -> dict[int | str, list[Output]]:
    path, raw = part.where("from"), part.keys["from"]
    raw = scope.evaluate(raw, path) if isinstance(raw, str) and formula_of(raw) is not None else raw
    raw = known_early(raw, path, "from", scope.problems)
    if isinstance(raw, Unknown):
        return {0: [WRONG]}
    items: dict[int | str, tuple[Any, KeyPath]] = {0: (raw, path)}
    if isinstance(raw, list):
        items = {index: (each, (*path, index)) for index, each in enumerate(raw)}
    elif isinstance(raw, dict):
        items = {str(name): (each, (*path, name)) for name, each in raw.items()}
    if not items:
        scope.problems.add(
            Code.MISSING_NAME, path, "from names nothing", "write a name, or leave it out", at_value=True
        )
        return {0: [WRONG]}
    return {key: _named(each, scope, level, where, names) for key, (each, where) in items.items()}


def _named(text: Any, scope: Scope, level: Level, path: KeyPath, names: Names) -> list[Output]:
    name = known_early(scope.text(text, path), path, "from", scope.problems)
    return [WRONG] if isinstance(name, Unknown) else names.find(name, level, path)


# ---- Formula -------------------------------------------------------------------------------------------------------


def formula_inputs(part: Part, scope: Scope, level: Level, names: Names) -> Inputs:
    """The outputs that a formula names, in the order in which it names them; `from` says what its `_` is."""
    text, path = formula_text(part, scope)
    if "from" in part.keys:
        found = [each for group in _from(part, scope, level, names).values() for each in group]
        if len(found) != 1:
            fix = "remove it: a name in the formula takes the output of that name"
            scope.problems.add(
                Code.INPUT_COUNT, part.where("from"), "from says what a formula's _ is, which is one output", fix
            )
        level = Level(level, found[0])
    return dict(enumerate(names.find(name, level, path)[0] for name in _names_in(text, path, scope)))


def _names_in(text: Any, path: KeyPath, scope: Scope) -> tuple[str, ...]:
    """The names in a formula, none where it is wrong."""
    if not isinstance(text, str):
        if not isinstance(text, Unknown):
            scope.problems.add(
                Code.WRONG_TYPE, path, "Formula wants a formula", "write it behind the name: Formula: _ * 2"
            )
        return ()
    try:
        names = names_in(parse_formula(text))
    except ExpressionError as error:
        scope.problems.add_finding(path, error.finding, at_value=True)
        return ()
    if not names:
        scope.problems.add(
            Code.INPUT_COUNT,
            path,
            "the formula takes no output",
            "name one: _ is the output just before",
            at_value=True,
        )
    return names


def formula_text(part: Part, scope: Scope) -> tuple[Any, KeyPath]:
    """A `Formula`'s text with its params put in, and its place."""
    if part.value is not NOTHING:
        return scope.text(part.value, part.settings_path, bracket=True), part.settings_path
    path = part.where("formula")
    return scope.text(part.settings.get("formula"), path, bracket=True), path
