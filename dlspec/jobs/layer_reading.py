"""Look up the layers of a graph in the registry, and check their settings and the names in a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx, nn

from dlspec.errors import Code, format_value, suggest
from dlspec.language.expand.containers import RESIDUAL_ADD
from dlspec.language.expand.entry_inputs import PARAMETER
from dlspec.language.expand.graph import Graph, Node
from dlspec.language.expressions.expression_parsing import UnknownValue, find_unknown_keys
from dlspec.language.parse.block import Block
from dlspec.language.parse.entry import CONTAINERS, Entry
from dlspec.language.problems import Problems
from dlspec.network.layer import Layer
from dlspec.network.layer_construction import PARAMETRIZATIONS
from dlspec.network.layer_rules.layout_rules import find_rule
from dlspec.parts.schema import Schema
from dlspec.parts.torch.torch_parts import LAYERS, LOSSES

# Attributes that every module instance has, besides those of its class.
_MODULE_ATTRIBUTES = frozenset(vars(nn.Sequential())) | {"graph", "code"}


def read_layers(graph: Graph, problems: Problems) -> tuple[Layer, ...]:
    """Read all layers of a graph. Of entries that `if` or `repeat: 0` removed, only the names are checked."""
    layers = [read_layer(node, problems) for node in graph.nodes]
    problems.set_part_origins({})
    for part in graph.absent:
        schema = LAYERS.find(part, problems, extra_names=CONTAINERS)
        if schema is not None:
            schema.check_names(part, problems)
    return tuple(each for each in layers if each is not None)


def read_layer(node: Node, problems: Problems) -> Layer | None:
    """Find a node's layer in the registry and check its settings; None if there is a problem."""
    if node.part.type == RESIDUAL_ADD:
        return Layer(node, LAYERS["Add"], node.part.settings)
    problems = Problems() if node.is_shared else problems  # a shared module was read, and its problems reported, before
    problems.set_part_origins(node.origins)
    found = LAYERS.read(node.part, problems, extra_names=(*node.blocks, *CONTAINERS))
    is_checked = isinstance(node.part.keys.get("parametrize"), str)  # other values were reported when it was read
    if is_checked and node.parametrize not in PARAMETRIZATIONS and not isinstance(node.parametrize, UnknownValue):
        fix = suggest(str(node.parametrize), PARAMETRIZATIONS)
        path = node.part.path_of("parametrize")
        problems.add(
            Code.UNKNOWN_CHOICE, path, f"unknown parametrization {format_value(node.parametrize)}", fix, at_value=True
        )
    _check_parametrized_weight(node, problems)
    if found is not None and node.part.type == PARAMETER:
        _check_parameter_layer(node, *found, problems)
    return None if found is None else Layer(node, *found)


def _check_parametrized_weight(node: Node, problems: Problems) -> None:
    """Report `parametrize` in a Parameter, and in a layer whose weight is that of another layer."""
    if node.parametrize not in PARAMETRIZATIONS:
        return
    path = node.part.path_of("parametrize")
    if node.part.type == PARAMETER:
        found, fix = "a Parameter can't be parametrized", "remove parametrize, or compute the value in a Formula"
        problems.add(Code.NO_WEIGHT, path, found, fix, at_value=True)
    elif node.tie:
        found = "a tied weight can't be parametrized: it is that of another layer"
        problems.add(Code.CONFLICT, path, found, "keep one of tie and parametrize", at_value=True)


def _check_parameter_layer(node: Node, schema: Schema, settings: Mapping[str, Any], problems: Problems) -> None:
    """Check the settings of a parameter, whose shape rule needs no input."""
    is_known = isinstance(settings.get("shape"), list) and isinstance(settings.get("init", ""), str | dict)
    is_known = is_known and not find_unknown_keys(dict(settings))
    refused = find_rule(schema).refuse((), settings) if is_known else None
    if refused is not None:
        problems.add_finding(node.part.path_of("init"), refused, at_value=True)


def check_model_names(block: Block, problems: Problems) -> None:
    """Report blocks with the name of a layer or loss, and outputs with the name of an `nn.Module` attribute."""
    for each in block.all_blocks():
        if each.name in LAYERS or each.name in LOSSES:
            found = f"a block can't be named '{each.name}': a layer or loss has this name"
            problems.add(Code.NAME_TAKEN, each.path, found, "use another name", at_key=True)
    for entry in (entry for each in (block, *block.all_blocks()) for entry in each.all_entries()):
        _check_output_name(entry, problems)


def _check_output_name(entry: Entry, problems: Problems) -> None:
    name = entry.part.keys.get("name", entry.key)
    if not isinstance(name, str) or name.isdigit() or not name:
        return
    if name in _MODULE_ATTRIBUTES or any(hasattr(cls, name) for cls in (nn.Sequential, fx.GraphModule)):
        at_value = "name" in entry.part.keys
        path = entry.part.path_of("name") if at_value else entry.path
        found = f"an output can't be named '{name}': every module has an attribute of this name"
        problems.add(Code.INVALID_NAME, path, found, "use another name", at_value=at_value, at_key=not at_value)


def settle_layers(layers: Sequence[Layer], graph: Graph, problems: Problems) -> tuple[Layer, ...]:
    """Read again the layers whose nodes changed when the data's facts were filled in, and keep the others.

    Args:
        layers: The layers that were read before the facts were available.
        graph: The graph with the facts, with one node for each layer.
        problems: Gets the problems found in the settings.
    """
    pairs = zip(layers, graph.nodes, strict=True)
    found = [layer if layer.node is node else read_layer(node, problems) for layer, node in pairs]
    problems.set_part_origins({})
    return tuple(each for each in found if each is not None)
