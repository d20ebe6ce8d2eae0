"""Expand a model to a `Graph`: evaluate params, expand blocks and repeats, look up names.

The graph has one node for each layer call. This module uses neither torch nor the registry: whether a layer and its
settings exist is checked later, from the nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from dlspec.errors import Code, Finding, KeyPath
from dlspec.language.expand.block_calls import (
    can_expand_inside,
    find_given_inputs,
    find_given_params,
    make_call_scope,
    report_misplaced_keys,
)
from dlspec.language.expand.containers import CONTAINER_EXPANDERS
from dlspec.language.expand.entry_inputs import (
    FORMULA,
    PARAMETER,
    EntryInputs,
    find_entry_inputs,
    find_output_with_lengths,
    insert_formula_params,
    mark_inputs_used,
)
from dlspec.language.expand.entry_names import (
    check_parameter_named,
    find_hidden_names,
    find_model_names,
    get_written_name,
    name_output,
    read_name,
)
from dlspec.language.expand.entry_use import (
    EntryCall,
    EntryList,
    EntryUse,
    ModulePath,
    ScopedBlock,
    VisibleBlocks,
    combine_copies,
    iterate_copies,
)
from dlspec.language.expand.final_checks import (
    check_copies_used,
    check_not_empty,
    check_outputs_used,
    find_absent_parts,
)
from dlspec.language.expand.graph import MODEL, Graph, Node
from dlspec.language.expand.output_names import INVALID_OUTPUT, EntryOutput, NameLevel, NameLookup
from dlspec.language.expand.repeat_rows import (
    RepeatRow,
    TooManyEntries,
    has_distinct_copy_names,
    has_no_settings,
    is_entry_present,
    read_repeat_rows,
)
from dlspec.language.expand.shared_modules import share_module
from dlspec.language.expressions.expression_parsing import InvalidValue
from dlspec.language.parse.block import Block
from dlspec.language.parse.deferred import Deferred, OutputRef
from dlspec.language.parse.entry import LENGTHS_OF, SHARE, Entry, read_container_bodies
from dlspec.language.parse.params import IN_CHANNELS, INDEX, Origins, Scope, make_block_scope
from dlspec.language.parse.part import NO_VALUE
from dlspec.language.problems import Problems
from dlspec.limits import explain_raising_limit, get_limit

_EVALUATED_KEYS = ("layout", "tie", "parametrize")
_LAYER_ONLY_KEYS = (*_EVALUATED_KEYS, LENGTHS_OF)
_INTERNAL_LAYERS = ("FoldTime", "FoldTimeLike", "UnfoldTime")  # only `TimeDistributed` adds these


def expand_model(model: Block, problems: Problems) -> Graph:
    """Expand a model to a graph. Report problems, and leave out the entries that cause them."""
    return Expander(model, problems).run()


class Expander:
    """Adds the nodes of one network, entry by entry, in the order in which the layers run."""

    def __init__(self, model: Block, problems: Problems) -> None:
        self.model, self.problems = model, problems
        self.nodes: list[Node] = []
        self.container_types: dict[str, str] = {}
        self.names = NameLookup(problems, find_hidden_names(model), find_model_names(model))
        self.present_entries: dict[KeyPath, None] = {}
        self.active_blocks: list[Block] = []
        self.copies: list[tuple[Entry, int, EntryOutput]] = []
        self.entry_count = 0

    def run(self) -> Graph:
        """Expand the whole model."""
        model, problems = self.model, self.problems
        scope = _make_model_scope(model, problems)
        inputs = {each.name: EntryOutput(OutputRef(MODEL, each.name), each.path) for each in model.inputs}
        outputs: Mapping[str, OutputRef] = {}
        before = len(problems)
        with suppress(TooManyEntries):
            found = self.expand_block(
                ScopedBlock(model, scope), inputs or {"": EntryOutput(OutputRef(MODEL))}, ModulePath()
            )
            outputs = _find_output_refs(model, found)
        if len(problems) == before:  # otherwise a misspelled name would also report the right one as unused
            check_outputs_used(model, self.present_entries, self.names.used_paths, problems)
            if problems.spec_version >= 2:
                check_copies_used(self.copies, self.names, problems)
            check_not_empty(model, not self.nodes, self.present_entries, problems)
        model_inputs = [replace(each, facts=scope.evaluate(dict(each.facts), each.path)) for each in model.inputs]
        origins = Origins()
        training_settings = {
            key: scope.evaluate(each, (*model.path, key), origins) for key, each in model.training_settings.items()
        }
        problems.origins |= origins
        paths = {name: path for name, (_, path) in model.outputs.items()}
        absent = tuple(find_absent_parts(model, self.present_entries))
        return Graph(
            tuple(self.nodes), tuple(model_inputs), outputs, paths, absent, self.container_types, training_settings
        )

    # ---- blocks and lists of entries -------------------------------------------------------------------------------

    def expand_block(
        self, scoped_block: ScopedBlock, inputs: Mapping[str, EntryOutput], where: ModulePath
    ) -> EntryOutput:
        """Expand the entries of a block.

        Args:
            scoped_block: the block, with a scope that contains the values of its params.
            inputs: its inputs by name; '' for the single input of a block without `inputs`.
            where: the path of its modules.

        Returns:
            The block's first output, with all of them in `named_outputs`.
        """
        block, scope = scoped_block.block, scoped_block.scope
        inside = dict(scoped_block.blocks.by_name)
        blocks = VisibleBlocks(inside)
        inside |= {name: ScopedBlock(each, scope, blocks) for name, each in block.blocks.items()}
        level = _make_first_level(inputs)
        self.active_blocks.append(block)
        entries = EntryList(block.entries, scope, blocks, level)
        last = self.expand_list(entries, where, is_last_taken=not block.outputs)
        self.active_blocks.pop()
        return self._find_outputs(block, level) if block.outputs else EntryOutput(last.ref, last.path)

    def _find_outputs(self, block: Block, level: NameLevel) -> EntryOutput:
        """Look up the outputs that a block lists under `outputs`."""
        self.names.current_path = ()
        found = {name: self.names.find(raw, level, path) for name, (raw, path) in block.outputs.items()}
        for name in (name for name, each in found.items() if len(each) > 1):
            raw, path = block.outputs[name]
            fix = "name one copy, or combine them with Concat"
            self.problems.add(
                Code.AMBIGUOUS, path, f"'{raw}' refers to {len(found[name])} outputs, expected one", fix, at_value=True
            )
        outputs = {name: each[0] for name, each in found.items()}
        return replace(next(iter(outputs.values())), named_outputs=outputs, is_layer=False, copies=None)

    def expand_list(self, entries: EntryList, where: ModulePath, *, is_last_taken: bool = True) -> EntryOutput:
        """Expand a list of entries in order.

        Args:
            entries: the entries, with their scope, blocks and names.
            where: the path of the list's modules.
            is_last_taken: whether the last output counts as used.

        Returns:
            The last output, or the list's input if no entry has an output.
        """
        level = entries.level
        names = [get_written_name(each) for each in entries.entries]
        last: Entry | None = None
        for position, entry in enumerate(entries.entries):
            level.current = names[position]
            level.later_names = (
                frozenset(names[position + 1 :]) - {""} if position == 0 else level.later_names - {names[position]}
            )
            is_last = position == len(names) - 1
            if self._expand_entry(EntryUse(entry, entries.scope, entries.blocks, level), where, is_last=is_last):
                last = entry
        if last is not None and is_last_taken:
            self.names.used_paths.add(last.path)
            self.names.mark_node_used(level.previous)
        return level.previous or INVALID_OUTPUT

    def _expand_entry(self, use: EntryUse, where: ModulePath, *, is_last: bool) -> bool:
        """Expand one entry with its `repeat`. Return whether its output is the input of the next entry."""
        entry, level = use.entry, use.level
        rows = read_repeat_rows(entry, use.scope)
        output = self.expand_single_entry(use, where) if rows is None else self._expand_copies(use, rows, where)
        if entry.type == PARAMETER or (entry.type == FORMULA and self._takes_no_inputs(output)):
            check_parameter_named(entry, self.problems)
            return False
        if entry.type == FORMULA and not is_last and get_written_name(entry) and self._has_no_batch(output):
            level.passed_over = output
            return False
        if output.is_present:
            level.previous, level.passed_over = output, None
        return output.is_present

    def _takes_no_inputs(self, output: EntryOutput) -> bool:
        return bool(output.find_nodes()) and output.find_nodes() <= self.names.nodes_without_inputs

    def _has_no_batch(self, output: EntryOutput) -> bool:
        return bool(output.find_nodes()) and output.find_nodes() <= self.names.nodes_without_batch

    def _expand_copies(self, use: EntryUse, rows: Sequence[RepeatRow], where: ModulePath) -> EntryOutput:
        """Expand the copies of a repeated entry; each one takes the output of the previous copy."""
        entry, level = use.entry, use.level
        before, is_each_named = level.previous, has_distinct_copy_names(entry, rows)
        copies: list[EntryOutput] = []
        for index, copy in enumerate(iterate_copies(use, rows)):
            is_first = not any(each.is_present for each in copies)
            each = self.expand_single_entry(copy, where, number="" if is_each_named else str(index), is_first=is_first)
            copies.append(each)
            level.previous = each if each.is_present else level.previous
        level.previous = before
        self.copies += [(entry, index, each) for index, each in enumerate(copies)]
        output = combine_copies(copies, entry)
        return output if is_each_named else self._name_entry_output(use, output)

    def expand_single_entry(
        self, use: EntryUse, where: ModulePath, *, number: str = "", is_first: bool = True
    ) -> EntryOutput:
        """Expand one entry or one copy of it: check its `if`, find its inputs, add its nodes, and name its output.

        Args:
            use: the entry with its scope, blocks and names.
            where: the path of the list's modules.
            number: the copy's number, which becomes part of the path; '' for an entry that is not repeated.
            is_first: whether it is the first copy, which reads `from`.

        Returns:
            The entry's output.
        """
        entry, level = use.entry, use.level
        self._count_entry(entry)
        if not is_entry_present(entry, use.scope):
            mark_inputs_used(entry, level, self.names)
            absent = EntryOutput(None, entry.path, absent="an 'if' removed it")
            return absent if number else self._name_entry_output(use, absent)
        self.present_entries.setdefault(entry.path)
        inputs = find_entry_inputs(
            entry, use.scope, level, self.names, is_first=is_first, variables=(INDEX, *use.repeat_row)
        )
        name = read_name(use, self.problems)
        module_path = where.make_child(name or entry.key, number)
        above = inputs or ({0: level.previous} if level.previous is not None else {})  # a Parameter has no inputs
        use = replace(use, path=module_path.path, scope=_add_channels(use.scope, above))
        output = replace(self.expand_part(use, inputs, module_path), path=entry.path, use=use)
        return output if number else name_output(use, output, name, self.problems)

    def _name_entry_output(self, use: EntryUse, output: EntryOutput) -> EntryOutput:
        return name_output(use, output, read_name(use, self.problems), self.problems)

    def _count_entry(self, entry: Entry) -> None:
        self.entry_count += 1
        if self.entry_count > get_limit("layers"):
            found = f"more than {get_limit('layers'):,} layers"
            self.problems.add(Code.TOO_LARGE, entry.path, found, explain_raising_limit("layers"))
            raise TooManyEntries

    # ---- from an entry to nodes ------------------------------------------------------------------------------------

    def expand_part(self, use: EntryUse, inputs: EntryInputs, where: ModulePath) -> EntryOutput:
        """Add the nodes of an entry: a layer, a shared module, or the layers of a block or container.

        Args:
            use: the entry with its scope, blocks and names.
            inputs: its inputs, by position or by the name of an argument.
            where: the path of its module.

        Returns:
            The entry's output.
        """
        if use.entry.type == SHARE:
            return share_module(self, use, inputs, where)
        if use.entry.type == FORMULA:
            return self.add_node(_make_formula_call(use, inputs, where))
        call = self._evaluate_entry(use, inputs, where)
        if call is None:
            return INVALID_OUTPUT
        type = call.part.type
        if type in CONTAINER_EXPANDERS or type in use.blocks.by_name:
            self.container_types[".".join(where.use)] = type
        if type in CONTAINER_EXPANDERS:
            return CONTAINER_EXPANDERS[type](self, call)
        if type in use.blocks.by_name:
            return self._call_block(call)
        if type in _INTERNAL_LAYERS:
            fix = "write TimeDistributed: [...]"
            self.problems.add(Code.UNKNOWN_LAYER, call.part.path, f"unknown layer '{type}'", fix)
            return INVALID_OUTPUT
        return self.add_node(call)

    def _evaluate_entry(self, use: EntryUse, inputs: EntryInputs, where: ModulePath) -> EntryCall | None:
        """Evaluate the type and settings of an entry; return None if its type can't be evaluated."""
        read = use.scope.evaluate_part(use.entry.part)
        if read is None:
            return None
        part, origins = read
        if part.type != use.entry.type:  # a param contains the type
            use = replace(use, entry=read_container_bodies(replace(use.entry, part=part), self.problems))
            part = replace(part, settings=use.entry.part.settings, value=use.entry.part.value)
        if has_no_settings(use.entry) and use.repeat_row:
            part = replace(part, settings=dict(use.repeat_row))
            origins |= {(*part.settings_path, name): path for name, path in use.row_origins.items()}
        return EntryCall(use, part, inputs, where, origins)

    def add_node(self, call: EntryCall) -> EntryOutput:
        """Add one node, and return its output."""
        use, part, where = call.use, call.part, call.where
        keys = {
            key: use.scope.evaluate(part.keys[key], part.path_of(key)) for key in _EVALUATED_KEYS if key in part.keys
        }
        node = Node(
            ".".join(where.use),
            where.path,
            part,
            {key: each.ref for key, each in call.inputs.items() if each.ref is not None},
            use.shared_path or use.entry.path,
            call.origins,
            layout=keys.get("layout"),
            lengths_of=find_output_with_lengths(part, use.scope, use.level, self.names),
            tie=where.list_visible_paths(str(keys.get("tie", ""))),
            parametrize=keys.get("parametrize"),
            is_shared=where.path != where.use,
            blocks=tuple(use.blocks.by_name),
        )
        self.nodes.append(node)
        if all(each.node in self.names.nodes_without_batch for each in node.inputs.values()):
            self.names.nodes_without_batch.add(node.id)
        if not node.inputs:
            self.names.nodes_without_inputs.add(node.id)
        return EntryOutput(OutputRef(node.id), use.entry.path, is_layer=True)

    def _call_block(self, call: EntryCall) -> EntryOutput:
        """Expand a block with the params and inputs of one call."""
        scoped_block, part, problems = call.use.blocks.by_name[call.part.type], call.part, self.problems
        block = scoped_block.block
        if not can_expand_inside(self.active_blocks, block, call, problems):
            return INVALID_OUTPUT
        report_misplaced_keys(block, part, _LAYER_ONLY_KEYS, problems)
        if not block.entries:  # reported already
            return INVALID_OUTPUT
        given = find_given_params(block, part, problems)
        block_inputs = find_given_inputs(block, call, problems)
        for each in (each for each in block.inputs if each.name in block_inputs):
            block_inputs[each.name] = replace(block_inputs[each.name], path=each.path)
        inside = replace(scoped_block, scope=make_call_scope(scoped_block, call, given))
        return self.expand_block(inside, block_inputs, call.where)


def _make_model_scope(model: Block, problems: Problems) -> Scope:
    """Make the scope of the model's params; report params without a value."""
    path = (*model.path, "params")
    unset = [name for name, default in model.params.items() if default is None]
    for name in unset:
        fix = f"write a value in params, or set it on the command line: model.params.{name}=..."
        problems.add(Code.MISSING_VALUE, (*path, name), f"param '{name}' has no value", fix)
    given = {name: InvalidValue(name) for name in unset}
    return make_block_scope(model.params, given, path, Scope(problems), {})


def _make_first_level(inputs: Mapping[str, EntryOutput]) -> NameLevel:
    """Make the names that a block's first entry can use: the inputs, and `_` if there is only one input."""
    level = NameLevel(names={name: each for name, each in inputs.items() if name})
    if len(inputs) == 1:
        level.previous = next(iter(inputs.values()))
        return level
    first = next(iter(inputs))
    fix = f"choose one, for example from: {first}, or {first} in place of _"
    level.no_previous = Finding(
        Code.AMBIGUOUS,
        f"the previous output (_) is ambiguous: there are {len(inputs)} inputs ({', '.join(inputs)})",
        fix,
    )
    return level


def _make_formula_call(use: EntryUse, inputs: EntryInputs, where: ModulePath) -> EntryCall:
    """Make the call of a formula: replace the params in its text. It is not evaluated, since it computes tensors."""
    part = use.entry.part
    text, path = insert_formula_params(part, use.scope)
    rest = {key: each for key, each in part.settings.items() if key != "formula"}
    paths = {**part.key_paths, "formula": path}
    written = replace(part, settings={**rest, "formula": text}, value=NO_VALUE, key_paths=paths)
    return EntryCall(use, written, inputs, where)


def _find_output_refs(model: Block, output: EntryOutput) -> dict[str, OutputRef]:
    if model.outputs:
        return {name: each.ref for name, each in output.named_outputs.items() if each.ref is not None}
    return {} if output.ref is None else {"output": output.ref}


def _add_channels(scope: Scope, inputs: EntryInputs) -> Scope:
    """Add `$in_channels`, the number of channels of the first input, to a scope."""
    ref = next((each.ref for each in inputs.values()), None)
    if ref is None:
        return scope
    return scope.with_values({IN_CHANNELS: Deferred("$in_channels", lambda channels: channels(ref))})
