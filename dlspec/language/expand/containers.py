"""Expand containers, which are layers that contain entries: Sequential, TimeDistributed, Residual, Parallel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from dlspec.errors import Code, Finding, KeyPath, find_closest, format_value, suggest
from dlspec.language.expand.entry_inputs import FORMULA, EntryInputs, find_formula_inputs
from dlspec.language.expand.entry_names import read_name
from dlspec.language.expand.entry_use import EntryCall, EntryList, EntryUse, ModulePath, combine_copies, iterate_copies
from dlspec.language.expand.graph import Node
from dlspec.language.expand.output_names import INVALID_OUTPUT, PREVIOUS, EntryOutput, NameLevel, NameLookup
from dlspec.language.expand.repeat_rows import has_distinct_copy_names, read_repeat_rows
from dlspec.language.expressions.expression_parsing import UnknownValue
from dlspec.language.parse.entry import IF_UNEQUAL, Entry, read_body
from dlspec.language.parse.part import ENTRY_KEYS, Part
from dlspec.language.problems import Problems

RESIDUAL_ADD = "Residual"  # the type of the node that adds the body and the shortcut of a residual
SHORTCUT_KINDS = ("auto", "if_equal")


class EntryExpander(Protocol):
    """Interface of the expander for containers: it expands their entries and adds their nodes."""

    problems: Problems
    names: NameLookup
    present_entries: dict[KeyPath, None]
    nodes: list[Node]

    def expand_list(self, entries: EntryList, where: ModulePath, /) -> EntryOutput: ...

    def expand_single_entry(self, use: EntryUse, where: ModulePath, *, number: str = "") -> EntryOutput:
        """Expand one entry, or one copy of it.

        Args:
            use: the entry with its scope, blocks and names.
            where: the path of the container's modules.
            number: the copy's number, '' for an entry that is not repeated.
        """
        ...

    def expand_part(self, use: EntryUse, inputs: EntryInputs, where: ModulePath, /) -> EntryOutput:
        """Add the nodes of an entry.

        Args:
            use: the entry with its scope, blocks and names.
            inputs: its inputs, by position or by the name of an argument.
            where: the path of its module.
        """
        ...

    def add_node(self, call: EntryCall, /) -> EntryOutput: ...


def _get_single_input(expander: EntryExpander, call: EntryCall) -> EntryOutput:
    if len(call.inputs) == 1:
        return next(iter(call.inputs.values()))
    found, fix = f"{call.part.type} expects one input, got {len(call.inputs)}", "combine them before it"
    expander.problems.add(Code.INPUT_COUNT, call.part.path_of("from"), found, f"{fix} with Concat or Add")
    return INVALID_OUTPUT


def _make_inner_part(part: Part, type: str, **settings: Any) -> Part:
    """Make the part of a layer that a container adds."""
    return Part(type, part.path, settings, part.settings_path, key_paths=dict.fromkeys(settings, part.settings_path))


def _add_inner_layer(
    expander: EntryExpander, call: EntryCall, part: Part, inputs: EntryInputs, *names: str
) -> EntryOutput:
    """Add a layer of a container, with a path below that of the container."""
    return expander.add_node(EntryCall(call.use, part, inputs, call.where.make_child(*names)))


def _expand_body(
    expander: EntryExpander, call: EntryCall, entries: tuple[Entry, ...], given: EntryOutput, *names: str
) -> EntryOutput:
    """Expand a container's entries, which can refer to the names outside of it."""
    use = call.use
    inside = EntryList(entries, use.scope, use.blocks, NameLevel(use.level, given))
    return expander.expand_list(inside, call.where.make_child(*names))


def _expand_sequential(expander: EntryExpander, call: EntryCall) -> EntryOutput:
    given = _get_single_input(expander, call)
    last = _expand_body(expander, call, call.use.entry.bodies.get("layers", ()), given)
    return EntryOutput(last.ref)


def _expand_time_distributed(expander: EntryExpander, call: EntryCall) -> EntryOutput:
    """Expand entries that receive single time steps as samples.

    Of the names outside, whose outputs contain whole samples, they only know those in `from`: the first is their input,
    and each of the others its step.
    """
    (given, *others), use = call.inputs.values(), call.use
    folded = _add_inner_layer(expander, call, _make_inner_part(call.part, "FoldTime"), {0: given}, "<fold>")
    names = {
        name: _fold_further_input(expander, call, name, each, given)
        for name, each in zip(_find_names_of_inputs(expander, call), others, strict=False)
    }
    level = NameLevel(previous=folded, names=names)
    inside = EntryList(use.entry.bodies.get("layers", ()), use.scope, use.blocks, level)
    last = expander.expand_list(inside, call.where)
    unfolded = _add_inner_layer(
        expander, call, _make_inner_part(call.part, "UnfoldTime"), {0: last, 1: given}, "<unfold>"
    )
    return EntryOutput(unfolded.ref)


def _fold_further_input(
    expander: EntryExpander, call: EntryCall, name: str, further: EntryOutput, given: EntryOutput
) -> EntryOutput:
    part = _make_inner_part(call.part, "FoldTimeLike")
    folded = _add_inner_layer(expander, call, part, {0: further, 1: given}, f"<fold {name}>")
    return replace(folded, path=further.path)


def _find_names_of_inputs(expander: EntryExpander, call: EntryCall) -> list[str]:
    """Return the names that the further inputs of a TimeDistributed have inside; report those that are not names."""
    written, path = call.part.keys.get("from"), call.part.path_of("from")
    names = list(written)[1:] if isinstance(written, list | dict) else []
    for index, name in enumerate(names, 1):
        if not isinstance(name, str) or not name.isidentifier() or name == PREVIOUS:
            found = f"inside TimeDistributed an input needs a name, got {format_value(name)}"
            where = (*path, name if isinstance(written, dict) else index)
            fix = "write from: {_: _, NAME: OUTPUT}, with the name that it has inside"
            expander.problems.add(Code.INVALID_NAME, where, found, fix, at_value=True)
    return [str(name) for name in names]


# ---- Residual ------------------------------------------------------------------------------------------------------


def _expand_residual(expander: EntryExpander, call: EntryCall) -> EntryOutput:
    given = _get_single_input(expander, call)
    entries = call.use.entry.bodies.get("body", ())
    body = _add_stochastic_depth(expander, call, _expand_body(expander, call, entries, given, "body"))
    conditional = _find_conditional_shortcut(expander, call)
    inputs: dict[int | str, EntryOutput] = {0: body, 1: given}
    kind: str | None
    if conditional is not None:
        inputs[2], kind = _expand_conditional_shortcut(expander, call, conditional, body, given), IF_UNEQUAL
    else:
        inputs[1], kind = _expand_shortcut(expander, call, given)
    if not entries:
        return INVALID_OUTPUT
    join = _make_inner_part(call.part, RESIDUAL_ADD, shortcut=kind)
    return EntryOutput(_add_inner_layer(expander, call, join, inputs).ref)


def _find_conditional_shortcut(expander: EntryExpander, call: EntryCall) -> tuple[Entry, ...] | None:
    """Return the entries of `shortcut: {if_unequal: [...]}`, None for another shortcut."""
    if IF_UNEQUAL in call.use.entry.bodies:
        return call.use.entry.bodies[IF_UNEQUAL]
    written = call.part.settings.get("shortcut")
    if isinstance(written, dict) and list(written) == [IF_UNEQUAL]:  # a param contains it
        return read_body(written[IF_UNEQUAL], (*call.part.path_of("shortcut"), IF_UNEQUAL), expander.problems)
    return None


def _expand_conditional_shortcut(
    expander: EntryExpander, call: EntryCall, entries: tuple[Entry, ...], body: EntryOutput, given: EntryOutput
) -> EntryOutput:
    """Expand a shortcut whose layers are built only if body and input differ in shape, which is known later."""
    start = len(expander.nodes)
    shortcut = _expand_body(expander, call, entries, given, "shortcut")
    if body.ref is not None and given.ref is not None:
        condition = (body.ref, given.ref)
        added = expander.nodes[start:]
        expander.nodes[start:] = [replace(each, only_if_unequal=(*each.only_if_unequal, condition)) for each in added]
    return shortcut


def _add_stochastic_depth(expander: EntryExpander, call: EntryCall, body: EntryOutput) -> EntryOutput:
    """Add stochastic depth to a body if `stochastic_depth` is set."""
    p = call.part.settings.get("stochastic_depth")
    if p is None or (not isinstance(p, UnknownValue) and p == 0 and not isinstance(p, bool)):
        return body
    paths = {"p": call.part.path_of("stochastic_depth")}
    dropping = replace(_make_inner_part(call.part, "StochasticDepth", p=p), key_paths=paths)
    return _add_inner_layer(expander, call, dropping, {0: body}, "stochastic_depth")


def _expand_shortcut(expander: EntryExpander, call: EntryCall, given: EntryOutput) -> tuple[EntryOutput, str | None]:
    """Return what is added to the body, and its kind: `auto` and `if_equal` are resolved when shapes are known."""
    bodies = call.use.entry.bodies
    if "shortcut" in bodies:
        return _expand_body(expander, call, bodies["shortcut"], given, "shortcut"), None
    kind, path = call.part.settings.get("shortcut"), call.part.path_of("shortcut")
    if isinstance(kind, list | dict):  # a param contains entries
        entries = read_body(kind, path, expander.problems)
        return _expand_body(expander, call, entries, given, "shortcut"), None
    if kind is None or isinstance(kind, UnknownValue) or kind in SHORTCUT_KINDS:
        return given, kind if isinstance(kind, str) else None
    fix = "write auto, if_equal, {if_unequal: [...]} or a list of entries, or omit it to add the input itself"
    fix = suggest(str(kind), SHORTCUT_KINDS) if find_closest(str(kind), SHORTCUT_KINDS) else fix
    expander.problems.add(Code.UNKNOWN_CHOICE, path, f"unknown shortcut {format_value(kind)}", fix, at_value=True)
    return INVALID_OUTPUT, None


# ---- Parallel ------------------------------------------------------------------------------------------------------


def _expand_parallel(expander: EntryExpander, call: EntryCall) -> EntryOutput:
    given = _get_single_input(expander, call)
    use, settings = call.use, call.part.settings
    branches: dict[str, EntryOutput] = {}
    for entry in use.entry.bodies.get("branches", ()):
        name, output = _expand_branch(expander, replace(use, entry=entry), given, call.where)
        if name in branches:
            fix = "give each branch a different name"
            expander.problems.add(Code.NAME_TAKEN, entry.path, f"the name '{name}' is used twice", fix)
        branches[name] = output
    branch_outputs = [each for one in branches.values() for each in (one.copies or (one,)) if each.is_present]
    if not branch_outputs:
        return INVALID_OUTPUT
    if "merge" in settings and settings["merge"] is None:
        expander.names.used_paths.add(use.entry.bodies["branches"][0].path)  # it is the input of the next entry
        return EntryOutput(branch_outputs[0].ref, named_outputs=branches)
    expander.names.used_paths |= {each.path for each in use.entry.bodies["branches"]}
    return _merge_branches(expander, call, branches, branch_outputs)


def _expand_branch(
    expander: EntryExpander, use: EntryUse, given: EntryOutput, where: ModulePath
) -> tuple[str, EntryOutput]:
    """Expand a branch. Return its name and output. The copies of a repeated branch run in parallel."""
    entry = use.entry
    rows = read_repeat_rows(entry, use.scope)
    name = read_name(use, expander.problems) or entry.key
    if rows is None:
        output = expander.expand_single_entry(replace(use, level=NameLevel(use.level, given)), where)
        return name, replace(output, branch_path=entry.path)
    copies, is_each_named = [], has_distinct_copy_names(entry, rows)
    for index, copy in enumerate(iterate_copies(use, rows)):
        branch_use = replace(copy, level=NameLevel(use.level, given))
        copies.append(expander.expand_single_entry(branch_use, where, number="" if is_each_named else str(index)))
    return name, replace(combine_copies(copies, entry), branch_path=entry.path)


def _merge_branches(
    expander: EntryExpander, call: EntryCall, branches: Mapping[str, EntryOutput], branch_outputs: list[EntryOutput]
) -> EntryOutput:
    """Merge the outputs of the branches."""
    use, part = call.use, call.part
    (merge, *more) = use.entry.bodies.get("merge", ()) or (_make_concat(part),)
    if more:
        fix = "write one entry, and move the others after the Parallel"
        path = (*part.settings_path, "merge")
        expander.problems.add(Code.INPUT_COUNT, path, f"merge expects one entry, got {1 + len(more)}", fix)
        return INVALID_OUTPUT
    for key in (each for each in ENTRY_KEYS if each in merge.part.keys):
        fix = "a merge always takes all branches: write other entries after the Parallel"
        expander.problems.add(Code.MISPLACED_KEY, merge.part.path_of(key), f"a merge has no key '{key}'", fix)
    if len(branch_outputs) == 1 and merge.type in _IDENTITY_FOR_ONE_INPUT:
        return EntryOutput(branch_outputs[0].ref)
    inputs: EntryInputs = dict(enumerate(branch_outputs))
    if merge.type == FORMULA:
        inputs = _find_merge_inputs(expander, use, merge, branches)
    expander.present_entries.setdefault(merge.path)
    expander.names.used_paths.add(merge.path)
    return EntryOutput(expander.expand_part(replace(use, entry=merge), inputs, call.where.make_child("merge")).ref)


def _find_merge_inputs(
    expander: EntryExpander, use: EntryUse, merge: Entry, branches: Mapping[str, EntryOutput]
) -> EntryInputs:
    """Find the branches that the formula of a merge uses."""
    fix = f"use the names of the branches: {', '.join(branches)}"
    no_previous = Finding(Code.AMBIGUOUS, "_ is not defined in a merge", fix)
    names = {name: each for name, each in branches.items() if not name.isdigit()}
    level = NameLevel(use.level, None, no_previous, names=names)
    return find_formula_inputs(merge.part, use.scope, level, expander.names)


_IDENTITY_FOR_ONE_INPUT = ("Concat", "Add", "Multiply")  # with one input they return it unchanged


def _make_concat(part: Part) -> Entry:
    return Entry("", part.path, replace(_make_inner_part(part, "Concat"), path=part.path))


CONTAINER_EXPANDERS: Mapping[str, Callable[[EntryExpander, EntryCall], EntryOutput]] = {
    "Sequential": _expand_sequential,
    "TimeDistributed": _expand_time_distributed,
    "Residual": _expand_residual,
    "Parallel": _expand_parallel,
}
