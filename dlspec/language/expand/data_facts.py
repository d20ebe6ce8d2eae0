"""Settle a config and its graph: fill in the data's facts, which were not known when the config was read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dlspec.errors import KeyPath
from dlspec.language.expand.containers import RESIDUAL_ADD
from dlspec.language.expand.entry_inputs import FORMULA
from dlspec.language.expand.graph import Graph, Node
from dlspec.language.expressions.expression_parsing import InvalidValue, UnknownValue, find_unknown_keys
from dlspec.language.expressions.references import resolve_references
from dlspec.language.parse.deferred import Deferred
from dlspec.language.parse.part import NO_VALUE, Part
from dlspec.language.problems import Problems

_FACT_REFERENCE = re.compile(r"\s*\$\{\s*(oc\.select:\s*)?data\.[^${}]*\}\s*\Z")
ConfigTree = Mapping[str, Any]


@dataclass(frozen=True)
class ConfigWithDataFacts:
    """A config with the data's facts."""

    tree: dict[str, Any]
    graph: Graph | None  # with the facts; None if the model must be expanded again
    changed_sections: frozenset[str]  # must be read again


def resolve_data_facts(
    graph: Graph, written: ConfigTree, unsettled: ConfigTree, facts: Mapping[str, Any], problems: Problems
) -> ConfigWithDataFacts:
    """Fill the data's facts into a config and into the graph of its model.

    Args:
        graph: the model's graph, expanded before the facts were known.
        written: the config with its `${...}` as written.
        unsettled: the config with an `UnknownValue` in place of each fact.
        facts: the data's facts.
        problems: receives references to facts that the data do not have.

    Returns:
        The settled config and graph.
    """
    changed_sections = frozenset(key for key, value in unsettled.items() if find_unknown_keys(value))
    if not changed_sections:
        return ConfigWithDataFacts(dict(unsettled), graph, changed_sections)
    tree = resolve_references(dict(written), facts, problems)
    settled = insert_data_facts_into_graph(graph, written, unsettled, tree) if "model" in changed_sections else graph
    return ConfigWithDataFacts(tree, settled, changed_sections if settled is None else changed_sections - {"model"})


def insert_data_facts_into_graph(
    graph: Graph, written: ConfigTree, unsettled: ConfigTree, settled: ConfigTree
) -> Graph | None:
    """Fill the data's facts into the settings of a graph's layers, where that is possible without expanding again.

    Args:
        graph: the model's graph, expanded before the facts were known.
        written: the config with its `${...}` as written.
        unsettled: the config with an `UnknownValue` in place of each fact.
        settled: the config with the facts.

    Returns:
        The graph, or None if a fact is used outside of a layer's setting: in a param, a formula or an `if`.
    """
    unknowns = dict(find_unknown_values(unsettled.get("model"), ("model",)))
    in_layers = {path for node in graph.nodes for path in find_paths_that_need_data(node)}
    if in_layers != unknowns.keys() or not all(_is_only_a_data_fact(written, settled, path) for path in unknowns):
        return None
    nodes = tuple(settle_node(node, settled) if find_paths_that_need_data(node) else node for node in graph.nodes)
    return replace(graph, nodes=nodes)


def find_unknown_values(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, UnknownValue]]:
    """Yield the path of each unknown value in nested lists and mappings, and the value."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from find_unknown_values(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from find_unknown_values(each, (*path, index))
    elif isinstance(value, UnknownValue) and not isinstance(value, Deferred):
        yield path, value


def find_paths_that_need_data(node: Node) -> list[KeyPath]:
    """List the paths of a layer's settings that wait for a fact."""
    return [
        unsettled_path
        for path, value in _list_settings_with_paths(node.part)
        for unsettled_path, _ in find_unknown_values(value, path)
    ]


def _list_settings_with_paths(part: Part) -> Iterator[tuple[KeyPath, Any]]:
    """Yield each setting with its path; the path is () for a formula's settings and those that a container added."""
    is_own = part.type not in (FORMULA, RESIDUAL_ADD)
    for name, value in part.settings.items():
        path = (*part.settings_path, name)
        yield path if is_own and part.path_of(name) == path else (), value
    if part.value is not NO_VALUE:
        yield part.settings_path if is_own else (), part.value


def _is_only_a_data_fact(written: ConfigTree, settled: ConfigTree, path: KeyPath) -> bool:
    """Whether only a reference to a fact is written at a path, and the fact is a number or a list of numbers."""
    text, value = _get_value_at(written, path), _get_value_at(settled, path)
    if not isinstance(text, str) or not _FACT_REFERENCE.match(text):
        return False
    numbers = value if isinstance(value, list) else [value]
    return isinstance(value, InvalidValue) or all(isinstance(each, int | float) for each in numbers)


def settle_node(node: Node, settled: ConfigTree) -> Node:
    """Fill the facts into a layer's settings."""
    part = node.part
    settings = {name: _settle_value(each, (*part.settings_path, name), settled) for name, each in part.settings.items()}
    value = part.value if part.value is NO_VALUE else _settle_value(part.value, part.settings_path, settled)
    return replace(node, part=replace(part, settings=settings, value=value))


def _settle_value(value: Any, path: KeyPath, settled: ConfigTree) -> Any:
    if isinstance(value, dict):
        return {key: _settle_value(each, (*path, key), settled) for key, each in value.items()}
    if isinstance(value, list):
        return [_settle_value(each, (*path, index), settled) for index, each in enumerate(value)]
    is_waiting = isinstance(value, UnknownValue) and not isinstance(value, Deferred)
    return _get_value_at(settled, path) if is_waiting else value


def _get_value_at(tree: Any, path: KeyPath) -> Any:
    """Return the value at a path, None without one."""
    for key in path:
        if isinstance(tree, Mapping):
            tree = tree.get(key)
        else:
            tree = tree[key] if isinstance(tree, list) and isinstance(key, int) and key < len(tree) else None
    return tree
