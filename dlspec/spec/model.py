"""A model as typed nodes: read from its YAML, then expanded with its params. No torch here.

Reading keeps what was written, with places; expanding evaluates formulas and gives one `Node` for each layer that
will be built. Building (dlspec.building) knows nothing of params.
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import suggest
from dlspec.layouts import LAYOUTS, Layout
from dlspec.spec import expressions
from dlspec.spec.expressions import ExpressionError, Unknown
from dlspec.spec.mistakes import Mistakes
from dlspec.spec.parts import NOTHING, Part, parse_part
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


@dataclass(frozen=True)
class Node:
    """One layer to build: its name in the state dict, its formulas evaluated. `inputs` are names of nodes before."""

    name: str
    part: Part
    inputs: tuple[str, ...]
    layout: Layout | None = None


def read_model(raw: Any, path: KeyPath, mistakes: Mistakes) -> Block | None:
    """The model that `raw` writes, or None where it has no layers to speak of."""
    if not isinstance(raw, dict):
        mistakes.add(path, "no model", "write 'layers:' and a list of layers, or choose one: model=cnn")
        return None
    _check_keys(raw, path, mistakes)
    loss = raw.get("loss")
    return Block(
        path,
        params=_read_params(raw.get("params"), (*path, "params"), mistakes),
        inputs=_read_inputs(raw.get("inputs"), (*path, "inputs"), mistakes),
        entries=_read_layers(raw.get("layers"), (*path, "layers"), mistakes),
        loss=None if loss is None else parse_part(loss, (*path, "loss"), mistakes, kind="loss"),
    )


def _check_keys(raw: dict[str, Any], path: KeyPath, mistakes: Mistakes) -> None:
    for key in raw:
        if key in NOT_YET_MODEL:
            mistakes.add((*path, key), f"'{key}' is not there yet", "this version has params, inputs, layers and loss")
        elif key not in MODEL_KEYS:
            mistakes.add((*path, key), f"no key '{key}' in a model", suggest(str(key), [*MODEL_KEYS, *NOT_YET_MODEL]))


def _read_params(raw: Any, path: KeyPath, mistakes: Mistakes) -> dict[str, Any]:
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        mistakes.add(path, "params are no mapping", "write 'params: {width: 64}'", at_value=True)
        return {}
    for name in raw:
        if not str(name).isidentifier() or keyword.iskeyword(name) or name in expressions.FUNCTIONS:
            mistakes.add((*path, name), f"'{name}' can't name a param", "take a word that no function or keyword has")
    return {str(name): value for name, value in raw.items()}


def _read_inputs(raw: Any, path: KeyPath, mistakes: Mistakes) -> tuple[Input, ...]:
    if raw is None:
        return ()
    if isinstance(raw, list):
        raw = dict.fromkeys(raw)
    if not isinstance(raw, dict):
        mistakes.add(path, "inputs are a list of names or a mapping", "write 'inputs: {image: {shape: [1, 28, 28]}}'")
        return ()
    return tuple(_read_input(str(name), facts, (*path, name), mistakes) for name, facts in raw.items())


INPUT_FACTS = ("shape", "vocab_size", "length", "layout")


def _read_input(name: str, raw: Any, path: KeyPath, mistakes: Mistakes) -> Input:
    facts = raw if isinstance(raw, dict) else {}
    if raw is not None and not isinstance(raw, dict):
        mistakes.add(path, f"'{raw}' states nothing of an input", "write {shape: [...]} or {vocab_size: ...}")
    for key in facts:
        if key not in INPUT_FACTS:
            mistakes.add((*path, key), f"no key '{key}' of an input", suggest(str(key), INPUT_FACTS))
    return Input(name, path, facts)


def _read_layers(raw: Any, path: KeyPath, mistakes: Mistakes) -> tuple[tuple[str, Part], ...]:
    """Each entry under its name: a list's index, or a mapping's key."""
    if not isinstance(raw, dict | list) or not raw:
        found = "no layers" if raw is None else "layers is neither a list nor a mapping" if raw else "layers is empty"
        mistakes.add(path, found, "write 'layers:' and below it '- Flatten', '- Linear: 10', ...")
        return ()
    if len(raw) > MAX_LAYERS:
        mistakes.add(path, f"{len(raw):,} layers", f"a model may have {MAX_LAYERS:,}")
        return ()
    entries = raw.items() if isinstance(raw, dict) else enumerate(raw)
    read = [
        (str(key), parse_part(each, (*path, key), mistakes, kind="layer", is_entry=True))
        for key, each in entries
        if each is not None or isinstance(raw, list)
    ]
    for key, part in read:
        if isinstance(raw, dict):
            _check_name(key, (*path, key), mistakes)
        if part is not None:
            _check_entry_keys(part, mistakes)
    return tuple((key, part) for key, part in read if part is not None)


def _check_entry_keys(part: Part, mistakes: Mistakes) -> None:
    for key in part.keys:
        path = _key_path(part, key)
        if key in NOT_YET_KEYS:
            mistakes.add(path, f"'{key}' is not there yet", "this version builds plain stacks of layers")
    layout = part.keys.get("layout")
    if layout is not None and layout not in LAYOUTS:
        mistakes.add(_key_path(part, "layout"), f"no layout '{layout}'", suggest(str(layout), LAYOUTS), at_value=True)
    if "name" in part.keys:
        _check_name(part.keys["name"], _key_path(part, "name"), mistakes)


def _key_path(part: Part, key: str) -> KeyPath:
    """Where an entry's key stands: the places know which of the two spellings was written."""
    return (*part.settings_path, key)


def _check_name(name: Any, path: KeyPath, mistakes: Mistakes) -> None:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        mistakes.add(path, f"'{name}' can't name an output", "take letters, digits and _, no keyword", at_value=True)


# ---- expansion -----------------------------------------------------------------------------------------------------


def expand(block: Block, mistakes: Mistakes) -> tuple[Node, ...]:
    """The block's layers in order, every formula evaluated; a value that needs the data stays `Unknown`."""
    scope = _Scope(block, mistakes)
    nodes: list[Node] = []
    previous = "_"
    for key, part in block.entries:
        node = _expand_entry(key, part, previous, scope)
        if node is not None:
            nodes.append(node)
            previous = node.name
    _check_names(nodes, mistakes)
    scope.check_used()
    return tuple(nodes)


def _expand_entry(key: str, written: Part, previous: str, scope: _Scope) -> Node | None:
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
            mistakes.add(
                _key_path(node.part, "name"), f"the name '{node.name}' is taken", "names are unique in a block"
            )
        seen.add(node.name)


class _Scope:
    """A block's params and their values, and which of them something read."""

    def __init__(self, block: Block, mistakes: Mistakes) -> None:
        self.path = (*block.path, "params")
        self.mistakes = mistakes
        self.values: dict[str, Any] = {}
        self.used: set[str] = set()
        for name, default in block.params.items():
            self.values[name] = self._default(name, default)

    def _default(self, name: str, default: Any) -> Any:
        if default is None:
            fix = f"give one: model.params.{name}=..."
            self.mistakes.add((*self.path, name), f"param '{name}' has no value", fix)
            return Unknown(name)
        return self.evaluate(default, (*self.path, name))

    def evaluate(self, value: Any, path: KeyPath) -> Any:
        """The value with its formulas computed, through lists and mappings."""
        if isinstance(value, list):
            return [self.evaluate(each, (*path, index)) for index, each in enumerate(value)]
        if isinstance(value, dict):
            return {key: self.evaluate(each, (*path, key)) for key, each in value.items()}
        formula = expressions.formula_of(value)
        if formula is not None:
            return self._compute(formula, path)
        if expressions.is_partial(value):
            self.mistakes.add(
                path, f"'{value}' mixes text and a formula", "a formula is the whole value: $(...)", at_value=True
            )
        return expressions.unescape(value)

    def _compute(self, formula: str, path: KeyPath) -> Any:
        try:
            names = expressions.names_in(formula)
            for name in sorted(names - self.values.keys()):
                self._no_param(name, path)
            self.used |= names
            return Unknown(formula) if names - self.values.keys() else expressions.evaluate(formula, self.values)
        except ExpressionError as error:
            self.mistakes.add(
                path,
                str(error),
                f"formulas have + - * / // % **, comparisons and {', '.join(expressions.FUNCTIONS)}",
                at_value=True,
            )
            return Unknown(formula)

    def _no_param(self, name: str, path: KeyPath) -> None:
        if name in ("in_channels", "index"):
            self.mistakes.add(path, f"'${name}' is not there yet", "write the number", at_value=True)
            return
        fix = suggest(name, self.values) or "this model has no params: add 'params: {...}'"
        self.mistakes.add(path, f"no param '{name}'", fix, at_value=True)

    def part(self, written: Part) -> Part | None:
        """The part with its type and settings evaluated; a type that is a param may bring settings of its own."""
        part = written
        if expressions.formula_of(written.type) is not None:
            chosen = self.evaluate(written.type, written.path)
            if isinstance(chosen, Unknown):
                return None
            param = written.type[1:]
            path = (*self.path, param) if param in self.values else written.path
            named = parse_part(chosen, path, self.mistakes, kind="layer")
            if named is None:
                return None
            part = Part(
                named.type,
                path,
                {**named.settings, **written.settings},
                written.settings_path,
                named.value if written.value is NOTHING else written.value,
                written.keys,
            )
        settings = {key: self.evaluate(each, part.where(key)) for key, each in part.settings.items()}
        value = part.value if part.value is NOTHING else self.evaluate(part.value, part.settings_path)
        if isinstance(value, dict):
            settings, value = {**value, **settings}, NOTHING
        return Part(part.type, part.path, settings, part.settings_path, value, part.keys)

    def check_used(self) -> None:
        for name in self.values.keys() - self.used:
            self.mistakes.add((*self.path, name), f"nothing uses param '{name}'", "remove it, or write it as $" + name)
