"""What holds entries of its own: `Sequential`, `TimeDistributed`, `Residual`, `Parallel`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from dlspec.errors import Code, Finding, KeyPath, near, shown, suggest
from dlspec.language.expand.entry_inputs import FORMULA, Inputs, formula_inputs
from dlspec.language.expand.entry_names import read_name
from dlspec.language.expand.output_names import WRONG, Level, Names, Output
from dlspec.language.expand.repeats import has_own_names, rows_of
from dlspec.language.expand.uses import EntryCall, EntryList, Use, Where, each_copy, in_all
from dlspec.language.expressions.expressions import Unknown
from dlspec.language.parse.entry import Entry, read_body
from dlspec.language.parse.part import ENTRY_KEYS, Part
from dlspec.language.problems import Problems

JOIN = "Residual"
"""The type of the node that adds a residual's body and its shortcut."""
SHORTCUTS = ("auto", "if_equal")


class EntryExpander(Protocol):
    """What a container asks of the expander: to expand the entries that it holds, and to add nodes of its own."""

    problems: Problems
    names: Names
    stood: dict[KeyPath, None]

    def expand_list(self, entries: EntryList, where: Where, /) -> Output: ...

    def expand_one(self, use: Use, where: Where, *, number: str = "") -> Output: ...

    def expand_part(self, use: Use, inputs: Inputs, where: Where, /) -> Output: ...

    def add_node(self, call: EntryCall, /) -> Output: ...


def _only(expander: EntryExpander, call: EntryCall) -> Output:
    if len(call.inputs) == 1:
        return next(iter(call.inputs.values()))
    found, fix = f"{call.part.type} takes one input, and {len(call.inputs)} come in", "bring them together before it"
    expander.problems.add(Code.INPUT_COUNT, call.part.where("from"), found, f"{fix}: Concat or Add")
    return WRONG


def _inner(part: Part, type: str, **settings: Any) -> Part:
    """A layer that a container brings along."""
    return Part(type, part.path, settings, part.settings_path, key_paths=dict.fromkeys(settings, part.settings_path))


def _add_inner(expander: EntryExpander, call: EntryCall, part: Part, inputs: Inputs, *names: str) -> Output:
    """Add a layer that a container brings along, at a place below the container's own."""
    return expander.add_node(EntryCall(call.use, part, inputs, call.where.child(*names)))


def _body(expander: EntryExpander, call: EntryCall, entries: tuple[Entry, ...], given: Output, *names: str) -> Output:
    """Entries that see the names around them."""
    use = call.use
    inside = EntryList(entries, use.scope, use.blocks, Level(use.level, given))
    return expander.expand_list(inside, call.where.child(*names))


def _sequential(expander: EntryExpander, call: EntryCall) -> Output:
    given = _only(expander, call)
    last = _body(expander, call, call.use.entry.bodies.get("layers", ()), given)
    return Output(last.ref)


def _time_distributed(expander: EntryExpander, call: EntryCall) -> Output:
    """The entries see a step as if it were a sample, so nothing around them, which is of whole samples."""
    given, use = _only(expander, call), call.use
    folded = _add_inner(expander, call, _inner(call.part, "FoldTime"), {0: given}, "<fold>")
    inside = EntryList(use.entry.bodies.get("layers", ()), use.scope, use.blocks, Level(before=folded))
    last = expander.expand_list(inside, call.where)
    unfolded = _add_inner(expander, call, _inner(call.part, "UnfoldTime"), {0: last, 1: given}, "<unfold>")
    return Output(unfolded.ref)


# ---- Residual ------------------------------------------------------------------------------------------------------


def _residual(expander: EntryExpander, call: EntryCall) -> Output:
    given = _only(expander, call)
    entries = call.use.entry.bodies.get("body", ())
    body = _dropped(expander, call, _body(expander, call, entries, given, "body"))
    shortcut, kind = _shortcut(expander, call, given)
    if not entries:
        return WRONG
    return Output(_add_inner(expander, call, _inner(call.part, JOIN, shortcut=kind), {0: body, 1: shortcut}).ref)


def _dropped(expander: EntryExpander, call: EntryCall, body: Output) -> Output:
    """The body with samples left out of it at random, where `stochastic_depth` says so."""
    p = call.part.settings.get("stochastic_depth")
    if p is None or (not isinstance(p, Unknown) and p == 0 and not isinstance(p, bool)):
        return body
    paths = {"p": call.part.where("stochastic_depth")}
    dropping = replace(_inner(call.part, "StochasticDepth", p=p), key_paths=paths)
    return _add_inner(expander, call, dropping, {0: body}, "stochastic_depth")


def _shortcut(expander: EntryExpander, call: EntryCall, given: Output) -> tuple[Output, str | None]:
    """What is added to the body, and how: `auto` and `if_equal` are decided when shapes are known."""
    bodies = call.use.entry.bodies
    if "shortcut" in bodies:
        return _body(expander, call, bodies["shortcut"], given, "shortcut"), None
    kind, path = call.part.settings.get("shortcut"), call.part.where("shortcut")
    if isinstance(kind, list | dict):  # a param brought entries
        entries = read_body(kind, path, expander.problems)
        return _body(expander, call, entries, given, "shortcut"), None
    if kind is None or isinstance(kind, Unknown) or kind in SHORTCUTS:
        return given, kind if isinstance(kind, str) else None
    fix = "write auto, if_equal, a list of entries, or leave it out: the input itself"
    fix = suggest(str(kind), SHORTCUTS) if near(str(kind), SHORTCUTS) else fix
    expander.problems.add(Code.UNKNOWN_CHOICE, path, f"shortcut is {shown(kind)}", fix, at_value=True)
    return WRONG, None


# ---- Parallel ------------------------------------------------------------------------------------------------------


def _parallel(expander: EntryExpander, call: EntryCall) -> Output:
    given = _only(expander, call)
    use, settings = call.use, call.part.settings
    branches: dict[str, Output] = {}
    for entry in use.entry.bodies.get("branches", ()):
        name, output = _branch(expander, replace(use, entry=entry), given, call.where)
        if name in branches:
            fix = "give each branch a name of its own"
            expander.problems.add(Code.NAME_TAKEN, entry.path, f"the name '{name}' is taken", fix)
        branches[name] = output
    ends = [each for one in branches.values() for each in (one.copies or (one,)) if each.stands]
    if not ends:
        return WRONG
    if "merge" in settings and settings["merge"] is None:
        expander.names.read.add(use.entry.bodies["branches"][0].path)  # it flows on
        return Output(ends[0].ref, further=branches)
    expander.names.read |= {each.path for each in use.entry.bodies["branches"]}
    return _merged(expander, call, branches, ends)


def _branch(expander: EntryExpander, use: Use, given: Output, where: Where) -> tuple[str, Output]:
    """A branch's name and what it gives; one that repeats stands side by side with itself."""
    entry = use.entry
    rows = rows_of(entry, use.scope)
    name = read_name(use, expander.problems) or entry.key
    if rows is None:
        output = expander.expand_one(replace(use, level=Level(use.level, given)), where)
        return name, replace(output, also=entry.path)
    copies, is_each_named = [], has_own_names(entry, rows)
    for index, copy in enumerate(each_copy(use, rows)):
        beside = replace(copy, level=Level(use.level, given))
        copies.append(expander.expand_one(beside, where, number="" if is_each_named else str(index)))
    return name, replace(in_all(copies, entry), also=entry.path)


def _merged(expander: EntryExpander, call: EntryCall, branches: Mapping[str, Output], ends: list[Output]) -> Output:
    """The branches' outputs, merged into one."""
    use, part = call.use, call.part
    (merge, *more) = use.entry.bodies.get("merge", ()) or (_concat(part),)
    if more:
        fix = "write one part, and what follows behind the Parallel"
        path = (*part.settings_path, "merge")
        expander.problems.add(Code.INPUT_COUNT, path, f"merge is {1 + len(more)} entries", fix)
        return WRONG
    for key in (each for each in ENTRY_KEYS if each in merge.part.keys):
        fix = "a merge takes the branches as they stand: write what follows behind the Parallel"
        expander.problems.add(Code.MISPLACED_KEY, merge.part.where(key), f"'{key}' at a merge", fix)
    if len(ends) == 1 and merge.type in _ALONE_THE_SAME:
        return Output(ends[0].ref)
    inputs: Inputs = dict(enumerate(ends))
    if merge.type == FORMULA:
        inputs = _merge_inputs(expander, use, merge, branches)
    expander.stood.setdefault(merge.path)
    expander.names.read.add(merge.path)
    return Output(expander.expand_part(replace(use, entry=merge), inputs, call.where.child("merge")).ref)


def _merge_inputs(expander: EntryExpander, use: Use, merge: Entry, branches: Mapping[str, Output]) -> Inputs:
    """The branches that a merging formula names."""
    fix = f"name the branches: {', '.join(branches)}"
    no_before = Finding(Code.AMBIGUOUS, "a merge has no output before it", fix)
    names = {name: each for name, each in branches.items() if not name.isdigit()}
    level = Level(use.level, None, no_before, names=names)
    return formula_inputs(merge.part, use.scope, level, expander.names)


_ALONE_THE_SAME = ("Concat", "Add", "Multiply")
"""Of one value these make that value."""


def _concat(part: Part) -> Entry:
    return Entry("", part.path, replace(_inner(part, "Concat"), path=part.path))


EXPAND: Mapping[str, Callable[[EntryExpander, EntryCall], Output]] = {
    "Sequential": _sequential,
    "TimeDistributed": _time_distributed,
    "Residual": _residual,
    "Parallel": _parallel,
}
