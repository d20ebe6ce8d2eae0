"""Check a call of a block, and find the params and inputs that it passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlspec.errors import Code, find_closest, suggest
from dlspec.language.expand.entry_use import EntryCall, ScopedBlock
from dlspec.language.expand.output_names import INVALID_OUTPUT, EntryOutput
from dlspec.language.expressions.expression_parsing import InvalidValue
from dlspec.language.parse.block import Block
from dlspec.language.parse.params import Scope, make_block_scope
from dlspec.language.parse.part import NO_VALUE, Part
from dlspec.language.problems import Problems

MAX_BLOCK_DEPTH = 60  # levels of nested blocks


def can_expand_inside(active_blocks: Sequence[Block], block: Block, call: EntryCall, problems: Problems) -> bool:
    """Check that a block can be expanded inside the active blocks: no recursion, and not too deep.

    Args:
        active_blocks: the blocks that are being expanded, the outermost first.
        block: the block that is called.
        call: the call.
        problems: receives a problem if the block can't be expanded.

    Returns:
        Whether it can.
    """
    names = [each.name for each in active_blocks if each.name]
    path = call.use.entry.path
    if any(each.path == block.path for each in active_blocks):
        chain = " -> ".join([*names[names.index(block.name) :], block.name])
        fix = "use another layer here, or repeat the block's entries with 'repeat: N'"
        problems.add(Code.CYCLE, path, f"block '{block.name}' contains itself ({chain})", fix)
        return False
    if len(names) < MAX_BLOCK_DEPTH:
        return True
    problems.add(Code.TOO_LARGE, path, f"blocks are nested more than {MAX_BLOCK_DEPTH} levels deep", "use fewer levels")
    return False


def report_misplaced_keys(block: Block, part: Part, keys: Sequence[str], problems: Problems) -> None:
    """Report keys in the call of a block that only layers can have.

    Args:
        block: the block that is called.
        part: the call as written.
        keys: the keys of layers.
        problems: receives a problem for each such key.
    """
    for key in (each for each in keys if each in part.keys):
        fix = "move it to the layer inside the block that it is meant for"
        problems.add(
            Code.MISPLACED_KEY, part.path_of(key), f"'{key}' is for layers, and '{block.name}' is a block", fix
        )


def make_call_scope(scoped_block: ScopedBlock, call: EntryCall, given: Mapping[str, Any]) -> Scope:
    """Make the scope in which a block's expressions are evaluated for one call.

    Args:
        scoped_block: the block with its own scope.
        call: the call.
        given: the values of the params that the call passes.

    Returns:
        The scope with all params of the block, default values included.
    """
    block, part = scoped_block.block, call.part
    written = {name: part.path_of(name) if part.value is NO_VALUE else part.settings_path for name in given}
    sources = {name: call.origins.get(path, path) for name, path in written.items()}
    return make_block_scope(block.params, given, (*block.path, "params"), scoped_block.scope, sources)


def find_given_params(block: Block, part: Part, problems: Problems) -> dict[str, Any]:
    """Find the params that a call passes to a block.

    Args:
        block: the block that is called.
        part: the call as written.
        problems: receives unknown and missing params.

    Returns:
        The values by name, with an `InvalidValue` for each missing param.
    """
    given = dict(part.settings)
    if part.value is not NO_VALUE:
        if not block.params:
            found = f"block '{block.name}' has no params"
            problems.add(Code.UNKNOWN_PARAM, part.settings_path, found, "write only its name", at_value=True)
            return {}
        given = {block.first_param: part.value}
    unknown = [name for name in given if name not in block.params]
    for name in unknown:
        fix, path = suggest(str(name), block.params) or "it has no params", (*part.settings_path, name)
        problems.add(Code.UNKNOWN_PARAM, path, f"block '{block.name}' has no param '{name}'", fix)
    required = [name for name, default in block.params.items() if default is None and name not in given]
    missing = [name for name in required if not any(find_closest(str(each), [name]) for each in unknown)]
    if missing:
        fix = f"write {block.name}: {{{', '.join(f'{name}: ...' for name in missing)}}}"
        found = f"block '{block.name}' requires {', '.join(missing)}"
        problems.add(Code.MISSING_VALUE, part.settings_path, found, fix)
    known = {name: each for name, each in given.items() if name in block.params}
    return known | {name: InvalidValue(name) for name in required}


def find_given_inputs(block: Block, call: EntryCall, problems: Problems) -> dict[str, EntryOutput]:
    """Find what a call passes to each input of a block.

    Args:
        block: the block that is called.
        call: the call.
        problems: receives unknown, missing and additional inputs.

    Returns:
        The outputs by the inputs' names, with `INVALID_OUTPUT` for each missing input.
    """
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
    """Report inputs that the block does not have, or a wrong number of inputs."""
    part, inputs, names = call.part, call.inputs, [each.name for each in block.inputs] or [""]
    path = part.path_of("from") if "from" in part.keys else call.use.entry.path
    if unknown and "from" in part.keys:
        path = (*path, unknown[0])
    expected = f"{len(names)} inputs ({', '.join(names)})" if len(names) > 1 else "one input"
    found = f"block '{block.name}' expects {expected}, got {len(inputs)}"
    found = f"block '{block.name}' has no input '{unknown[0]}'" if unknown else found
    fix = suggest(unknown[0], names) if unknown and block.inputs else ""
    more = ", ".join(f"{each}: NAME" for each in names[1:])
    inputs_fix = (
        f"name an output for each: from: {{{names[0]}: _, {more}}}" if len(names) > 1 else "write one name in from"
    )
    problems.add(Code.UNKNOWN_OUTPUT if unknown else Code.INPUT_COUNT, path, found, fix or inputs_fix)
