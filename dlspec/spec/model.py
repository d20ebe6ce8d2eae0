"""A model as typed nodes: read from its YAML, then expanded with its params. No torch here.

Reading keeps what was written, with places; expanding evaluates formulas and gives one `Node` for each layer that
will be built. Building (dlspec.building) knows nothing of params.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import shown, suggest
from dlspec.layouts import LAYOUTS, Layout
from dlspec.spec import expressions
from dlspec.spec.expressions import Unknown, Wrong
from dlspec.spec.mistakes import Mistakes
from dlspec.spec.params import Scope, read_params
from dlspec.spec.parts import Part, parse_part
from dlspec.spec.yaml_files import KeyPath

NOT_YET_KEYS = ("from", "repeat", "if", "tie", "share", "parametrize")
NOT_YET_MODEL = ("blocks", "outputs", "init", "freeze")
MODEL_KEYS = ("params", "inputs", "layers", "loss")
MAX_LAYERS = 10_000


@dataclass(frozen=True)
class Input:
    """What a model states of one input: null in `shape` is open."""

    name: str
    path: KeyPath
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """Params, inputs and entries as written. A model is the outermost block."""

    path: KeyPath
    params: Mapping[str, Any]
    inputs: tuple[Input, ...]
    entries: tuple[tuple[str, Part], ...]
    loss: Part | None = None
    # Words of what was refused: a param that stands only there is not called unused.
    other_words: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Node:
    """One layer to build: its name in the state dict, its formulas evaluated. `inputs` are names of nodes before."""

    name: str
    part: Part
    inputs: tuple[str, ...]
    layout: Layout | None = None


def read_model(raw: Any, path: KeyPath, mistakes: Mistakes) -> Block | None:
    """The model that `raw` writes, or None where it has no layers to speak of."""
    if isinstance(raw, Wrong):
        return None
    if not isinstance(raw, dict):
        mistakes.add(
            path,
            "no model" if raw is None else f"{shown(raw)} is no model",
            "write 'layers:' and a list of layers, or choose one: model=cnn",
            at_value=True,
        )
        return None
    _check_keys(raw, path, mistakes)
    loss, layers = raw.get("loss"), raw.get("layers")
    entries = _read_layers(layers, (*path, "layers"), mistakes)
    refused = [raw[key] for key in raw if key not in MODEL_KEYS]
    if len(entries) < (len(layers) if isinstance(layers, list | dict) else 1):
        refused.append(layers)
    return Block(
        path,
        params=read_params(raw.get("params"), (*path, "params"), mistakes),
        inputs=_read_inputs(raw.get("inputs"), (*path, "inputs"), mistakes),
        entries=entries,
        loss=None if loss is None else parse_part(loss, (*path, "loss"), mistakes, kind="loss"),
        other_words=frozenset(expressions.words_in(str(refused))),
    )


def _check_keys(raw: dict[str, Any], path: KeyPath, mistakes: Mistakes) -> None:
    for key in raw:
        if key in NOT_YET_MODEL:
            mistakes.add((*path, key), f"'{key}' is not there yet", "this version has params, inputs, layers and loss")
        elif key not in MODEL_KEYS:
            mistakes.add((*path, key), f"no key '{key}' in a model", suggest(str(key), [*MODEL_KEYS, *NOT_YET_MODEL]))


def _read_inputs(raw: Any, path: KeyPath, mistakes: Mistakes) -> tuple[Input, ...]:
    if raw is None or isinstance(raw, Wrong):
        return ()
    named: list[tuple[Any, Any, KeyPath]] = []
    if isinstance(raw, dict):
        named = [(name, facts, (*path, name)) for name, facts in raw.items()]
    elif isinstance(raw, list):
        named = [(name, None, (*path, index)) for index, name in enumerate(raw)]
    else:
        fix = "write 'inputs: [image]' or 'inputs: {image: {shape: [1, 28, 28]}}'"
        mistakes.add(path, "inputs are a list of names or a mapping", fix, at_value=True)
    for name, _, where in named:
        if isinstance(name, dict):
            fix = "write inputs: {NAME: {...}}, without the brackets"
            mistakes.add(where, "a mapping in a list of names", fix, at_value=True)
            continue
        _check_name(name, where, mistakes, "input", at_value=isinstance(raw, list))
    return tuple(_read_input(str(name), facts, where, mistakes) for name, facts, where in named)


def _read_input(name: str, raw: Any, path: KeyPath, mistakes: Mistakes) -> Input:
    if raw is not None and not isinstance(raw, dict):
        fix = "write {shape: [...]} or {vocab_size: ...}"
        mistakes.add(path, f"{shown(raw)} states nothing of an input", fix, at_value=True)
    facts = raw if isinstance(raw, dict) else {}
    for key, value in facts.items():
        _check_fact(key, value, (*path, key), mistakes)
    return Input(name, path, {key: value for key, value in facts.items() if key in INPUT_FACTS})


def _check_fact(key: str, value: Any, path: KeyPath, mistakes: Mistakes) -> None:
    if key not in INPUT_FACTS:
        mistakes.add(path, f"no key '{key}' of an input", suggest(str(key), INPUT_FACTS))
    elif not INPUT_FACTS[key][0](value):
        mistakes.add(path, f"{key} is {shown(value)}, wanted {INPUT_FACTS[key][1]}", at_value=True)


def _is_size(value: Any) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return value is None or isinstance(value, Unknown) or is_number


def _is_shape(value: Any) -> bool:
    return all(_is_size(each) for each in value) if isinstance(value, list) else _is_open(value)


def _is_open(value: Any) -> bool:
    return value is None or isinstance(value, Unknown)


# What a model may state of an input: what is right, and how that is worded.
INPUT_FACTS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "shape": (_is_shape, "a list of whole numbers >= 1, null where any will do"),
    "vocab_size": (_is_size, "a whole number >= 1 or null"),
    "length": (_is_size, "a whole number >= 1 or null"),
    "layout": (
        lambda value: _is_open(value) or value in LAYOUTS,
        f"{', '.join(LAYOUTS)} or null",
    ),
}


def _read_layers(raw: Any, path: KeyPath, mistakes: Mistakes) -> tuple[tuple[str, Part], ...]:
    """Each entry under its name: a list's index, or a mapping's key. A mapping's null is an entry that was removed."""
    if isinstance(raw, Wrong):
        return ()
    entries = list(raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ())
    if isinstance(raw, dict):
        entries = [(key, each) for key, each in entries if each is not None]
    if not entries or len(entries) > MAX_LAYERS:
        _tell_no_layers(raw, len(entries), path, mistakes)
        return ()
    for key, _ in entries if isinstance(raw, dict) else ():
        _check_name(key, (*path, key), mistakes)
    read = [(str(key), parse_part(each, (*path, key), mistakes, kind="layer", is_entry=True)) for key, each in entries]
    for _, part in read:
        if part is not None:
            _check_entry_keys(part, mistakes)
    return tuple((key, part) for key, part in read if part is not None)


def _tell_no_layers(raw: Any, count: int, path: KeyPath, mistakes: Mistakes) -> None:
    if count:
        mistakes.add(path, f"{count:,} layers", f"a model may have {MAX_LAYERS:,}")
        return
    fix = "write 'layers:' and below it '- Flatten', '- Linear: 10', ..."
    if raw is None or isinstance(raw, dict | list):
        mistakes.add(path, "no layers", fix, at_value=isinstance(raw, list))
    else:
        mistakes.add(path, f"{shown(raw)} is neither a list nor a mapping of layers", fix, at_value=True)


def _check_entry_keys(part: Part, mistakes: Mistakes) -> None:
    for key in part.keys:
        if key in NOT_YET_KEYS:
            mistakes.add(part.where(key), f"'{key}' is not there yet", "this version builds plain stacks of layers")
    layout = part.keys.get("layout")
    if layout is not None and layout not in LAYOUTS:
        mistakes.add(part.where("layout"), f"no layout {shown(layout)}", suggest(str(layout), LAYOUTS), at_value=True)
    if "name" in part.keys:
        _check_name(part.keys["name"], part.where("name"), mistakes, at_value=True)


def _check_name(name: Any, path: KeyPath, mistakes: Mistakes, kind: str = "output", *, at_value: bool = False) -> None:
    is_word = isinstance(name, str) and name.isidentifier() and name.isascii()
    if not is_word or keyword.iskeyword(name) or name.startswith("_"):
        article = "an" if kind[0] in "aeiou" else "a"
        fix = "take letters, digits and _, a letter first, no Python keyword"
        found = f"{shown(name)} can't name {article} {kind}"
        mistakes.add(path, found, fix, at_value=at_value, at_key=not at_value)


# ---- expansion -----------------------------------------------------------------------------------------------------


def expand(block: Block, mistakes: Mistakes) -> tuple[Node, ...]:
    """The block's layers in order, every formula evaluated; a value that needs the data stays `Unknown`."""
    scope = Scope(block.params, block.other_words, (*block.path, "params"), mistakes)
    nodes: list[Node] = []
    previous = "_"
    for key, part in block.entries:
        node = _expand_entry(key, part, previous, scope)
        if node is not None:
            nodes.append(node)
            previous = node.name
    if block.loss is not None:
        scope.part(block.loss)
    _check_names(nodes, mistakes)
    if block.entries:
        scope.check_used()
    return tuple(nodes)


def expand_loss(block: Block, mistakes: Mistakes) -> Part | None:
    """The model's own loss, its formulas evaluated; what is wrong in it, `expand` tells too."""
    return (
        None
        if block.loss is None
        else Scope(block.params, block.other_words, (*block.path, "params"), mistakes).part(block.loss)
    )


def _expand_entry(key: str, written: Part, previous: str, scope: Scope) -> Node | None:
    part = scope.part(written)
    if part is None:
        return None
    name = str(part.keys.get("name", key))
    layout = part.keys.get("layout")
    return Node(name, part, inputs=(previous,), layout=layout if layout in LAYOUTS else None)


def _check_names(nodes: list[Node], mistakes: Mistakes) -> None:
    seen: set[str] = set()
    for node in nodes:
        if node.name in seen:
            path = node.part.where("name")
            mistakes.add(path, f"the name '{node.name}' is taken", "names are unique in a block", at_value=True)
        seen.add(node.name)
