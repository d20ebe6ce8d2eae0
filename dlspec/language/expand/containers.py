"""What holds entries of its own: `Sequential`, `TimeDistributed`, `Residual`, `Parallel`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from dlspec.errors import Code, Finding, KeyPath, near, shown, suggest
from dlspec.language.expand.entry_inputs import FORMULA, Inputs, formula_inputs
from dlspec.language.expand.output_names import WRONG, Level, Names, Output
from dlspec.language.expand.repeats import has_own_names, rows_of
from dlspec.language.expand.uses import Blocks, Use, Where, each_copy, in_all
from dlspec.language.expressions.expressions import Unknown
from dlspec.language.parse.entry import Entry, read_body
from dlspec.language.parse.params import Scope
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

    def list(self, entries: Sequence[Entry], scope: Scope, blocks: Blocks, level: Level, where: Where, /) -> Output: ...

    def one(self, use: Use, where: Where, *, number: str = "") -> Output: ...

    def name(self, use: Use) -> str: ...

    def stand(self, use: Use, inputs: Inputs, where: Where) -> Output: ...

    def node(self, use: Use, part: Part, inputs: Inputs, where: Where) -> Output: ...


def _only(expander: EntryExpander, use: Use, part: Part, inputs: Inputs) -> Output:
    if len(inputs) == 1:
        return next(iter(inputs.values()))
    found = f"{part.type} takes one input, and {len(inputs)} come in"
    expander.problems.add(Code.INPUT_COUNT, part.where("from"), found, "bring them together before it: Concat or Add")
    return WRONG


def _inner(part: Part, type: str, **settings: Any) -> Part:
    """A layer that a container brings along."""
    return Part(type, part.path, settings, part.settings_path, key_paths=dict.fromkeys(settings, part.settings_path))


def _body(expander: EntryExpander, use: Use, entries: tuple[Entry, ...], given: Output, where: Where) -> Output:
    """Entries that see the names around them."""
    return expander.list(entries, use.scope, use.blocks, Level(use.level, given), where)


def _sequential(expander: EntryExpander, use: Use, part: Part, inputs: Inputs, where: Where) -> Output:
    given = _only(expander, use, part, inputs)
    last = _body(expander, use, use.entry.bodies.get("layers", ()), given, where)
    return Output(last.ref)


def _time_distributed(expander: EntryExpander, use: Use, part: Part, inputs: Inputs, where: Where) -> Output:
    """The entries see a step as if it were a sample, so nothing around them, which is of whole samples."""
    given = _only(expander, use, part, inputs)
    folded = expander.node(use, _inner(part, "FoldTime"), {0: given}, where.child("<fold>"))
    entries = use.entry.bodies.get("layers", ())
    last = expander.list(entries, use.scope, use.blocks, Level(before=folded), where)
    unfolded = expander.node(use, _inner(part, "UnfoldTime"), {0: last, 1: given}, where.child("<unfold>"))
    return Output(unfolded.ref)


# ---- Residual ------------------------------------------------------------------------------------------------------


def _residual(expander: EntryExpander, use: Use, part: Part, inputs: Inputs, where: Where) -> Output:
    given = _only(expander, use, part, inputs)
    entries = use.entry.bodies.get("body", ())
    body = _body(expander, use, entries, given, where.child("body"))
    body = _dropped(expander, use, part, body, where)
    shortcut, kind = _shortcut(expander, use, part, given, where)
    if not entries:
        return WRONG
    join = expander.node(use, _inner(part, JOIN, shortcut=kind), {0: body, 1: shortcut}, where)
    return Output(join.ref)


def _dropped(expander: EntryExpander, use: Use, part: Part, body: Output, where: Where) -> Output:
    """The body with samples left out of it at random, where `stochastic_depth` says so."""
    p = part.settings.get("stochastic_depth")
    if p is None or (not isinstance(p, Unknown) and p == 0 and not isinstance(p, bool)):
        return body
    dropping = replace(
        _inner(part, "StochasticDepth", p=p), key_paths={"p": part.where("stochastic_depth")}
    )  # fmt: skip
    return expander.node(use, dropping, {0: body}, where.child("stochastic_depth"))


def _shortcut(expander: EntryExpander, use: Use, part: Part, given: Output, where: Where) -> tuple[Output, str | None]:
    """What is added to the body, and how: `auto` and `if_equal` are decided when shapes are known."""
    if "shortcut" in use.entry.bodies:
        return _body(expander, use, use.entry.bodies["shortcut"], given, where.child("shortcut")), None
    kind, path = part.settings.get("shortcut"), part.where("shortcut")
    if isinstance(kind, list | dict):  # a param brought entries
        entries = read_body(kind, path, expander.problems)
        return _body(expander, use, entries, given, where.child("shortcut")), None
    if kind is None or isinstance(kind, Unknown) or kind in SHORTCUTS:
        return given, kind if isinstance(kind, str) else None
    fix = "write auto, if_equal, a list of entries, or leave it out: the input itself"
    fix = suggest(str(kind), SHORTCUTS) if near(str(kind), SHORTCUTS) else fix
    expander.problems.add(Code.UNKNOWN_CHOICE, path, f"shortcut is {shown(kind)}", fix, at_value=True)
    return WRONG, None


# ---- Parallel ------------------------------------------------------------------------------------------------------


def _parallel(expander: EntryExpander, use: Use, part: Part, inputs: Inputs, where: Where) -> Output:
    given = _only(expander, use, part, inputs)
    branches: dict[str, Output] = {}
    for entry in use.entry.bodies.get("branches", ()):
        name, output = _branch(expander, replace(use, entry=entry), given, where)
        if name in branches:
            fix = "give each branch a name of its own"
            expander.problems.add(Code.NAME_TAKEN, entry.path, f"the name '{name}' is taken", fix)
        branches[name] = output
    ends = _ends(branches)
    if not ends:
        return WRONG
    if "merge" in part.settings and part.settings["merge"] is None:
        expander.names.read.add(use.entry.bodies["branches"][0].path)  # it flows on
        return Output(ends[0].ref, further=branches)
    expander.names.read |= {each.path for each in use.entry.bodies["branches"]}
    return _merged(expander, use, part, branches, where)


def _branch(expander: EntryExpander, use: Use, given: Output, where: Where) -> tuple[str, Output]:
    """A branch's name and what it gives; one that repeats stands side by side with itself."""
    entry = use.entry
    rows = rows_of(entry, use.scope)
    name = expander.name(use) or entry.key
    if rows is None:
        output = expander.one(replace(use, level=Level(use.level, given)), where)
        return name, replace(output, also=entry.path)
    copies, is_each_named = [], has_own_names(entry, rows)
    for index, copy in enumerate(each_copy(use, rows)):
        beside = replace(copy, level=Level(use.level, given))
        copies.append(expander.one(beside, where, number="" if is_each_named else str(index)))
    return name, replace(in_all(copies, entry), also=entry.path)


def _ends(branches: Mapping[str, Output]) -> list[Output]:
    """What the branches give: of a repeated one each copy's output."""
    return [each for one in branches.values() for each in (one.copies or (one,)) if each.stands]


def _merged(expander: EntryExpander, use: Use, part: Part, branches: Mapping[str, Output], where: Where) -> Output:
    """The branches' outputs, merged into one."""
    ends = _ends(branches)
    (merge, *more) = use.entry.bodies.get("merge", ()) or (_concat(part),)
    if more:
        fix = "write one part, and what follows behind the Parallel"
        expander.problems.add(
            Code.INPUT_COUNT, (*part.settings_path, "merge"), f"merge is {1 + len(more)} entries", fix
        )
        return WRONG
    for key in (each for each in ENTRY_KEYS if each in merge.part.keys):
        fix = "a merge takes the branches as they stand: write what follows behind the Parallel"
        expander.problems.add(Code.MISPLACED_KEY, merge.part.where(key), f"'{key}' at a merge", fix)
    if len(ends) == 1 and merge.type in _ALONE_THE_SAME:
        return Output(ends[0].ref)
    inputs: Inputs = dict(enumerate(ends))
    if merge.type == FORMULA:
        fix = f"name the branches: {', '.join(branches)}"
        no_before = Finding(Code.AMBIGUOUS, "a merge has no output before it", fix)
        names = {name: each for name, each in branches.items() if not name.isdigit()}
        level = Level(use.level, None, no_before, names=names)
        inputs = formula_inputs(merge.part, use.scope, level, expander.names)
    expander.stood.setdefault(merge.path)
    expander.names.read.add(merge.path)
    merging = replace(use, entry=merge)
    return Output(expander.stand(merging, inputs, where.child("merge")).ref)


_ALONE_THE_SAME = ("Concat", "Add", "Multiply")
"""Of one value these make that value."""


def _concat(part: Part) -> Entry:
    return Entry("", part.path, replace(_inner(part, "Concat"), path=part.path))


EXPAND: Mapping[str, Callable[[EntryExpander, Use, Part, Inputs, Where], Output]] = {
    "Sequential": _sequential,
    "TimeDistributed": _time_distributed,
    "Residual": _residual,
    "Parallel": _parallel,
}
