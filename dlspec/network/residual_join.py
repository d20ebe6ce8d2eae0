"""A residual's join: the layers that add its body and its shortcut, decided by their shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dlspec.errors import Code, Finding
from dlspec.language.parse.deferred import OutputRef
from dlspec.language.parse.part import Part
from dlspec.layouts import TensorInfo
from dlspec.network.layer import Layer
from dlspec.network.shortcuts import plan_projection
from dlspec.parts.torch.torch_parts import LAYERS


def plan_join(
    layer: Layer, body: TensorInfo, shortcut: TensorInfo, norm: tuple[str, Mapping[str, Any]] | None
) -> Sequence[Layer] | Finding:
    """The layers that join a residual's body (input 0) and shortcut (input 1), in the order in which they run.

    They are an `Add`, where `shortcut: auto` says so with a projection before it; none where `shortcut: if_equal`
    leaves the body alone; a finding where the shapes don't fit. `norm` is the normalisation that the body ends in.
    """
    kind = layer.settings.get("shortcut")
    if body.shape == shortcut.shape and body.layout == shortcut.layout:
        return [_make_add(layer, layer.node.inputs[1])]
    if kind == "if_equal":
        return []
    if kind == "auto":
        return _plan_projection(layer, body, shortcut, norm)
    fix = "write shortcut: auto, which maps the sizes, or if_equal; or make both one shape"
    if plan_projection(shortcut, body, None) is None:
        fix = "make both one shape, as padding: 1 does for a kernel of 3"
    return Finding(Code.SHAPE_MISMATCH, f"the shortcut is {shortcut}, and the body {body}", fix)


def _make_add(layer: Layer, shortcut: OutputRef) -> Layer:
    node = layer.node
    part = Part("Add", node.part.path, settings_path=node.part.settings_path)
    return Layer(replace(node, part=part, inputs={0: node.inputs[0], 1: shortcut}), LAYERS["Add"], {})


def _plan_projection(
    layer: Layer, body: TensorInfo, shortcut: TensorInfo, norm: tuple[str, Mapping[str, Any]] | None
) -> Sequence[Layer] | Finding:
    """The convolution or linear layer that gives the shortcut the body's shape, and the sum."""
    node = layer.node
    projection = plan_projection(shortcut, body, norm)
    if projection is None:
        found = f"no 1x1 convolution makes {body} of {shortcut}"
        return Finding(Code.SHAPE_MISMATCH, found, "write the shortcut as a list of layers")
    layers: list[Layer] = []
    previous = node.inputs[1]
    for index, (type, settings) in enumerate(projection):
        path, layer_id = (*node.path, "shortcut", str(index)), f"{node.id}.shortcut.{index}"
        part = Part(type, node.part.path, settings, node.part.settings_path)
        inner = replace(node, id=layer_id, path=path, part=part, inputs={0: previous}, layout=None)
        layers.append(Layer(inner, LAYERS[type], settings))
        previous = OutputRef(layer_id)
    return [*layers, _make_add(layer, previous)]
