"""What an entry takes: `from`, `_`, and the outputs that a `Formula` names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlspec.errors import Code, KeyPath
from dlspec.language.expand.output_names import INVALID_OUTPUT, PREVIOUS, EntryOutput, NameLevel, NameLookup
from dlspec.language.expand.repeat_rows import require_known_early
from dlspec.language.expressions.evaluator import ExpressionError, UnknownValue, extract_expression
from dlspec.language.expressions.formula import parse_formula
from dlspec.language.expressions.formula_tree import find_output_names
from dlspec.language.parse.entry import Entry
from dlspec.language.parse.params import Scope
from dlspec.language.parse.part import NO_VALUE, Part

EntryInputs = Mapping[int | str, EntryOutput]
"""By their position, or by the argument's name."""
FORMULA, PARAMETER = "Formula", "Parameter"


def find_entry_inputs(
    entry: Entry, scope: Scope, level: NameLevel, names: NameLookup, *, is_first: bool
) -> EntryInputs:
    """The entry's inputs, `WRONG` among them where one is a mistake.

    Of a repeated entry's copies the first one (`is_first`) reads `from`; the others do where `_` stands in it.
    """
    part, names.current_path = entry.part, entry.path
    if part.type == PARAMETER:
        return _check_no_inputs(part, scope)
    if part.type == FORMULA:
        return find_formula_inputs(part, scope, level, names)
    if "from" not in part.keys or (not is_first and PREVIOUS not in find_first_names(_compute_from(part, scope))):
        found: dict[int | str, list[EntryOutput]] = {0: names.find(PREVIOUS, level, entry.path, at_value=False)}
    else:
        found = _read_from(part, scope, level, names)
    if all(isinstance(key, int) for key in found):
        return dict(enumerate(each for group in found.values() for each in group))
    for key in (key for key, group in found.items() if len(group) > 1):
        where = (*part.path_of("from"), key)
        scope.problems.add(
            Code.AMBIGUOUS, where, f"{len(found[key])} outputs for one input", "name one copy", at_value=True
        )
    return {key: group[0] for key, group in found.items()}


def _compute_from(part: Part, scope: Scope) -> Any:
    """A `from` with its params put in."""
    raw, path = part.keys["from"], part.path_of("from")
    raw = scope.evaluate(raw, path) if isinstance(raw, str) and extract_expression(raw) is not None else raw
    if isinstance(raw, list):
        return [scope.fill_text(each, (*path, index)) for index, each in enumerate(raw)]
    if isinstance(raw, dict):
        return {key: scope.fill_text(each, (*path, key)) for key, each in raw.items()}
    return scope.fill_text(raw, path)


def mark_inputs_used(entry: Entry, level: NameLevel, names: NameLookup) -> None:
    """What an entry that does not stand would have taken is no mistake for that."""
    names_read = find_first_names(entry.part.keys.get("from", PREVIOUS))
    if entry.type == FORMULA or any("$" in each for each in names_read):
        names_read |= set(level.all_names())  # it may have named any of them
    for name in names_read:
        names.mark_used(name, level)


def find_first_names(raw: Any) -> set[str]:
    """The names that a `from` begins with."""
    texts = raw if isinstance(raw, list) else raw.values() if isinstance(raw, dict) else [raw]
    return {str(each).split(".")[0] for each in texts}


def _check_no_inputs(part: Part, scope: Scope) -> EntryInputs:
    if "from" in part.keys:
        fix = "bring it in by Add, Multiply, Concat or Formula"
        scope.problems.add(Code.INPUT_COUNT, part.path_of("from"), "a Parameter takes no input", fix)
    return {}


def _read_from(part: Part, scope: Scope, level: NameLevel, names: NameLookup) -> dict[int | str, list[EntryOutput]]:
    path, raw = part.path_of("from"), part.keys["from"]
    raw = scope.evaluate(raw, path) if isinstance(raw, str) and extract_expression(raw) is not None else raw
    raw = require_known_early(raw, path, "from", scope.problems)
    if isinstance(raw, UnknownValue):
        return {0: [INVALID_OUTPUT]}
    items: dict[int | str, tuple[Any, KeyPath]] = {0: (raw, path)}
    if isinstance(raw, list):
        items = {index: (each, (*path, index)) for index, each in enumerate(raw)}
    elif isinstance(raw, dict):
        items = {str(name): (each, (*path, name)) for name, each in raw.items()}
    if not items:
        scope.problems.add(
            Code.MISSING_NAME, path, "from names nothing", "write a name, or leave it out", at_value=True
        )
        return {0: [INVALID_OUTPUT]}
    return {key: _find_named_outputs(each, scope, level, where, names) for key, (each, where) in items.items()}


def _find_named_outputs(
    text: Any, scope: Scope, level: NameLevel, path: KeyPath, names: NameLookup
) -> list[EntryOutput]:
    name = require_known_early(scope.fill_text(text, path), path, "from", scope.problems)
    return [INVALID_OUTPUT] if isinstance(name, UnknownValue) else names.find(name, level, path)


# ---- Formula -------------------------------------------------------------------------------------------------------


def find_formula_inputs(part: Part, scope: Scope, level: NameLevel, names: NameLookup) -> EntryInputs:
    """The outputs that a formula names, in the order in which it names them; `from` says what its `_` is."""
    text, path = fill_formula_text(part, scope)
    if "from" in part.keys:
        found = [each for group in _read_from(part, scope, level, names).values() for each in group]
        if len(found) != 1:
            fix = "remove it: a name in the formula takes the output of that name"
            scope.problems.add(
                Code.INPUT_COUNT, part.path_of("from"), "from says what a formula's _ is, which is one output", fix
            )
        level = NameLevel(level, found[0])
    return dict(enumerate(names.find(name, level, path)[0] for name in _parse_formula_names(text, path, scope)))


def _parse_formula_names(text: Any, path: KeyPath, scope: Scope) -> tuple[str, ...]:
    """The names in a formula, none where it is wrong."""
    if not isinstance(text, str):
        if not isinstance(text, UnknownValue):
            scope.problems.add(
                Code.WRONG_TYPE, path, "Formula wants a formula", "write it behind the name: Formula: _ * 2"
            )
        return ()
    try:
        names = find_output_names(parse_formula(text))
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


def fill_formula_text(part: Part, scope: Scope) -> tuple[Any, KeyPath]:
    """A `Formula`'s text with its params put in, and its place."""
    if part.value is not NO_VALUE:
        return scope.fill_text(part.value, part.settings_path, bracket_negatives=True), part.settings_path
    path = part.path_of("formula")
    return scope.fill_text(part.settings.get("formula"), path, bracket_negatives=True), path
