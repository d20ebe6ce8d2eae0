"""Describe the shapes that lead to a layer, for messages."""

from __future__ import annotations

from dlspec.language.expand.graph import MODEL, Node
from dlspec.language.parse.deferred import OutputRef
from dlspec.layouts import format_shape
from dlspec.network.partial_network import PartialNetwork

MAX_SHAPES = 6  # in one message; the middle of a longer chain is left out


def describe_shapes(network: PartialNetwork, node: Node) -> str:
    """Describe the shapes from the input to a node; '' where there is only one shape.

    For example 'shapes: image (3, 32, 32) -> 0 Conv2d (16, 30, 30) -> 1 Linear'.
    """
    shapes: list[str] = []
    ref = next(iter(node.inputs.values()), None)
    while ref is not None:
        shapes.append(f"{_describe_source(network, ref)} {format_shape(network.values[ref].shape)}".strip())
        inner = network.nodes.get(network.aliases.get(ref, ref).node)
        ref = None if inner is None else next(iter(inner.inputs.values()), None)
    more = list(node.inputs.values())[1:]
    others = [f"; {_describe_source(network, each)} {format_shape(network.values[each].shape)}" for each in more]
    if len(shapes) < 2 and not others:
        return ""
    shown = shapes if len(shapes) <= MAX_SHAPES else [*shapes[: MAX_SHAPES - 1], "...", shapes[-1]]
    return "shapes: " + " -> ".join(reversed(shown)) + "".join(others) + f" -> {node.id} {node.part.type}"


def _describe_source(network: PartialNetwork, ref: OutputRef) -> str:
    if ref.node == MODEL:
        return ref.output or next(iter(network.fields.values())).name
    row = network.built_layers.get(network.aliases.get(ref, ref).node)
    if row is None:
        return ref.node
    container, _, inner = row.name.rpartition(".")
    return f"{container} TimeDistributed" if inner in ("<fold>", "<unfold>") else f"{row.name} {row.type}"
