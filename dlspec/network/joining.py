"""A residual's sum: of its body and of its shortcut, which only the shapes may decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dlspec.errors import Code
from dlspec.language.parse.deferred import Ref
from dlspec.language.parse.part import Part
from dlspec.network.layer_call import Layer
from dlspec.network.shortcuts import automatic, is_norm
from dlspec.parts.torch.torch_parts import LAYERS

if TYPE_CHECKING:
    from dlspec.network.builder import Builder


def join(builder: Builder, layer: Layer) -> None:
    """Adds a body and its shortcut; where shapes decide what the shortcut is, they do now."""
    node, kind = layer.node, layer.settings.get("shortcut")
    body, given = (node.inputs[at] for at in (0, 1))
    one, other = builder.values[body], builder.values[given]
    if one.shape == other.shape and one.layout == other.layout:
        _add(builder, layer, body, given)
    elif kind == "if_equal":
        builder.again_as(body, Ref(node.id))
        builder.nodes[node.id] = node
    elif kind == "auto":
        _automatic(builder, layer, body, given)
    else:
        found = f"the shortcut is {other}, and the body {one}"
        fix = "write shortcut: auto, which maps the sizes, or if_equal; or make both one shape"
        if automatic(other, one, None) is None:
            fix = "make both one shape, as padding: 1 does for a kernel of 3"
        builder.problems.add(Code.SHAPE_MISMATCH, node.where, found, fix, note=builder.chain(node))


def _add(builder: Builder, layer: Layer, body: Ref, given: Ref) -> None:
    part = Part("Add", layer.node.part.path, settings_path=layer.node.part.settings_path)
    builder.add_one(Layer(replace(layer.node, part=part, inputs={0: body, 1: given}), LAYERS["Add"], {}))


def _automatic(builder: Builder, layer: Layer, body: Ref, given: Ref) -> None:
    node = layer.node
    parts = automatic(builder.values[given], builder.values[body], _norm_at(builder, body))
    if parts is None:
        found = f"no 1x1 convolution makes {builder.values[body]} of {builder.values[given]}"
        builder.problems.add(
            Code.SHAPE_MISMATCH, node.where, found, "write the shortcut as a list of layers", note=builder.chain(node)
        )
        return
    before = given
    for index, (type, settings) in enumerate(parts):
        path, use = (*node.path, "shortcut", str(index)), f"{node.id}.shortcut.{index}"
        part = Part(type, node.part.path, settings, node.part.settings_path)
        inner = replace(node, id=use, path=path, part=part, inputs={0: before}, layout=None)
        builder.add_one(Layer(inner, LAYERS[type], settings))
        before = Ref(use)
    if before in builder.values:
        _add(builder, layer, body, before)


def _norm_at(builder: Builder, ref: Ref) -> tuple[str, Mapping[str, Any]] | None:
    """The normalisation that a body ends in, and the settings that it was written with."""
    ref = builder.aliases.get(ref, ref)
    while ref.node in builder.rows and builder.rows[ref.node].type in ("StochasticDepth", "Dropout"):
        ref = next(iter(builder.nodes[ref.node].inputs.values()))
        ref = builder.aliases.get(ref, ref)
    if ref.node not in builder.rows or not is_norm(builder.rows[ref.node].type):
        return None
    layer, _, _ = builder.layers[builder.nodes[ref.node].path]
    inferred = [name for name, each in layer.schema.settings.items() if each.is_inferred]
    return layer.type, {name: each for name, each in layer.settings.items() if name not in inferred}
