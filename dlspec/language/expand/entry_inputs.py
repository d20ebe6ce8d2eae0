"""Find an entry's inputs: from `from`, `_`, and the names in a `Formula`."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from typing import Any

from dlspec.errors import Code, KeyPath
from dlspec.language.expand.output_names import INVALID_OUTPUT, PREVIOUS, EntryOutput, NameLevel, NameLookup
from dlspec.language.expand.repeat_rows import require_not_deferred
from dlspec.language.expressions.expression_parsing import ExpressionError, UnknownValue, extract_expression
from dlspec.language.expressions.formula import parse_formula
from dlspec.language.expressions.formula_batch import check_batch_is_kept
from dlspec.language.expressions.formula_tree import find_output_names
from dlspec.language.parse.deferred import OutputRef
from dlspec.language.parse.entry import LENGTHS_OF, Entry, find_expression_words
from dlspec.language.parse.params import Scope
from dlspec.language.parse.part import NO_VALUE, Part
from dlspec.language.spec_versions import FROM_OF_COPIES

EntryInputs = Mapping[int | str, EntryOutput]  # by position, or by the name of an argument
FORMULA, PARAMETER = "Formula", "Parameter"


def find_entry_inputs(
    entry: Entry,
    scope: Scope,
    level: NameLevel,
    names: NameLookup,
    *,
    is_first: bool,
    variables: Collection[str] = (),
) -> EntryInputs:
    """Find an entry's inputs.

    Args:
        entry: the entry.
        scope: the scope of its expressions.
        level: the visible names.
        names: looks the names up, and records which outputs are used.
        is_first: whether it is the first copy of a repeated entry. Other copies read `from` only if it contains `_` or
            a variable of the repeat.
        variables: the variables of the entry's own repeat.

    Returns:
        The inputs, with `INVALID_OUTPUT` for each one that can't be found.
    """
    part, names.current_path = entry.part, entry.path
    if part.type == PARAMETER:
        return _check_no_inputs(part, scope)
    if part.type == FORMULA:
        return find_formula_inputs(part, scope, level, names)
    if "from" not in part.keys or not (is_first or _reads_own_from(part, scope, variables)):
        found: dict[int | str, list[EntryOutput]] = {0: names.find(PREVIOUS, level, entry.path, at_value=False)}
    else:
        found = _read_from_key(part, scope, level, names)
    if all(isinstance(key, int) for key in found):
        return dict(enumerate(each for group in found.values() for each in group))
    for key in (key for key, group in found.items() if len(group) > 1):
        where = (*part.path_of("from"), key)
        scope.problems.add(
            Code.AMBIGUOUS,
            where,
            f"the input expects one output, got {len(found[key])}",
            "name only one copy",
            at_value=True,
        )
    return {key: group[0] for key, group in found.items()}


def _reads_own_from(part: Part, scope: Scope, variables: Collection[str]) -> bool:
    """Whether a copy after the first one reads `from`: it contains `_`, or a variable of the entry's own repeat."""
    if PREVIOUS in find_names_in_from(_compute_from(part, scope)):
        return True
    has_variable = not find_expression_words(part.keys["from"]).isdisjoint(variables)
    if has_variable:
        scope.problems.refuse_changed_rule(FROM_OF_COPIES, part.path_of("from"), at_value=True)
    return has_variable


def _compute_from(part: Part, scope: Scope) -> Any:
    """Evaluate the params in a `from`."""
    raw, path = part.keys["from"], part.path_of("from")
    raw = scope.evaluate(raw, path) if isinstance(raw, str) and extract_expression(raw) is not None else raw
    if isinstance(raw, list):
        return [scope.insert_params(each, (*path, index)) for index, each in enumerate(raw)]
    if isinstance(raw, dict):
        return {key: scope.insert_params(each, (*path, key)) for key, each in raw.items()}
    return scope.insert_params(raw, path)


def mark_inputs_used(entry: Entry, level: NameLevel, names: NameLookup) -> None:
    """Mark the inputs of an absent entry as used, so that they are not reported as unused.

    Args:
        entry: the absent entry.
        level: the visible names.
        names: records which outputs are used.
    """
    names_read = find_names_in_from(entry.part.keys.get("from", PREVIOUS))
    if entry.type == FORMULA or any("$" in each for each in names_read):
        names_read |= set(level.all_names())  # any of them may be meant
    for name in names_read:
        names.mark_used(name, level)


def find_names_in_from(written_from: Any) -> set[str]:
    """Return the names in a `from`, without what follows a dot."""
    texts = (
        written_from
        if isinstance(written_from, list)
        else written_from.values()
        if isinstance(written_from, dict)
        else [written_from]
    )
    return {str(each).split(".")[0] for each in texts}


def _check_no_inputs(part: Part, scope: Scope) -> EntryInputs:
    if "from" in part.keys:
        fix = "remove from, and use the Parameter in Add, Multiply, Concat or Formula"
        scope.problems.add(Code.INPUT_COUNT, part.path_of("from"), "a Parameter has no inputs", fix)
    return {}


def _read_from_key(part: Part, scope: Scope, level: NameLevel, names: NameLookup) -> dict[int | str, list[EntryOutput]]:
    path, raw = part.path_of("from"), part.keys["from"]
    raw = scope.evaluate(raw, path) if isinstance(raw, str) and extract_expression(raw) is not None else raw
    raw = require_not_deferred(raw, path, "from", scope.problems)
    if isinstance(raw, UnknownValue):
        return {0: [INVALID_OUTPUT]}
    items: dict[int | str, tuple[Any, KeyPath]] = {0: (raw, path)}
    if isinstance(raw, list):
        items = {index: (each, (*path, index)) for index, each in enumerate(raw)}
    elif isinstance(raw, dict):
        items = {str(name): (each, (*path, name)) for name, each in raw.items()}
    if not items:
        scope.problems.add(
            Code.MISSING_NAME, path, "from is empty", "write the name of an output, or remove it", at_value=True
        )
        return {0: [INVALID_OUTPUT]}
    return {key: _find_named_outputs(each, scope, level, where, names) for key, (each, where) in items.items()}


def _find_named_outputs(
    text: Any, scope: Scope, level: NameLevel, path: KeyPath, names: NameLookup
) -> list[EntryOutput]:
    name = require_not_deferred(scope.insert_params(text, path), path, "from", scope.problems)
    return [INVALID_OUTPUT] if isinstance(name, UnknownValue) else names.find(name, level, path)


def find_output_with_lengths(part: Part, scope: Scope, level: NameLevel, names: NameLookup) -> OutputRef | None:
    """Find the output that `lengths_of` names; naming it there does not use it.

    Args:
        part: the entry's part.
        scope: the scope of its params.
        level: the visible names.
        names: looks the name up.

    Returns:
        The output, or None if the entry has no `lengths_of` or its name can't be found, which is reported.
    """
    if LENGTHS_OF not in part.keys:
        return None
    path, problems = part.path_of(LENGTHS_OF), scope.problems
    name = require_not_deferred(scope.insert_params(part.keys[LENGTHS_OF], path), path, LENGTHS_OF, problems)
    if isinstance(name, UnknownValue):
        return None
    found = names.find_without_marking(name, level, path)
    if len(found) != 1:
        problems.add(Code.AMBIGUOUS, path, f"'{name}' refers to {len(found)} outputs", "name one copy", at_value=True)
    elif not found[0].is_present:
        fix = "write the name of an output that is present, or give this entry the same 'if'"
        problems.add(Code.OUTPUT_ABSENT, path, f"'{name}' does not exist: {found[0].absent}", fix, at_value=True)
    elif found[0].ref != INVALID_OUTPUT.ref:
        return found[0].ref
    return None


# ---- Formula -------------------------------------------------------------------------------------------------------


def find_formula_inputs(part: Part, scope: Scope, level: NameLevel, names: NameLookup) -> EntryInputs:
    """Find the outputs that a formula uses, in the order of their names in it.

    Args:
        part: the formula's part; its `from` is what `_` means.
        scope: the scope of its params.
        level: the visible names.
        names: looks the names up, and records which outputs are used.

    Returns:
        The inputs by position.
    """
    text, path = insert_formula_params(part, scope)
    if "from" in part.keys:
        found = [each for group in _read_from_key(part, scope, level, names).values() for each in group]
        if len(found) != 1:
            fix = "remove 'from', and use the names of the outputs in the formula"
            problem = f"'from' of a Formula must name one output, which _ then refers to, got {len(found)}"
            scope.problems.add(Code.INPUT_COUNT, part.path_of("from"), problem, fix)
        level = NameLevel(level, found[0])
    tree = _parse_formula_or_report(text, path, scope)
    if tree is None:
        return {0: INVALID_OUTPUT}
    if "from" in part.keys and not find_output_names(tree):
        problem = "the formula uses no output, so 'from' has no meaning"
        scope.problems.add(Code.INPUT_COUNT, part.path_of("from"), problem, "remove from, or write _ in the formula")
    inputs = {name: names.find(name, level, path)[0] for name in find_output_names(tree)}
    without_batch = {name for name, each in inputs.items() if each.find_nodes() <= names.nodes_without_batch}
    try:
        check_batch_is_kept(tree, without_batch)
    except ExpressionError as error:
        scope.problems.add_finding(path, error.finding, at_value=True)
    return dict(enumerate(inputs.values()))


def _parse_formula_or_report(text: Any, path: KeyPath, scope: Scope) -> ast.expr | None:
    """Return the tree of a formula, None if it is invalid."""
    if not isinstance(text, str):
        if not isinstance(text, UnknownValue):
            scope.problems.add(Code.WRONG_TYPE, path, "Formula expects a string", "write for example Formula: _ * 2")
        return None
    try:
        return parse_formula(text)
    except ExpressionError as error:
        scope.problems.add_finding(path, error.finding, at_value=True)
        return None


def insert_formula_params(part: Part, scope: Scope) -> tuple[Any, KeyPath]:
    """Return the text of a `Formula` with its params replaced, and its path."""
    if part.value is not NO_VALUE:
        return scope.insert_params(part.value, part.settings_path, bracket_negatives=True), part.settings_path
    path = part.path_of("formula")
    return scope.insert_params(part.settings.get("formula"), path, bracket_negatives=True), path
