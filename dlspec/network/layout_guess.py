"""Find which layer gave a value its layout, for messages: after a guess or a move, 'insert a Permute' may be wrong."""

from __future__ import annotations

from dlspec.language.expand.graph import Node
from dlspec.layouts import LAYOUTS, Layout, TensorInfo
from dlspec.network.layer import Layer
from dlspec.network.layer_rules.layout_rules import find_rule
from dlspec.network.partial_network import PartialNetwork


def name_layout_source(network: PartialNetwork, layer: Layer, fix: str) -> str:
    """Put before a fix which `layout:` to write, if a layer above guessed the layout or moved the dimensions.

    Args:
        network: The layers so far.
        layer: The layer whose first input has a layout that it does not accept.
        fix: What to write if the layout is right.

    Returns:
        The fix as it is where the layout is neither a guess nor moved.
    """
    value = next(iter(network.get_input_values(layer.node).values()))
    others = [each for each in find_rule(layer.schema).takes if _is_possible(each, value)]
    source = _find_layout_source(network, layer.node) if others else None
    if source is None:
        return fix
    other: Layout = "channels-last" if len(value.shape) > 2 and "channels-last" in others else others[0]
    node, is_guess = source
    name, written = network.built_layers[node.id].name, network.built_layers[node.id].type
    if is_guess:
        text = f"the layout of '{name}' is a guess: write layout: {other} beside its {written}"
        return f"{text}; if it is {value.layout}, {fix}" if fix else text
    text = f"if '{name}' is meant to return {other}, write layout: {other} beside its {written}"
    return f"{text}; else {fix}" if fix else text


def _find_layout_source(network: PartialNetwork, node: Node) -> tuple[Node, bool] | None:
    """Find the layer that guessed or moved the layout of a layer's first input; layers in between keep it.

    Returns:
        Its node, and whether the layout is a guess; None if the user has written it, or the data have it.
    """
    layout = next(iter(network.get_input_values(node).values())).layout
    ref = next(iter(node.inputs.values()), None)
    while ref is not None and network.values[ref].layout == layout:
        inner = network.nodes.get(network.resolve_alias(ref).node)
        call = None if inner is None else network.calls.get(inner.path)
        if inner is None or call is None or inner.layout is not None:
            return None
        inputs, shape = list(network.get_input_values(inner).values()), network.values[ref].shape
        rule = find_rule(call.layer.schema)
        if inputs and rule.is_guess(inputs, shape, call.settings):
            return inner, True
        if inputs and rule.roles is not None and inputs[0].layout not in (layout, "features"):
            return inner, False
        ref = next(iter(inner.inputs.values()), None)
    return None


def _is_possible(layout: Layout, value: TensorInfo) -> bool:
    """Whether a value may have another layout.

    Tokens are whole numbers, a single dimension has one layout, and layers on sequences expect (T, C).
    """
    if layout == "sequence" and len(value.shape) > 2:
        return False
    return layout in LAYOUTS and layout not in ("tokens", "features", value.layout) and len(value.shape) > 1
