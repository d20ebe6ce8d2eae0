"""A model as written: its params, blocks, inputs, entries and outputs, each with its place. No formula is computed.

Reading tells every mistake of form, in blocks and branches that a network may not have, too. `dlspec.language.expand`
then computes and writes out. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import Code, KeyPath, find_closest, format_value, suggest
from dlspec.language.expressions import evaluator, expression_functions
from dlspec.language.expressions.evaluator import InvalidValue
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
TRAINING_KEYS = ("loss", "init", "freeze")
"""What a model may bring along for its training."""
MODEL_KEYS = (*BLOCK_KEYS, *TRAINING_KEYS)


@dataclass(frozen=True)
class Block:
    """A network with params, used like a layer. The model is the outermost one; it alone has things of its `own`."""

    name: str
    path: KeyPath
    params: Mapping[str, Any]
    blocks: Mapping[str, Block]
    inputs: tuple[ModelInput, ...]
    entries: tuple[Entry, ...]
    outputs: Mapping[str, tuple[Any, KeyPath]] = field(default_factory=dict)
    training_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def first_param(self) -> str:
        return next(iter(self.params), "")

    def all_blocks(self) -> Iterator[Block]:
        """The blocks in it, and those in them."""
        for each in self.blocks.values():
            yield each
            yield from each.all_blocks()

    def all_entries(self) -> Iterator[Entry]:
        """The entries, and those in containers; not those of blocks."""
        queue = list(self.entries)
        for each in queue:
            yield each
            queue += [inner for body in each.bodies.values() for inner in body]


def read_model(raw: Any, path: KeyPath, problems: Problems) -> Block | None:
    """The model that `raw` writes, or None where it has no layers to speak of."""
    if isinstance(raw, InvalidValue):
        return None
    if not isinstance(raw, dict):
        found = "no model" if raw is None else f"{format_value(raw)} is no model"
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
            problems.add(Code.UNKNOWN_KEY, (*path, key), f"no key '{key}' in a model", suggest(str(key), MODEL_KEYS))
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
    """A block that no entry names was misspelled or forgotten, where no param could name it."""
    entries = [entry for each in (block, *block.all_blocks()) for entry in each.all_entries()]
    types = {each.type for each in entries}
    if any("$" in each for each in types):
        return
    for name in (name for name in block.blocks if name not in types and name not in _reserved_names()):
        guess = find_closest(name, types - block.blocks.keys())
        fix = f"did you mean '{guess}' there?" if guess else f"remove it, or let an entry say - {name}"
        problems.add(Code.UNUSED, (*block.path, "blocks", name), f"nothing uses block '{name}'", fix, at_key=True)


# ---- params and blocks ---------------------------------------------------------------------------------------------


def _check_all_params_used(block: Block, raw: Mapping[str, Any], problems: Problems) -> None:
    """A param that stands in no formula of the block, nor of a block in it, is one that was misspelled or forgotten."""
    used = _find_words_used(raw)
    for name in (each for each in block.params if each not in used):
        guess = find_closest(name, used & block.params.keys())
        fix = f"did you mean '{guess}'?" if guess else f"remove it, or write it as ${name}"
        problems.add(Code.UNUSED, (*block.path, "params", name), f"nothing uses param '{name}'", fix)


def _find_words_used(raw: Mapping[str, Any]) -> set[str]:
    """The words in a block's formulas, less those that a block in it or a repeat has for its own."""
    blocks = raw.get("blocks")
    words = find_expression_words({key: each for key, each in raw.items() if key not in ("blocks", "layers")})
    for inner in blocks.values() if isinstance(blocks, dict) else ():
        if isinstance(inner, dict):
            own = inner.get("params")
            words |= _find_words_used(inner) - (own.keys() if isinstance(own, dict) else set())
    layers = raw.get("layers")
    for entry in evaluator.children_of(layers):
        words |= find_expression_words(entry) - _find_repeat_variables(entry)
    return words


def _find_repeat_variables(entry: Any) -> set[Any]:
    """The names that an entry's `repeat` gives a value of its own, where it reads none of them itself."""
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
        problems.add(Code.WRONG_TYPE, path, "blocks are a mapping from names to blocks", fix, at_value=True)
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
            found = f"no key '{key}' in a block"
            fix = "it belongs to the model" if key in MODEL_KEYS else suggest(str(key), BLOCK_KEYS)
            problems.add(Code.UNKNOWN_KEY, (*path, name, key), found, fix)
        blocks[name] = _read_block(name, inner, (*path, name), problems)
    return blocks


def _check_block_name(name: Any, path: KeyPath, problems: Problems) -> bool:
    reserved = _reserved_names()
    if not is_valid_name(name):
        problems.add(Code.INVALID_NAME, path, f"{format_value(name)} can't name a block", NAME_FIX, at_key=True)
        return False
    if name in reserved:
        what = "a function of Formula" if name in FORMULA_FUNCTIONS else "a word of the language"
        problems.add(
            Code.INVALID_NAME, path, f"'{name}' can't name a block: it is {what}", "take another word", at_key=True
        )
        return False
    return True


def _reserved_names() -> set[str]:
    """What no block may be called."""
    own = (*ENTRY_KEYS, *CONTAINERS, *FORMULA_FUNCTIONS, "type", "Formula", "Parameter")
    return {*own, *expression_functions.EXPRESSION_FUNCTIONS, *evaluator.CONSTANTS}


# ---- outputs -------------------------------------------------------------------------------------------------------


def _read_outputs(raw: Any, path: KeyPath, problems: Problems) -> dict[str, tuple[Any, KeyPath]]:
    """For each output's name the reference that gives it, as written, and its place."""
    if raw is None or isinstance(raw, InvalidValue):
        return {}
    if isinstance(raw, str):
        raw = [raw]
    if not isinstance(raw, dict | list) or not raw:
        fix = "write outputs: [NAME, OTHER] or outputs: {real: NAME}"
        problems.add(
            Code.WRONG_TYPE, path, f"outputs are {format_value(raw)}, wanted names of entries", fix, at_value=True
        )
        return {}
    if isinstance(raw, dict):
        return {name: (each, (*path, name)) for name, each in raw.items() if check_name(name, (*path, name), problems)}
    found: dict[str, tuple[Any, KeyPath]] = {}
    for index, each in enumerate(raw):
        name, where = str(each).replace(".", "_") if isinstance(each, str) else each, (*path, index)
        if str(each).lstrip("-").isdigit() or each == "_":
            fix = "give the entry a name, as in {Linear: 10, name: logits}, and write that"
            problems.add(Code.INVALID_NAME, where, f"{format_value(each)} is no name of an output", fix, at_value=True)
        elif isinstance(name, str) and name in found:
            problems.add(
                Code.NAME_TAKEN, where, f"'{each}' stands twice among the outputs", "name it once", at_value=True
            )
        elif check_name(name, where, problems, at_value=True):
            found[name] = (each, where)
    return found


# ---- entries -------------------------------------------------------------------------------------------------------


def _read_layers(raw: Any, path: KeyPath, problems: Problems) -> tuple[Entry, ...]:
    """Each entry under its name: a list's index, or a mapping's key. A mapping's null is an entry that was removed."""
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
        fix = f"a model may have {get_limit('layers'):,}; {explain_raising_limit('layers')}"
        problems.add(Code.TOO_LARGE, path, f"{count:,} layers", fix)
        return
    fix = "write 'layers:' and below it '- Flatten', '- Linear: 10', ..."
    if raw is None or isinstance(raw, dict | list):
        problems.add(Code.EMPTY_MODEL, path, "no layers", fix, at_value=isinstance(raw, list))
    else:
        problems.add(
            Code.WRONG_TYPE, path, f"{format_value(raw)} is neither a list nor a mapping of layers", fix, at_value=True
        )
