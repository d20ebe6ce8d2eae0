"""Read a model as written: its params, blocks, inputs, entries and outputs, each with its path.

Nothing is evaluated here; `dlspec.language.expand` does that. So problems of form are also found in blocks and
branches that the final network does not use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import Code, KeyPath, find_closest, format_value, suggest
from dlspec.language.expressions import expression_functions, expression_parsing
from dlspec.language.expressions.expression_parsing import InvalidValue
from dlspec.language.expressions.formula_functions import FORMULA_FUNCTIONS
from dlspec.language.parse.entry import (
    CONTAINERS,
    NAME_FIX,
    Entry,
    check_name,
    find_expression_words,
    is_valid_name,
    read_entries,
)
from dlspec.language.parse.model_inputs import ModelInput, read_inputs
from dlspec.language.parse.params import read_params
from dlspec.language.parse.part import ENTRY_KEYS
from dlspec.language.problems import Problems
from dlspec.limits import explain_raising_limit, get_limit

BLOCK_KEYS = ("params", "blocks", "inputs", "layers", "outputs")
TRAINING_KEYS = ("loss", "init", "freeze")  # a model's defaults for its training
MODEL_KEYS = (*BLOCK_KEYS, *TRAINING_KEYS)


@dataclass(frozen=True)
class Block:
    """A named list of entries with params, used like a layer. The model is the outermost block, with the name ''."""

    name: str
    path: KeyPath
    params: Mapping[str, Any]
    blocks: Mapping[str, Block]
    inputs: tuple[ModelInput, ...]
    entries: tuple[Entry, ...]
    outputs: Mapping[str, tuple[Any, KeyPath]] = field(default_factory=dict)  # by name: the reference and its path
    training_settings: Mapping[str, Any] = field(default_factory=dict)  # of the model only: loss, init, freeze

    @property
    def first_param(self) -> str:
        """Name of the first param, which a single value such as `- Block: 64` sets; '' if the block has none."""
        return next(iter(self.params), "")

    def all_blocks(self) -> Iterator[Block]:
        """Iterate over the blocks defined in this one, at all levels."""
        for each in self.blocks.values():
            yield each
            yield from each.all_blocks()

    def all_entries(self) -> Iterator[Entry]:
        """Iterate over the entries, including those in containers, but not those of inner blocks."""
        queue = list(self.entries)
        for each in queue:
            yield each
            queue += [inner for body in each.bodies.values() for inner in body]


def read_model(raw: Any, path: KeyPath, problems: Problems) -> Block | None:
    """Read a model.

    Args:
        raw: Value of `model` in the config.
        path: Its path.
        problems: Collects what is wrong.

    Returns:
        The model, or None if `raw` is not a mapping.
    """
    if isinstance(raw, InvalidValue):
        return None
    if not isinstance(raw, dict):
        found = "no model" if raw is None else f"a model must be a mapping with 'layers', got {format_value(raw)}"
        problems.add(
            Code.EMPTY_MODEL if raw is None else Code.WRONG_TYPE,
            path,
            found,
            "write 'layers:' and a list of layers, or choose one: model=cnn",
            at_value=True,
        )
        return None
    for key in raw:
        if key not in MODEL_KEYS:
            problems.add(
                Code.UNKNOWN_KEY, (*path, key), f"unknown key '{key}' in a model", suggest(str(key), MODEL_KEYS)
            )
    return _read_block("", raw, path, problems)


def _read_block(name: str, raw: dict[str, Any], path: KeyPath, problems: Problems) -> Block:
    params = read_params(raw.get("params"), (*path, "params"), problems)
    block = Block(
        name,
        path,
        params,
        _read_blocks(raw.get("blocks"), (*path, "blocks"), problems),
        read_inputs(raw.get("inputs"), (*path, "inputs"), problems, is_model=not name),
        _read_layers(raw.get("layers"), (*path, "layers"), problems),
        _read_outputs(raw.get("outputs"), (*path, "outputs"), problems),
        {key: raw[key] for key in TRAINING_KEYS if raw.get(key) is not None},
    )
    if block.entries:
        _check_all_params_used(block, raw, problems)
        _check_all_blocks_used(block, problems)
    return block


def _check_all_blocks_used(block: Block, problems: Problems) -> None:
    """Report blocks that no entry names, unless an entry's type is a param, which could name any block."""
    entries = [entry for each in (block, *block.all_blocks()) for entry in each.all_entries()]
    types = {each.type for each in entries}
    if any("$" in each for each in types):
        return
    for name in (name for name in block.blocks if name not in types and name not in _reserved_names()):
        guess = find_closest(name, types - block.blocks.keys())
        fix = f"remove it, or use it in an entry: - {name}"
        fix += f" (is '{guess}' a misspelling of it?)" if guess else ""
        problems.add(Code.UNUSED, (*block.path, "blocks", name), f"block '{name}' is never used", fix, at_key=True)


# ---- params and blocks ---------------------------------------------------------------------------------------------


def _check_all_params_used(block: Block, raw: Mapping[str, Any], problems: Problems) -> None:
    """Report params that no expression uses, neither in the block nor in a block inside it."""
    used = _find_names_used_in_expressions(raw)
    for name in (each for each in block.params if each not in used):
        guess = find_closest(name, used & block.params.keys())
        found, fix = f"param '{name}' is never used", f"remove it, or use it as ${name}"
        inner = next((each for each in block.all_blocks() if name in each.params), None)
        if inner is not None:
            found = f"the {f'block {block.name!r}' if block.name else 'model'} does not use its param '{name}'"
            own = ".".join(str(each) for each in (*inner.path, "params", name))
            fix = f"block '{inner.name}' has its own: set {own}{_format_assigned(block.params[name])} instead"
        elif guess:
            fix = f"did you mean '{guess}'?"
        elif name in find_expression_words(raw.get("layers")):
            fix = f"'repeat' sets another ${name}: remove the param, or rename one of them"
        problems.add(Code.UNUSED, (*block.path, "params", name), found, fix)


def _format_assigned(value: Any) -> str:
    """Format a param's value as an override assigns it, `=3`; '' for values that need quotes in a shell."""
    return f"={value}" if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _find_names_used_in_expressions(raw: Mapping[str, Any]) -> set[str]:
    """Find the names in a block's expressions, except those of inner blocks' params and of a repeat's variables."""
    blocks = raw.get("blocks")
    words = find_expression_words({key: each for key, each in raw.items() if key not in ("blocks", "layers")})
    for inner in blocks.values() if isinstance(blocks, dict) else ():
        if isinstance(inner, dict):
            own = inner.get("params")
            words |= _find_names_used_in_expressions(inner) - (own.keys() if isinstance(own, dict) else set())
    layers = raw.get("layers")
    for entry in expression_parsing.list_children(layers):
        words |= find_expression_words(entry) - _find_repeat_variables(entry)
    return words


def _find_repeat_variables(entry: Any) -> set[Any]:
    """Find the variables that an entry's `repeat` defines, without those that `repeat` itself reads."""
    inner = next(iter(entry.values()), None) if isinstance(entry, dict) else None
    repeat = entry.get("repeat") if isinstance(entry, dict) else None
    repeat = inner.get("repeat") if repeat is None and isinstance(inner, dict) else repeat
    rows = repeat if isinstance(repeat, list) else [repeat]
    return {name for row in rows if isinstance(row, dict) for name in row} - find_expression_words(repeat)


def _read_blocks(raw: Any, path: KeyPath, problems: Problems) -> dict[str, Block]:
    if raw is None or isinstance(raw, InvalidValue):
        return {}
    if not isinstance(raw, dict):
        fix = "write 'blocks:', below it a block's name, and below that 'layers:'"
        problems.add(Code.WRONG_TYPE, path, "'blocks' must be a mapping from names to blocks", fix, at_value=True)
        return {}
    blocks: dict[str, Block] = {}
    for name, inner in raw.items():
        if not _check_block_name(name, (*path, name), problems) and not is_valid_name(name):
            continue
        if not isinstance(inner, dict) or (inner and all(str(key)[:1].isupper() for key in inner)):
            found, fix = f"block '{name}' has no 'layers'", "write 'layers:' below its name, and its layers below that"
            problems.add(Code.MISSING_VALUE, (*path, name), found, fix)
            blocks[name] = Block(name, (*path, name), {}, {}, (), ())
            continue
        for key in (each for each in inner if each not in BLOCK_KEYS):
            found = f"unknown key '{key}' in a block"
            fix = "move it to the model" if key in MODEL_KEYS else suggest(str(key), BLOCK_KEYS)
            problems.add(Code.UNKNOWN_KEY, (*path, name, key), found, fix)
        blocks[name] = _read_block(name, inner, (*path, name), problems)
    return blocks


def _check_block_name(name: Any, path: KeyPath, problems: Problems) -> bool:
    reserved = _reserved_names()
    if not is_valid_name(name):
        problems.add(
            Code.INVALID_NAME, path, f"{format_value(name)} is not a valid name for a block", NAME_FIX, at_key=True
        )
        return False
    if name in reserved:
        what = "a function of Formula has this name" if name in FORMULA_FUNCTIONS else "the name is reserved"
        problems.add(
            Code.INVALID_NAME, path, f"a block can't be named '{name}': {what}", "use another name", at_key=True
        )
        return False
    return True


def _reserved_names() -> set[str]:
    """Names that a block may not have."""
    own = (*ENTRY_KEYS, *CONTAINERS, *FORMULA_FUNCTIONS, "type", "Formula", "Parameter")
    return {*own, *expression_functions.EXPRESSION_FUNCTIONS, *expression_parsing.CONSTANTS}


# ---- outputs -------------------------------------------------------------------------------------------------------


def _read_outputs(raw: Any, path: KeyPath, problems: Problems) -> dict[str, tuple[Any, KeyPath]]:
    """Read the outputs: for each name the reference as written, such as an entry's name, and its path."""
    if raw is None or isinstance(raw, InvalidValue):
        return {}
    if isinstance(raw, str):
        raw = [raw]
    if not isinstance(raw, dict | list) or not raw:
        fix = "write outputs: [NAME, ...] or outputs: {OUTPUT: NAME}"
        problems.add(
            Code.WRONG_TYPE, path, f"'outputs' must be names of entries, got {format_value(raw)}", fix, at_value=True
        )
        return {}
    if isinstance(raw, dict):
        return {name: (each, (*path, name)) for name, each in raw.items() if check_name(name, (*path, name), problems)}
    found: dict[str, tuple[Any, KeyPath]] = {}
    for index, each in enumerate(raw):
        name, where = str(each).replace(".", "_") if isinstance(each, str) else each, (*path, index)
        if str(each).lstrip("-").isdigit() or each == "_":
            fix = "give the entry a name, as in {Linear: 10, name: logits}, and use that"
            problems.add(Code.INVALID_NAME, where, f"{format_value(each)} is not an output's name", fix, at_value=True)
        elif isinstance(name, str) and name in found:
            problems.add(
                Code.NAME_TAKEN, where, f"output '{each}' is listed twice", "remove one of the two", at_value=True
            )
        elif isinstance(each, str) and each.endswith(".*"):
            found_here, fix = f"'{each}' refers to all copies, expected one output", f"name one copy: {each[:-1]}0"
            problems.add(Code.INVALID_NAME, where, found_here, fix, at_value=True)
        elif check_name(name, where, problems, at_value=True):
            found[name] = (each, where)
    return found


# ---- entries -------------------------------------------------------------------------------------------------------


def _read_layers(raw: Any, path: KeyPath, problems: Problems) -> tuple[Entry, ...]:
    """Read the entries of a list or mapping. A null in a mapping is an entry that an override removed."""
    if isinstance(raw, InvalidValue):
        return ()
    if isinstance(raw, dict):
        entries = [(key, each) for key, each in raw.items() if each is not None]
    else:
        entries = list(enumerate(raw)) if isinstance(raw, list) else []
    if not entries or len(entries) > get_limit("layers"):
        _report_no_layers(raw, len(entries), path, problems)
        return ()
    for key, _ in entries if isinstance(raw, dict) else ():
        check_name(key, (*path, key), problems)
    return read_entries(entries, path, problems)


def _report_no_layers(raw: Any, count: int, path: KeyPath, problems: Problems) -> None:
    if count:
        fix = f"at most {get_limit('layers'):,} are allowed; {explain_raising_limit('layers')}"
        problems.add(Code.TOO_LARGE, path, f"{count:,} layers", fix)
        return
    fix = "write 'layers:' and below it '- Flatten', '- Linear: 10', ..."
    if raw is None or isinstance(raw, dict | list):
        problems.add(Code.EMPTY_MODEL, path, "'layers' is missing or empty", fix, at_value=isinstance(raw, list))
    else:
        problems.add(
            Code.WRONG_TYPE, path, f"'layers' must be a list or a mapping, got {format_value(raw)}", fix, at_value=True
        )
