"""Puts the data's facts into a config that was read without them, and into its graph where that keeps its structure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dlspec.errors import KeyPath
from dlspec.language.expand.containers import JOIN
from dlspec.language.expand.entry_inputs import FORMULA
from dlspec.language.expand.graph import Graph, Node
from dlspec.language.expressions.expressions import Unknown, Wrong, find_unknowns
from dlspec.language.expressions.references import resolve
from dlspec.language.parse.deferred import Deferred
from dlspec.language.parse.part import NOTHING, Part
from dlspec.language.problems import Problems

_FACT = re.compile(r"\s*\$\{\s*(oc\.select:\s*)?data\.[^${}]*\}\s*\Z")
Tree = Mapping[str, Any]


@dataclass(frozen=True)
class SettledConfig:
    """A config with the data's facts, and the keys of its sections that must be read again.

    `graph` is the model's with the facts, None where it must be expanded again.
    """

    tree: dict[str, Any]
    graph: Graph | None
    changed: frozenset[str]


def settle_config(
    graph: Graph, written: Tree, waiting: Tree, facts: Mapping[str, Any], problems: Problems
) -> SettledConfig:
    """Put the data's facts into a config, and into the graph of its model; a fact that the data lack is a mistake.

    Args:
        graph: what the model was expanded to before the facts were known.
        written: the config with its `${...}` as they were written.
        waiting: the config with an `Unknown` in the place of each fact.
        facts: what the data hold.
        problems: grows by what can't be looked up.
    """
    changed = frozenset(key for key, value in waiting.items() if find_unknowns(value))
    if not changed:
        return SettledConfig(dict(waiting), graph, changed)
    tree = resolve(dict(written), facts, problems)
    settled = settle_graph(graph, written, waiting, tree) if "model" in changed else graph
    return SettledConfig(tree, settled, changed if settled is None else changed - {"model"})


def settle_graph(graph: Graph, written: Tree, waiting: Tree, settled: Tree) -> Graph | None:
    """The graph with the facts in its layers' settings; None where the model must be expanded again.

    It must be wherever a fact stands in anything but a layer's own setting: in a param, a formula, an `if`. `settled`
    is the config with the facts.
    """
    places = dict(unknown_places(waiting.get("model"), ("model",)))
    in_layers = {path for node in graph.nodes for path in waiting_places(node)}
    if in_layers != places.keys() or not all(_is_fact(written, settled, path) for path in places):
        return None
    nodes = tuple(settle_node(node, settled) if waiting_places(node) else node for node in graph.nodes)
    return replace(graph, nodes=nodes)


def unknown_places(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Unknown]]:
    """The places of what is not known yet, through lists and mappings."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from unknown_places(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from unknown_places(each, (*path, index))
    elif isinstance(value, Unknown) and not isinstance(value, Deferred):
        yield path, value


def waiting_places(node: Node) -> list[KeyPath]:
    """Where the settings of a layer wait for a fact."""
    return [place for path, value in _settings_of(node.part) for place, _ in unknown_places(value, path)]


def _settings_of(part: Part) -> Iterator[tuple[KeyPath, Any]]:
    """Each setting with its place; one that a container brought along, or of a text, has none that a fact may take."""
    is_own = part.type not in (FORMULA, JOIN)
    for name, value in part.settings.items():
        path = (*part.settings_path, name)
        yield path if is_own and part.where(name) == path else (), value
    if part.value is not NOTHING:
        yield part.settings_path if is_own else (), part.value


def _is_fact(written: Tree, settled: Tree, path: KeyPath) -> bool:
    """Whether a fact alone was written at a place, and is a number or a list, which no formula looks into."""
    text, value = _value_at(written, path), _value_at(settled, path)
    if not isinstance(text, str) or not _FACT.match(text):
        return False
    numbers = value if isinstance(value, list) else [value]
    return isinstance(value, Wrong) or all(isinstance(each, int | float) for each in numbers)


def settle_node(node: Node, settled: Tree) -> Node:
    """The layer with the facts in its settings."""
    part = node.part
    settings = {name: _settle(each, (*part.settings_path, name), settled) for name, each in part.settings.items()}
    value = part.value if part.value is NOTHING else _settle(part.value, part.settings_path, settled)
    return replace(node, part=replace(part, settings=settings, value=value))


def _settle(value: Any, path: KeyPath, settled: Tree) -> Any:
    if isinstance(value, dict):
        return {key: _settle(each, (*path, key), settled) for key, each in value.items()}
    if isinstance(value, list):
        return [_settle(each, (*path, index), settled) for index, each in enumerate(value)]
    is_waiting = isinstance(value, Unknown) and not isinstance(value, Deferred)
    return _value_at(settled, path) if is_waiting else value


def _value_at(tree: Any, path: KeyPath) -> Any:
    """What stands at a place; None where nothing does."""
    for key in path:
        if isinstance(tree, Mapping):
            tree = tree.get(key)
        else:
            tree = tree[key] if isinstance(tree, list) and isinstance(key, int) and key < len(tree) else None
    return tree
