"""`share`: use the module of an entry above again."""

from __future__ import annotations

from dataclasses import replace

from dlspec.errors import Code, KeyPath
from dlspec.language.expand.containers import EntryExpander
from dlspec.language.expand.entry_inputs import FORMULA, PARAMETER, EntryInputs
from dlspec.language.expand.entry_use import EntryUse, ModulePath
from dlspec.language.expand.output_names import INVALID_OUTPUT, PREVIOUS, EntryOutput
from dlspec.language.expand.repeat_rows import require_not_deferred
from dlspec.language.expressions.expression_parsing import UnknownValue
from dlspec.language.parse.entry import SHARE
from dlspec.language.problems import Problems


def share_module(expander: EntryExpander, use: EntryUse, inputs: EntryInputs, where: ModulePath) -> EntryOutput:
    """Expand the entry that `share` names again, with the same path in the state dict.

    Args:
        expander: expands the entry.
        use: the entry with `share`.
        inputs: its inputs, by position or by the name of an argument.
        where: the path of the entry with `share`.

    Returns:
        The output of the second use.
    """
    problems, path = expander.problems, use.entry.part.path_of(SHARE)
    name = require_not_deferred(use.scope.insert_params(use.entry.part.keys[SHARE], path), path, SHARE, problems)
    if isinstance(name, UnknownValue):
        return INVALID_OUTPUT
    (target, *_) = expander.names.find_without_marking(name, use.level, path)
    shared: EntryUse | None = target.use
    if target.is_present and shared is not None and shared.entry.type not in (FORMULA, PARAMETER) and name != PREVIOUS:
        return expander.expand_part(
            replace(shared, shared_path=use.entry.path), inputs, ModulePath(shared.path, where.use)
        )
    _report_unshareable(target, name, path, problems)
    return INVALID_OUTPUT


def _report_unshareable(target: EntryOutput, name: str, path: KeyPath, problems: Problems) -> None:
    """Report why the entry with this name can't be shared."""
    shared: EntryUse | None = target.use
    if not target.is_present:
        fix = "share a layer that is present, or give this entry the same 'if'"
        problems.add(Code.OUTPUT_ABSENT, path, f"'{name}' does not exist: {target.absent}", fix, at_value=True)
    elif shared is not None and shared.entry.type in (FORMULA, PARAMETER):
        is_formula = shared.entry.type == FORMULA
        fix = "write the formula again" if is_formula else f"use it as an input, from: [_, {name}]"
        problems.add(
            Code.UNSUPPORTED, path, f"'{name}' is a {shared.entry.type}, which can't be shared", fix, at_value=True
        )
    elif target.copies is not None:
        fix = f"share one copy, {name}.0, or move the repeated entry into a Sequential and share that"
        problems.add(Code.AMBIGUOUS, path, f"'{name}' is repeated, so it has multiple modules", fix, at_value=True)
    elif target.ref != INVALID_OUTPUT.ref:
        problems.add(
            Code.WRONG_VALUE,
            path,
            f"'{name}' is not a layer or block",
            "write the name of an entry above",
            at_value=True,
        )
