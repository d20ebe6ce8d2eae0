"""Writes a model out: params computed, blocks and repeats in full, names looked up. What comes out is a `Graph`.

Each entry becomes one node for each layer that will be built. No torch here, and no registry: whether a layer and its
settings exist is seen when the nodes are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from dlspec.errors import Code, Finding, KeyPath, near, suggest
from dlspec.language.expand.containers import EXPAND
from dlspec.language.expand.entry_inputs import FORMULA, PARAMETER, Inputs, formula_text, inputs_of, mark_inputs
from dlspec.language.expand.graph import MODEL, Graph, Node
from dlspec.language.expand.output_names import BEFORE, WRONG, Level, Names, Output
from dlspec.language.expand.repeats import Row, TooMany, has_own_names, is_bare, known_early, rows_of, stands
from dlspec.language.expand.uses import Blocks, Use, Where, each_copy, in_all
from dlspec.language.expressions.expressions import Unknown, Wrong, formula_of
from dlspec.language.parse.block import Block
from dlspec.language.parse.deferred import Deferred, Ref
from dlspec.language.parse.entry import CONTAINERS, SHARE, Entry, check_name, is_name, with_bodies
from dlspec.language.parse.params import IN_CHANNELS, Origins, Scope, defaults
from dlspec.language.parse.part import NOTHING, Part
from dlspec.language.problems import Problems
from dlspec.limits import how_to_raise, limit

MOST_BLOCKS = 60
"""So deep may blocks stand in blocks."""


def expand(model: Block, problems: Problems) -> Graph:
    """The network that a model writes; what is wrong in it is a mistake, and left out."""
    return Expander(model, problems).run()


class Expander:
    """Grows the nodes of one network, entry by entry, in the order in which they run."""

    def __init__(self, model: Block, problems: Problems) -> None:
        self.model, self.problems = model, problems
        self.nodes: list[Node] = []
        self.holders: dict[str, str] = {}
        everywhere = {name for each in model.entries if (name := _static_name(each))}
        self.names = Names(problems, _hidden_names(model), everywhere | {each.name for each in model.inputs})
        self.stood: dict[KeyPath, None] = {}
        self.active: list[Block] = []
        self.count = 0

    def run(self) -> Graph:
        model = self.model
        scope = self._model_scope()
        inputs = {each.name: Output(Ref(MODEL, each.name), each.path) for each in model.inputs}
        outputs: Mapping[str, Ref] = {}
        before = len(self.problems)
        with suppress(TooMany):
            found = self.block(model, scope, Blocks(), inputs or {"": Output(Ref(MODEL))}, Where())
            outputs = _refs(model, found)
        if len(self.problems) == before:  # a name that was misspelled would leave the right one unread
            self._check_taken()
            self._check_not_empty()
        stated = [replace(each, facts=scope.evaluate(dict(each.facts), each.path)) for each in model.inputs]
        origins = Origins()
        own = {key: scope.evaluate(each, (*model.path, key), origins) for key, each in model.own.items()}
        self.problems.origins |= origins
        return Graph(
            tuple(self.nodes), tuple(stated), outputs,
            {name: path for name, (_, path) in model.outputs.items()}, tuple(self._absent()), self.holders, own,
        )  # fmt: skip

    def _model_scope(self) -> Scope:
        """The model's params; one that was not given is a mistake."""
        path = (*self.model.path, "params")
        open_ones = [name for name, default in self.model.params.items() if default is None]
        for name in open_ones:
            fix = f"give one: model.params.{name}=..."
            self.problems.add(Code.MISSING_VALUE, (*path, name), f"param '{name}' has no value", fix)
        given = {name: Wrong(name) for name in open_ones}
        return defaults(self.model.params, given, path, Scope(self.problems), {})

    # ---- blocks and lists of entries -------------------------------------------------------------------------------

    def block(self, block: Block, scope: Scope, around: Blocks, inputs: Mapping[str, Output], where: Where) -> Output:
        """Stands a block whose params have their values; gives its outputs, the first one first."""
        known = dict(around.known)
        blocks = Blocks(known)
        known |= {name: (each, scope, blocks) for name, each in block.blocks.items()}
        level = Level(names={name: each for name, each in inputs.items() if name})
        if len(inputs) == 1:
            level.before = next(iter(inputs.values()))
        else:
            fix = f"say which one it takes, as in from: {next(iter(inputs))}"
            level.no_before = Finding(Code.AMBIGUOUS, f"there are {len(inputs)} inputs ({', '.join(inputs)})", fix)
        self.active.append(block)
        last = self.list(block.entries, scope, blocks, level, where, is_last_taken=not block.outputs)
        self.active.pop()
        if not block.outputs:
            return Output(last.ref, last.path)
        self.names.reader = ()
        found = {name: self.names.find(raw, level, path) for name, (raw, path) in block.outputs.items()}
        for name in (name for name, each in found.items() if len(each) > 1):
            raw, path = block.outputs[name]
            fix = "name one copy, or bring them together: Concat"
            self.problems.add(Code.AMBIGUOUS, path, f"'{raw}' names {len(found[name])} outputs", fix, at_value=True)
        outputs = {name: each[0] for name, each in found.items()}
        return replace(next(iter(outputs.values())), further=outputs, is_layer=False, copies=None)

    def list(
        self,
        entries: Sequence[Entry],
        scope: Scope,
        blocks: Blocks,
        level: Level,
        where: Where,
        *,
        is_last_taken: bool = True,
    ) -> Output:
        """Stands entries in order; gives the last output, or what came in where there is none."""
        names = [_static_name(each) for each in entries]
        last: Entry | None = None
        for place, entry in enumerate(entries):
            level.current = names[place]
            level.later = frozenset(names[place + 1 :]) - {""} if place == 0 else level.later - {names[place]}
            if self._entry(Use(entry, scope, blocks, level), where):
                last = entry
        if last is not None and is_last_taken:
            self.names.read.add(last.path)
        return level.before or WRONG

    def _entry(self, use: Use, where: Where) -> bool:
        """Stands one entry as often as it says; whether its output flows on."""
        entry, level = use.entry, use.level
        rows = rows_of(entry, use.scope)
        output = self.one(use, where) if rows is None else self._copies(use, rows, where)
        if entry.type == PARAMETER:
            self._check_reachable(entry)
            return False
        if output.stands:
            level.before = output
        return output.stands

    def _check_reachable(self, entry: Entry) -> None:
        if not _static_name(entry):
            fix = "give it one: Parameter: {shape: [16], name: scale}"
            self.problems.add(Code.MISSING_NAME, entry.path, "a Parameter without a name can't be reached", fix)

    def _copies(self, use: Use, rows: Sequence[Row], where: Where) -> Output:
        """Each copy takes what the one before it gave."""
        entry, level = use.entry, use.level
        before, is_each_named = level.before, has_own_names(entry, rows)
        copies: list[Output] = []
        for index, copy in enumerate(each_copy(use, rows)):
            is_first = not any(each.stands for each in copies)
            each = self.one(copy, where, number="" if is_each_named else str(index), is_first=is_first)
            copies.append(each)
            level.before = each if each.stands else level.before
        level.before = before
        output = in_all(copies, entry)
        return output if is_each_named else self._called(use, output, self.name(use))

    def one(self, use: Use, where: Where, *, number: str = "", is_first: bool = True) -> Output:
        """One entry, or one copy of it: tested, its inputs looked up, stood in the network and named."""
        entry, level = use.entry, use.level
        self._count(entry)
        if not stands(entry, use.scope):
            mark_inputs(entry, level, self.names)
            absent = Output(None, entry.path, absent="an 'if' removed it")
            return absent if number else self._called(use, absent, self.name(use))
        self.stood.setdefault(entry.path)
        inputs = inputs_of(entry, use.scope, level, self.names, is_first=is_first)
        name = self.name(use)
        place = where.child(name or entry.key, number)
        above = inputs or ({0: level.before} if level.before is not None else {})  # a Parameter takes nothing
        use = replace(use, path=place.path, scope=_with_channels(use.scope, above))
        output = replace(self.stand(use, inputs, place), path=entry.path, use=use)
        return output if number else self._called(use, output, name)

    def _count(self, entry: Entry) -> None:
        self.count += 1
        if self.count > limit("layers"):
            self.problems.add(
                Code.TOO_LARGE, entry.path, f"more than {limit('layers'):,} layers", how_to_raise("layers")
            )
            raise TooMany

    # ---- names -----------------------------------------------------------------------------------------------------

    def name(self, use: Use) -> str:
        """The name that `name` gives, '' where there is none or it is wrong."""
        entry = use.entry
        if "name" not in entry.part.keys:
            return ""
        path, raw = entry.part.where("name"), entry.part.keys["name"]
        name = known_early(use.scope.text(raw, path), path, "name", self.problems)
        if isinstance(name, Unknown) or (name == raw and not is_name(name)):  # the latter was told when it was read
            return ""
        if not entry.is_named_by_key:
            return str(name) if check_name(name, path, self.problems, at_value=True) else ""
        found = f"'{entry.key}' and '{name}' both name it"
        self.problems.add(Code.CONFLICT, path, found, "in a mapping the key is the name: remove one", at_value=True)
        return ""

    def _called(self, use: Use, output: Output, name: str) -> Output:
        """The output under its name, which nothing that can be seen has yet."""
        entry, level = use.entry, use.level
        name = name or (entry.key if entry.is_named_by_key else "")
        if name and level.find(name) is not None:
            path = entry.part.where("name") if "name" in entry.part.keys else entry.path
            fix = "names are unique in a block" if name in level.names else "something around it has it: take another"
            self.problems.add(
                Code.NAME_TAKEN, path, f"the name '{name}' is taken", fix, at_value="name" in entry.part.keys
            )
        if name:
            level.names[name] = output
        return output

    # ---- one entry becomes nodes -----------------------------------------------------------------------------------

    def stand(self, use: Use, inputs: Inputs, where: Where) -> Output:
        """What an entry becomes: a layer, a block's or container's layers, or those of a module that is shared."""
        if use.entry.type == SHARE:
            return self._share(use, inputs, where)
        if use.entry.type == FORMULA:
            return self._formula(use, inputs, where)
        read = use.scope.part(use.entry.part)
        if read is None:
            return WRONG
        part, origins = read
        if part.type != use.entry.type:  # a param named it
            use = replace(use, entry=with_bodies(replace(use.entry, part=part), self.problems))
            part = replace(part, settings=use.entry.part.settings, value=use.entry.part.value)
        if is_bare(use.entry) and use.row:
            part = replace(part, settings=dict(use.row))
            origins |= {(*part.settings_path, name): path for name, path in use.row_origins.items()}
        if part.type in EXPAND or part.type in use.blocks.known:
            self.holders[".".join(where.use)] = part.type
        if part.type in EXPAND:
            return EXPAND[part.type](self, use, part, inputs, where)
        if part.type in use.blocks.known:
            return self._call(use, part, origins, inputs, where)
        return self._layer(use, part, origins, inputs, where)

    def _layer(self, use: Use, part: Part, origins: Origins, inputs: Inputs, where: Where) -> Output:
        if part.type in _INSIDE:
            self.problems.add(Code.UNKNOWN_LAYER, part.path, f"no layer '{part.type}'", "write TimeDistributed: [...]")
            return WRONG
        return self.node(use, part, inputs, where, origins)

    def _formula(self, use: Use, inputs: Inputs, where: Where) -> Output:
        """The text of a formula is its own language: its params are put in, and nothing is computed."""
        part = use.entry.part
        text, path = formula_text(part, use.scope)
        rest = {key: each for key, each in part.settings.items() if key != "formula"}
        written = replace(part, settings={**rest, "formula": text}, value=NOTHING)
        return self.node(use, replace(written, key_paths={**part.key_paths, "formula": path}), inputs, where)

    def node(
        self, use: Use, part: Part, inputs: Inputs, where: Where, origins: Mapping[KeyPath, KeyPath] | None = None
    ) -> Output:
        """Adds one node, and gives its output."""
        keys = {key: use.scope.evaluate(part.keys[key], part.where(key)) for key in _OF_LAYERS if key in part.keys}
        around = where.path[:-1]
        tie = str(keys.get("tie", ""))
        node = Node(
            ".".join(where.use),
            where.path,
            part,
            {key: each.ref for key, each in inputs.items() if each.ref is not None},
            use.at or use.entry.path,
            origins or {},
            layout=keys.get("layout"),
            tie=tuple(".".join((*around[:length], tie)) for length in range(len(around), -1, -1)) if tie else (),
            parametrize=keys.get("parametrize"),
            is_shared=where.path != where.use,
            blocks=tuple(use.blocks.known),
        )
        self.nodes.append(node)
        return Output(Ref(node.id), use.entry.path, is_layer=True)

    def _share(self, use: Use, inputs: Inputs, where: Where) -> Output:
        """The module of an entry above, once more."""
        path = use.entry.part.where(SHARE)
        name = known_early(use.scope.text(use.entry.part.keys[SHARE], path), path, SHARE, self.problems)
        if isinstance(name, Unknown):
            return WRONG
        (target, *_) = self.names.look_up(name, use.level, path)
        shared: Use | None = target.use
        if not target.stands:
            fix = "share a layer that stands, or give this entry the same condition"
            self.problems.add(Code.OUTPUT_ABSENT, path, f"'{name}' is not there: {target.absent}", fix, at_value=True)
        elif shared is not None and shared.entry.type in (FORMULA, PARAMETER):
            fix = (
                "write the formula again" if shared.entry.type == FORMULA else f"take it by its name, from: [_, {name}]"
            )
            self.problems.add(Code.UNSUPPORTED, path, f"'{name}' is a {shared.entry.type}", fix, at_value=True)
        elif shared is not None and name != BEFORE:
            return self.stand(replace(shared, at=use.entry.path), inputs, Where(shared.path, where.use))
        elif target.copies is not None:
            fix = f"share one copy, {name}.0, or put the repeat into a Sequential"
            self.problems.add(Code.AMBIGUOUS, path, f"'{name}' is repeated", fix, at_value=True)
        elif target.ref != WRONG.ref:
            self.problems.add(
                Code.WRONG_VALUE, path, f"'{name}' is no layer or block", "name an entry above", at_value=True
            )
        return WRONG

    # ---- a block is called -----------------------------------------------------------------------------------------

    def _call(self, use: Use, part: Part, origins: Origins, inputs: Inputs, where: Where) -> Output:
        block, scope, blocks = use.blocks.known[part.type]
        if not self._may_contain(block, part, use):
            return WRONG
        for key in (each for each in _OF_LAYERS if each in part.keys):
            fix = "write it at the layer inside that it is meant for"
            self.problems.add(Code.MISPLACED_KEY, part.where(key), f"'{key}' at '{block.name}', which is no layer", fix)
        if not block.entries:  # that was told
            return WRONG
        given = self._given(block, part)
        taken = self._named_inputs(block, part, inputs, use)
        for each in (each for each in block.inputs if each.name in taken):
            taken[each.name] = replace(taken[each.name], path=each.path)
        written = {name: part.where(name) if part.value is NOTHING else part.settings_path for name in given}
        sources = {name: origins.get(path, path) for name, path in written.items()}
        inside = defaults(block.params, given, (*block.path, "params"), scope, sources)
        return self.block(block, inside, blocks, taken, where)

    def _may_contain(self, block: Block, part: Part, use: Use) -> bool:
        names = [each.name for each in self.active if each.name]
        if any(each.path == block.path for each in self.active):
            chain = " -> ".join([*names[names.index(block.name) :], block.name])
            fix = "take another layer there, or repeat: a block can't contain itself"
            self.problems.add(Code.CYCLE, use.entry.path, f"block '{block.name}' contains itself ({chain})", fix)
            return False
        if len(names) < MOST_BLOCKS:
            return True
        self.problems.add(
            Code.TOO_LARGE, use.entry.path, f"blocks in blocks, more than {MOST_BLOCKS} deep", "use fewer levels"
        )
        return False

    def _given(self, block: Block, part: Part) -> dict[str, Any]:
        """The params that a call gives, `Wrong` in the place of those that are missing."""
        given = dict(part.settings)
        if part.value is not NOTHING:
            if not block.params:
                found = f"block '{block.name}' has no params"
                self.problems.add(Code.UNKNOWN_PARAM, part.settings_path, found, "write its name alone", at_value=True)
                return {}
            given = {block.first_param: part.value}
        unknown = [name for name in given if name not in block.params]
        for name in unknown:
            fix = suggest(str(name), block.params) or "it has none"
            self.problems.add(
                Code.UNKNOWN_PARAM, (*part.settings_path, name), f"block '{block.name}' has no param '{name}'", fix
            )
        wanted = [name for name, default in block.params.items() if default is None and name not in given]
        missing = [name for name in wanted if not any(near(str(each), [name]) for each in unknown)]
        if missing:
            fix = f"write {block.name}: {{{', '.join(f'{name}: ...' for name in missing)}}}"
            self.problems.add(
                Code.MISSING_VALUE, part.settings_path, f"block '{block.name}' wants {', '.join(missing)}", fix
            )
        known = {name: each for name, each in given.items() if name in block.params}
        return known | {name: Wrong(name) for name in wanted}

    def _named_inputs(self, block: Block, part: Part, inputs: Inputs, use: Use) -> dict[str, Output]:
        """What a call gives to each of the block's inputs, `WRONG` in the place of those that are missing."""
        names = [each.name for each in block.inputs] or [""]
        by_position = {names[at]: each for at, each in enumerate(inputs.values()) if at < len(names)}
        is_named = any(isinstance(key, str) for key in inputs)
        given = {str(key): each for key, each in inputs.items()} if is_named else by_position
        if given.keys() == set(names) and len(inputs) == len(names):
            return {name: given[name] for name in names}
        path = part.where("from") if "from" in part.keys else use.entry.path
        wanted = f"{len(names)} inputs ({', '.join(names)})" if len(names) > 1 else "one input"
        unknown = [name for name in given if name not in names]
        if is_named and unknown and "from" in part.keys:
            path = (*path, unknown[0])
        found = f"block '{block.name}' takes {wanted}, and {len(inputs)} come{'s' if len(inputs) == 1 else ''} in"
        found = f"block '{block.name}' has no input '{unknown[0]}'" if is_named and unknown else found
        fix = suggest(unknown[0], names) if unknown and block.inputs else ""
        more = ", ".join(each.upper() for each in names[1:])
        several = f"write from: [_, {more}], each the name of an output" if len(names) > 1 else "name one"
        self.problems.add(Code.UNKNOWN_OUTPUT if unknown else Code.INPUT_COUNT, path, found, fix or several)
        return {name: given.get(name, WRONG) for name in names}

    # ---- at the end ------------------------------------------------------------------------------------------------

    def _check_taken(self) -> None:
        """An output that nothing takes was forgotten, or its layer is too much."""
        for path in (each for each in self.stood if each not in self.names.read):
            fix = "remove it, or take it: from: NAME, or outputs: [NAME, ...]"
            self.problems.add(Code.UNUSED, path, "nothing takes this output", fix)
        stood = {path[: len(each.path)] for path in self.stood for each in self.model.all_blocks()}
        blocks = [self.model, *(each for each in self.model.all_blocks() if each.path in stood)]
        for each in (each for block in blocks for each in block.inputs):
            if each.path not in self.names.read:
                fix, at_value = f"take it, from: {each.name}, or remove it", isinstance(each.path[-1], int)
                self.problems.add(
                    Code.UNUSED, each.path, f"nothing takes the input '{each.name}'", fix, at_value=at_value
                )

    def _check_not_empty(self) -> None:
        if not self.nodes and self.model.entries:
            fix = "let one stand: what is removed everywhere is no network"
            self.problems.add(
                Code.EMPTY_MODEL,
                (*self.model.path, "layers"),
                "no layer is left: each has an 'if' or stands 0 times",
                fix,
            )

    def _absent(self) -> Iterator[Part]:
        """The parts of entries that stand nowhere: their names are checked all the same."""
        blocks = [self.model, *self.model.all_blocks()]
        names = {each.name for each in blocks} | {SHARE, *CONTAINERS}
        for entry in (each for block in blocks for each in block.all_entries()):
            if entry.path not in self.stood and entry.type not in names and formula_of(entry.type) is None:
                yield entry.part


_OF_LAYERS = ("layout", "tie", "parametrize")
_INSIDE = ("FoldTime", "UnfoldTime")
"""Layers that `TimeDistributed` alone brings in."""


def _refs(model: Block, output: Output) -> dict[str, Ref]:
    if model.outputs:
        return {name: each.ref for name, each in output.further.items() if each.ref is not None}
    return {} if output.ref is None else {"output": output.ref}


def _static_name(entry: Entry) -> str:
    """An entry's name as written."""
    name = entry.part.keys.get("name")
    return name if isinstance(name, str) else entry.key if entry.is_named_by_key else ""


def _with_channels(scope: Scope, inputs: Inputs) -> Scope:
    """With `$in_channels`, those of the first input."""
    ref = next((each.ref for each in inputs.values()), None)
    if ref is None:
        return scope
    return scope.with_values({IN_CHANNELS: Deferred("$in_channels", lambda channels: channels(ref))})


def _hidden_names(model: Block) -> dict[str, str]:
    """Names inside containers and blocks, and what holds them: for those who look for them outside."""
    hidden: dict[str, str] = {}
    for block in (model, *model.all_blocks()):
        for entry in block.all_entries():
            inside = [each for body in entry.bodies.values() for each in body]
            hidden |= {name: f"a {entry.type}" for each in inside if (name := _static_name(each))}
        if block.name:
            hidden |= {name: f"block '{block.name}'" for each in block.entries if (name := _static_name(each))}
    return hidden
