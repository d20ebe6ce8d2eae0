"""The boxes of a network's picture: layers, inputs and outputs, and the edges between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from dlspec.cli.summary.layer_rows import SummaryRow
from dlspec.layouts import TensorInfo
from dlspec.network.built_network import BuiltLayer, InputEdge, Network

INPUT, OUTPUT, FOLDED = "input", "output", "folded"


@dataclass(frozen=True)
class BoxLine:
    """A layer in a box."""

    type: str
    kind: str  # name of the module that defines the layer's class; decides the color
    settings: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0  # number of weights, without those that an earlier layer has
    remarks: str = ""  # about its weights: frozen, tied, shared


@dataclass(frozen=True)
class LayerBox:
    """A box with one layer or multiple consecutive layers."""

    name: str  # of the first layer
    lines: tuple[BoxLine, ...]
    takes: tuple[InputEdge, ...]  # edges to the box's inputs
    output: TensorInfo
    spec_path: Any = ()  # path of the entry in the spec; equal for the copies of a repeated entry


def make_layer_box(layer: BuiltLayer, row: SummaryRow) -> LayerBox:
    """Make the box of a layer; `row` is its row in the summary."""
    kind = _get_layer_module_name(layer.module)
    line = BoxLine(layer.type, kind, layer.settings, row.count, row.remarks)
    takes = tuple(
        each if each.layer else replace(each, layer=_make_input_or_output_name(INPUT, each.output))
        for each in layer.takes
    )
    return LayerBox(layer.name, (line,), takes, layer.output, layer.path)


def _get_layer_module_name(module: nn.Module) -> str:
    """Return the last name of the module that defines a layer's class: `conv`, `linear`, `attention`.

    A parametrized layer counts as its original class.
    """
    made = type(module)
    made = made.__mro__[1] if made.__module__ == parametrize.__name__ else made
    return made.__module__.rpartition(".")[2]


def make_input_boxes(network: Network) -> list[LayerBox]:
    """Make the boxes of the model's inputs. A single input may have a name only in the data, not in the model."""
    taken = {each.output for layer in network.layers for each in layer.takes if not each.layer}
    return [
        LayerBox(_make_input_or_output_name(INPUT, name if name in taken else ""), (BoxLine(name, INPUT),), (), value)
        for name, value in network.fields.items()
    ]


def make_output_boxes(network: Network) -> list[LayerBox]:
    """Make the boxes of the model's outputs."""
    return [
        LayerBox(
            _make_input_or_output_name(OUTPUT, name),
            (BoxLine(name, OUTPUT),),
            (InputEdge(each.layer.name, "", each.value),),
            each.value,
        )
        for name, each in network.outputs.items()
    ]


def _make_input_or_output_name(kind: str, name: str) -> str:
    """Make the name of an input's or output's box; no layer can have a name like it."""
    return f"<{kind} {name}>"


def rename_sources(boxes: Iterable[LayerBox], names: Mapping[str, str]) -> list[LayerBox]:
    """Return the boxes with renamed sources of their inputs; inputs that become equal are merged."""
    return [replace(box, takes=_rename_edges(box.takes, names)) for box in boxes]


def _rename_edges(input_edges: Iterable[InputEdge], names: Mapping[str, str]) -> tuple[InputEdge, ...]:
    return tuple(dict.fromkeys(replace(each, layer=names.get(each.layer, each.layer)) for each in input_edges))
