"""Join the body and the shortcut of a residual: choose the layers by their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dlspec.errors import Code, Finding
from dlspec.language.parse.deferred import OutputRef
from dlspec.language.parse.part import Part
from dlspec.layouts import TensorInfo
from dlspec.network.layer import Layer
from dlspec.network.shortcuts import Norm, plan_projection
from dlspec.parts.torch.torch_parts import LAYERS


def plan_residual_join(
    layer: Layer, body: TensorInfo, shortcut: TensorInfo, norm: Norm | None
) -> Sequence[Layer] | Finding:
    """Choose the layers that add a residual's shortcut to its body.

    Args:
        layer: The residual's join: its node has the body as input 0 and the shortcut as input 1.
        body: Shape and layout of the body's output.
        shortcut: Shape and layout of the shortcut.
        norm: The last normalization on the body's main path; None if there is none.

    Returns:
        The layers in the order in which they run: an `Add`, after a projection if `shortcut: auto` needs one. The list
        is empty where shapes differ and `shortcut: if_equal` omits the shortcut. A finding if the shapes don't fit.
    """
    kind = layer.settings.get("shortcut")
    if body.shape == shortcut.shape and body.layout == shortcut.layout:
        return [_make_add(layer, layer.node.inputs[1])]
    if kind == "if_equal":
        return []
    if kind == "auto":
        return _plan_projection(layer, body, shortcut, norm)
    fix = "write shortcut: auto to add a projection, if_equal to omit the shortcut, or give both the same shape"
    if plan_projection(shortcut, body, None) is None:
        fix = "give both the same shape, as padding: 1 does for kernel_size: 3"
    return Finding(Code.SHAPE_MISMATCH, f"the shortcut is {shortcut}, but the body is {body}", fix)


def _make_add(layer: Layer, shortcut: OutputRef) -> Layer:
    node = layer.node
    part = Part("Add", node.part.path, settings_path=node.part.settings_path)
    return Layer(replace(node, part=part, inputs={0: node.inputs[0], 1: shortcut}), LAYERS["Add"], {})


def _plan_projection(
    layer: Layer, body: TensorInfo, shortcut: TensorInfo, norm: Norm | None
) -> Sequence[Layer] | Finding:
    """Return the layers that project the shortcut to the body's shape, followed by the `Add`."""
    node = layer.node
    projection = plan_projection(shortcut, body, norm)
    if projection is None:
        found = f"shortcut: auto can't project {shortcut} to {body} with a 1x1 convolution"
        return Finding(
            Code.SHAPE_MISMATCH, found, "give both the same sizes, or write the shortcut as a list of layers"
        )
    layers: list[Layer] = []
    previous = node.inputs[1]
    for index, (type, settings) in enumerate(projection):
        path, layer_id = (*node.path, "shortcut", str(index)), f"{node.id}.shortcut.{index}"
        part = Part(type, node.part.path, settings, node.part.settings_path)
        inner = replace(node, id=layer_id, path=path, part=part, inputs={0: previous}, layout=None)
        layers.append(Layer(inner, LAYERS[type], settings))
        previous = OutputRef(layer_id)
    return [*layers, _make_add(layer, previous)]
