"""Find where a layout was guessed, for messages: behind a Formula, "insert a Permute" may build a wrong network."""

from __future__ import annotations

from dlspec.language.expand.graph import Node
from dlspec.layouts import LAYOUTS, Layout, TensorInfo
from dlspec.network.layer import Layer
from dlspec.network.layer_rules.layout_rules import find_rule
from dlspec.network.partial_network import PartialNetwork
from dlspec.parts.layers.formula_layer import guesses_layout


def name_layout_guess(network: PartialNetwork, layer: Layer, fix: str) -> str:
    """Put before a fix what to write if a Formula's layout, which was guessed, is wrong.

    Args:
        network: The layers so far.
        layer: The layer whose first input has a layout that it does not accept.
        fix: What to write if the layout is right.

    Returns:
        The fix as it is where the layout was not guessed.
    """
    source = _find_guessing_formula(network, layer.node)
    if source is None:
        return fix
    value = next(iter(network.get_input_values(layer.node).values()))
    others = [each for each in find_rule(layer.schema).takes if _is_possible(each, value)]
    if not others:
        return fix
    name = network.built_layers[source.id].name
    guess = f"the layout of '{name}' is a guess: write layout: {others[0]} beside its Formula"
    return f"{guess}; if it is {value.layout}, {fix}" if fix else guess


def _find_guessing_formula(network: PartialNetwork, node: Node) -> Node | None:
    """Find the Formula that guessed the layout of a layer's first input; layers in between keep it."""
    layout = next(iter(network.get_input_values(node).values())).layout
    ref = next(iter(node.inputs.values()), None)
    while ref is not None and network.values[ref].layout == layout:
        inner = network.nodes.get(network.resolve_alias(ref).node)
        if inner is None or inner.layout is not None:
            return None
        inputs = list(network.get_input_values(inner).values())
        row = network.built_layers.get(inner.id)
        if row is not None and row.type == "Formula":
            is_guess = guesses_layout(inputs, network.values[ref].shape, row.settings["formula"])
            return inner if is_guess else None
        ref = next(iter(inner.inputs.values()), None)
    return None


def _is_possible(layout: Layout, value: TensorInfo) -> bool:
    """Whether a value may have another layout: one of tokens has whole numbers, a single dimension has one layout."""
    return layout in LAYOUTS and layout not in ("tokens", "features", value.layout) and len(value.shape) > 1
