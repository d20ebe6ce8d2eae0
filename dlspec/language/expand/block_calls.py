"""What a call gives to a block: its params and its inputs, and whether the block may stand there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlspec.errors import Code, find_closest, suggest
from dlspec.language.expand.entry_use import EntryCall, ScopedBlock
from dlspec.language.expand.output_names import INVALID_OUTPUT, EntryOutput
from dlspec.language.expressions.evaluator import InvalidValue
from dlspec.language.parse.block import Block
from dlspec.language.parse.params import Scope, make_block_scope
from dlspec.language.parse.part import NO_VALUE, Part
from dlspec.language.problems import Problems

MAX_BLOCK_DEPTH = 60  # levels of blocks in blocks


def can_contain(active_blocks: Sequence[Block], block: Block, call: EntryCall, problems: Problems) -> bool:
    """Whether a block may stand in those that are being expanded."""
    names = [each.name for each in active_blocks if each.name]
    path = call.use.entry.path
    if any(each.path == block.path for each in active_blocks):
        chain = " -> ".join([*names[names.index(block.name) :], block.name])
        fix = "take another layer there, or repeat: a block can't contain itself"
        problems.add(Code.CYCLE, path, f"block '{block.name}' contains itself ({chain})", fix)
        return False
    if len(names) < MAX_BLOCK_DEPTH:
        return True
    problems.add(Code.TOO_LARGE, path, f"blocks in blocks, more than {MAX_BLOCK_DEPTH} deep", "use fewer levels")
    return False


def report_misplaced_keys(block: Block, part: Part, keys: Sequence[str], problems: Problems) -> None:
    """Keys of a layer at a block's call are mistakes."""
    for key in (each for each in keys if each in part.keys):
        fix = "write it at the layer inside that it is meant for"
        problems.add(Code.MISPLACED_KEY, part.path_of(key), f"'{key}' at '{block.name}', which is no layer", fix)


def make_call_scope(scoped_block: ScopedBlock, call: EntryCall, given: Mapping[str, Any]) -> Scope:
    """What the formulas in a block see, for the params that its call gives."""
    block, part = scoped_block.block, call.part
    written = {name: part.path_of(name) if part.value is NO_VALUE else part.settings_path for name in given}
    sources = {name: call.origins.get(path, path) for name, path in written.items()}
    return make_block_scope(block.params, given, (*block.path, "params"), scoped_block.scope, sources)


def find_given_params(block: Block, part: Part, problems: Problems) -> dict[str, Any]:
    """The params that a call gives, `Wrong` in the place of those that are missing."""
    given = dict(part.settings)
    if part.value is not NO_VALUE:
        if not block.params:
            found = f"block '{block.name}' has no params"
            problems.add(Code.UNKNOWN_PARAM, part.settings_path, found, "write its name alone", at_value=True)
            return {}
        given = {block.first_param: part.value}
    unknown = [name for name in given if name not in block.params]
    for name in unknown:
        fix, path = suggest(str(name), block.params) or "it has none", (*part.settings_path, name)
        problems.add(Code.UNKNOWN_PARAM, path, f"block '{block.name}' has no param '{name}'", fix)
    required = [name for name, default in block.params.items() if default is None and name not in given]
    missing = [name for name in required if not any(find_closest(str(each), [name]) for each in unknown)]
    if missing:
        fix = f"write {block.name}: {{{', '.join(f'{name}: ...' for name in missing)}}}"
        found = f"block '{block.name}' wants {', '.join(missing)}"
        problems.add(Code.MISSING_VALUE, part.settings_path, found, fix)
    known = {name: each for name, each in given.items() if name in block.params}
    return known | {name: InvalidValue(name) for name in required}


def find_given_inputs(block: Block, call: EntryCall, problems: Problems) -> dict[str, EntryOutput]:
    """What a call gives to each of the block's inputs, `WRONG` in the place of those that are missing."""
    inputs = call.inputs
    names = [each.name for each in block.inputs] or [""]
    by_position = {names[at]: each for at, each in enumerate(inputs.values()) if at < len(names)}
    is_named = any(isinstance(key, str) for key in inputs)
    given = {str(key): each for key, each in inputs.items()} if is_named else by_position
    if given.keys() == set(names) and len(inputs) == len(names):
        return {name: given[name] for name in names}
    unknown = [name for name in given if name not in names]
    _report_wrong_inputs(block, call, unknown, problems)
    return {name: given.get(name, INVALID_OUTPUT) for name in names}


def _report_wrong_inputs(block: Block, call: EntryCall, unknown: Sequence[str], problems: Problems) -> None:
    """The block has no inputs of the `unknown` names, or not as many inputs as come in."""
    part, inputs, names = call.part, call.inputs, [each.name for each in block.inputs] or [""]
    path = part.path_of("from") if "from" in part.keys else call.use.entry.path
    if unknown and "from" in part.keys:
        path = (*path, unknown[0])
    expected = f"{len(names)} inputs ({', '.join(names)})" if len(names) > 1 else "one input"
    found = f"block '{block.name}' takes {expected}, and {len(inputs)} come{'s' if len(inputs) == 1 else ''} in"
    found = f"block '{block.name}' has no input '{unknown[0]}'" if unknown else found
    fix = suggest(unknown[0], names) if unknown and block.inputs else ""
    more = ", ".join(each.upper() for each in names[1:])
    inputs_fix = f"write from: [_, {more}], each the name of an output" if len(names) > 1 else "name one"
    problems.add(Code.UNKNOWN_OUTPUT if unknown else Code.INPUT_COUNT, path, found, fix or inputs_fix)
