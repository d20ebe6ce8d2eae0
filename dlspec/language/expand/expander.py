"""Writes a model out: params computed, blocks and repeats in full, names looked up. What comes out is a `Graph`.

Each entry becomes one node for each layer that will be built. No torch here, and no registry: whether a layer and its
settings exist is seen when the nodes are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from dlspec.errors import Code, Finding, KeyPath
from dlspec.language.expand.block_calls import (
    find_given_inputs,
    find_given_params,
    may_contain,
    refuse_keys,
    scope_of_call,
)
from dlspec.language.expand.containers import EXPAND
from dlspec.language.expand.entry_inputs import FORMULA, PARAMETER, Inputs, formula_text, inputs_of, mark_inputs
from dlspec.language.expand.entry_names import (
    check_reachable,
    find_hidden_names,
    name_output,
    names_of_model,
    read_name,
    written_name,
)
from dlspec.language.expand.final_checks import check_not_empty, check_outputs_taken, find_absent
from dlspec.language.expand.graph import MODEL, Graph, Node
from dlspec.language.expand.output_names import WRONG, Level, Names, Output
from dlspec.language.expand.repeats import Row, TooMany, has_own_names, is_bare, rows_of, stands
from dlspec.language.expand.sharing import share_module
from dlspec.language.expand.uses import Blocks, EntryCall, EntryList, KnownBlock, Use, Where, each_copy, in_all
from dlspec.language.expressions.expressions import Wrong
from dlspec.language.parse.block import Block
from dlspec.language.parse.deferred import Deferred, Ref
from dlspec.language.parse.entry import SHARE, Entry, with_bodies
from dlspec.language.parse.params import IN_CHANNELS, Origins, Scope, defaults
from dlspec.language.parse.part import NOTHING
from dlspec.language.problems import Problems
from dlspec.limits import how_to_raise, limit

_OF_LAYERS = ("layout", "tie", "parametrize")
_INSIDE = ("FoldTime", "UnfoldTime")
"""Layers that `TimeDistributed` alone brings in."""


def expand(model: Block, problems: Problems) -> Graph:
    """The network that a model writes; what is wrong in it is a mistake, and left out."""
    return Expander(model, problems).run()


class Expander:
    """Adds the nodes of one network, entry by entry, in the order in which they run."""

    def __init__(self, model: Block, problems: Problems) -> None:
        self.model, self.problems = model, problems
        self.nodes: list[Node] = []
        self.holders: dict[str, str] = {}
        self.names = Names(problems, find_hidden_names(model), names_of_model(model))
        self.stood: dict[KeyPath, None] = {}
        self.active: list[Block] = []
        self.count = 0

    def run(self) -> Graph:
        model, problems = self.model, self.problems
        scope = _model_scope(model, problems)
        inputs = {each.name: Output(Ref(MODEL, each.name), each.path) for each in model.inputs}
        outputs: Mapping[str, Ref] = {}
        before = len(problems)
        with suppress(TooMany):
            found = self.expand_block(KnownBlock(model, scope), inputs or {"": Output(Ref(MODEL))}, Where())
            outputs = _refs(model, found)
        if len(problems) == before:  # a name that was misspelled would leave the right one unread
            check_outputs_taken(model, self.stood, self.names.read, problems)
            check_not_empty(model, not self.nodes, problems)
        stated = [replace(each, facts=scope.evaluate(dict(each.facts), each.path)) for each in model.inputs]
        origins = Origins()
        own = {key: scope.evaluate(each, (*model.path, key), origins) for key, each in model.own.items()}
        problems.origins |= origins
        paths = {name: path for name, (_, path) in model.outputs.items()}
        absent = tuple(find_absent(model, self.stood))
        return Graph(tuple(self.nodes), tuple(stated), outputs, paths, absent, self.holders, own)

    # ---- blocks and lists of entries -------------------------------------------------------------------------------

    def expand_block(self, known: KnownBlock, inputs: Mapping[str, Output], where: Where) -> Output:
        """Expand a block whose params have their values; gives its outputs, the first one first."""
        block, scope = known.block, known.scope
        inside = dict(known.blocks.known)
        blocks = Blocks(inside)
        inside |= {name: KnownBlock(each, scope, blocks) for name, each in block.blocks.items()}
        level = _first_level(inputs)
        self.active.append(block)
        entries = EntryList(block.entries, scope, blocks, level)
        last = self.expand_list(entries, where, is_last_taken=not block.outputs)
        self.active.pop()
        return self._find_outputs(block, level) if block.outputs else Output(last.ref, last.path)

    def _find_outputs(self, block: Block, level: Level) -> Output:
        """The outputs that a block names."""
        self.names.reader = ()
        found = {name: self.names.find(raw, level, path) for name, (raw, path) in block.outputs.items()}
        for name in (name for name, each in found.items() if len(each) > 1):
            raw, path = block.outputs[name]
            fix = "name one copy, or bring them together: Concat"
            self.problems.add(Code.AMBIGUOUS, path, f"'{raw}' names {len(found[name])} outputs", fix, at_value=True)
        outputs = {name: each[0] for name, each in found.items()}
        return replace(next(iter(outputs.values())), further=outputs, is_layer=False, copies=None)

    def expand_list(self, entries: EntryList, where: Where, *, is_last_taken: bool = True) -> Output:
        """Expand entries in order; gives the last output, or what came in where there is none."""
        level = entries.level
        names = [written_name(each) for each in entries.entries]
        last: Entry | None = None
        for place, entry in enumerate(entries.entries):
            level.current = names[place]
            level.later = frozenset(names[place + 1 :]) - {""} if place == 0 else level.later - {names[place]}
            if self._expand_entry(Use(entry, entries.scope, entries.blocks, level), where):
                last = entry
        if last is not None and is_last_taken:
            self.names.read.add(last.path)
        return level.before or WRONG

    def _expand_entry(self, use: Use, where: Where) -> bool:
        """Expand one entry as often as it says; whether its output flows on."""
        entry, level = use.entry, use.level
        rows = rows_of(entry, use.scope)
        output = self.expand_one(use, where) if rows is None else self._expand_copies(use, rows, where)
        if entry.type == PARAMETER:
            check_reachable(entry, self.problems)
            return False
        if output.stands:
            level.before = output
        return output.stands

    def _expand_copies(self, use: Use, rows: Sequence[Row], where: Where) -> Output:
        """Each copy takes what the one before it gave."""
        entry, level = use.entry, use.level
        before, is_each_named = level.before, has_own_names(entry, rows)
        copies: list[Output] = []
        for index, copy in enumerate(each_copy(use, rows)):
            is_first = not any(each.stands for each in copies)
            each = self.expand_one(copy, where, number="" if is_each_named else str(index), is_first=is_first)
            copies.append(each)
            level.before = each if each.stands else level.before
        level.before = before
        output = in_all(copies, entry)
        return output if is_each_named else self._name(use, output)

    def expand_one(self, use: Use, where: Where, *, number: str = "", is_first: bool = True) -> Output:
        """One entry, or one copy of it: tested, its inputs looked up, put into the network and named."""
        entry, level = use.entry, use.level
        self._count(entry)
        if not stands(entry, use.scope):
            mark_inputs(entry, level, self.names)
            absent = Output(None, entry.path, absent="an 'if' removed it")
            return absent if number else self._name(use, absent)
        self.stood.setdefault(entry.path)
        inputs = inputs_of(entry, use.scope, level, self.names, is_first=is_first)
        name = read_name(use, self.problems)
        place = where.child(name or entry.key, number)
        above = inputs or ({0: level.before} if level.before is not None else {})  # a Parameter takes nothing
        use = replace(use, path=place.path, scope=_with_channels(use.scope, above))
        output = replace(self.expand_part(use, inputs, place), path=entry.path, use=use)
        return output if number else name_output(use, output, name, self.problems)

    def _name(self, use: Use, output: Output) -> Output:
        return name_output(use, output, read_name(use, self.problems), self.problems)

    def _count(self, entry: Entry) -> None:
        self.count += 1
        if self.count > limit("layers"):
            found = f"more than {limit('layers'):,} layers"
            self.problems.add(Code.TOO_LARGE, entry.path, found, how_to_raise("layers"))
            raise TooMany

    # ---- one entry becomes nodes -----------------------------------------------------------------------------------

    def expand_part(self, use: Use, inputs: Inputs, where: Where) -> Output:
        """What an entry becomes: a layer, a block's or container's layers, or those of a module that is shared."""
        if use.entry.type == SHARE:
            return share_module(self, use, inputs, where)
        if use.entry.type == FORMULA:
            return self.add_node(_formula_call(use, inputs, where))
        call = self._evaluate(use, inputs, where)
        if call is None:
            return WRONG
        type = call.part.type
        if type in EXPAND or type in use.blocks.known:
            self.holders[".".join(where.use)] = type
        if type in EXPAND:
            return EXPAND[type](self, call)
        if type in use.blocks.known:
            return self._call_block(call)
        if type in _INSIDE:
            fix = "write TimeDistributed: [...]"
            self.problems.add(Code.UNKNOWN_LAYER, call.part.path, f"no layer '{type}'", fix)
            return WRONG
        return self.add_node(call)

    def _evaluate(self, use: Use, inputs: Inputs, where: Where) -> EntryCall | None:
        """The entry with its type and settings evaluated; None where its type can't be."""
        read = use.scope.part(use.entry.part)
        if read is None:
            return None
        part, origins = read
        if part.type != use.entry.type:  # a param named it
            use = replace(use, entry=with_bodies(replace(use.entry, part=part), self.problems))
            part = replace(part, settings=use.entry.part.settings, value=use.entry.part.value)
        if is_bare(use.entry) and use.row:
            part = replace(part, settings=dict(use.row))
            origins |= {(*part.settings_path, name): path for name, path in use.row_origins.items()}
        return EntryCall(use, part, inputs, where, origins)

    def add_node(self, call: EntryCall) -> Output:
        """Add one node, and give its output."""
        use, part, where = call.use, call.part, call.where
        keys = {key: use.scope.evaluate(part.keys[key], part.where(key)) for key in _OF_LAYERS if key in part.keys}
        node = Node(
            ".".join(where.use),
            where.path,
            part,
            {key: each.ref for key, each in call.inputs.items() if each.ref is not None},
            use.at or use.entry.path,
            call.origins,
            layout=keys.get("layout"),
            tie=where.paths_outward(str(keys.get("tie", ""))),
            parametrize=keys.get("parametrize"),
            is_shared=where.path != where.use,
            blocks=tuple(use.blocks.known),
        )
        self.nodes.append(node)
        return Output(Ref(node.id), use.entry.path, is_layer=True)

    def _call_block(self, call: EntryCall) -> Output:
        """Expand a block for the params and inputs that its call gives."""
        known, part, problems = call.use.blocks.known[call.part.type], call.part, self.problems
        block = known.block
        if not may_contain(self.active, block, call, problems):
            return WRONG
        refuse_keys(block, part, _OF_LAYERS, problems)
        if not block.entries:  # that was told
            return WRONG
        given = find_given_params(block, part, problems)
        taken = find_given_inputs(block, call, problems)
        for each in (each for each in block.inputs if each.name in taken):
            taken[each.name] = replace(taken[each.name], path=each.path)
        inside = replace(known, scope=scope_of_call(known, call, given))
        return self.expand_block(inside, taken, call.where)


def _model_scope(model: Block, problems: Problems) -> Scope:
    """The model's params; one that was not given is a mistake."""
    path = (*model.path, "params")
    open_ones = [name for name, default in model.params.items() if default is None]
    for name in open_ones:
        fix = f"give one: model.params.{name}=..."
        problems.add(Code.MISSING_VALUE, (*path, name), f"param '{name}' has no value", fix)
    given = {name: Wrong(name) for name in open_ones}
    return defaults(model.params, given, path, Scope(problems), {})


def _first_level(inputs: Mapping[str, Output]) -> Level:
    """What a block's first entry sees: the inputs, and `_` where there is one alone."""
    level = Level(names={name: each for name, each in inputs.items() if name})
    if len(inputs) == 1:
        level.before = next(iter(inputs.values()))
        return level
    fix = f"say which one it takes, as in from: {next(iter(inputs))}"
    level.no_before = Finding(Code.AMBIGUOUS, f"there are {len(inputs)} inputs ({', '.join(inputs)})", fix)
    return level


def _formula_call(use: Use, inputs: Inputs, where: Where) -> EntryCall:
    """The text of a formula is its own language: its params are put in, and nothing is computed."""
    part = use.entry.part
    text, path = formula_text(part, use.scope)
    rest = {key: each for key, each in part.settings.items() if key != "formula"}
    paths = {**part.key_paths, "formula": path}
    written = replace(part, settings={**rest, "formula": text}, value=NOTHING, key_paths=paths)
    return EntryCall(use, written, inputs, where)


def _refs(model: Block, output: Output) -> dict[str, Ref]:
    if model.outputs:
        return {name: each.ref for name, each in output.further.items() if each.ref is not None}
    return {} if output.ref is None else {"output": output.ref}


def _with_channels(scope: Scope, inputs: Inputs) -> Scope:
    """With `$in_channels`, those of the first input."""
    ref = next((each.ref for each in inputs.values()), None)
    if ref is None:
        return scope
    return scope.with_values({IN_CHANNELS: Deferred("$in_channels", lambda channels: channels(ref))})
