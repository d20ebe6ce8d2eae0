"""What a picture of a network shows: its layers in boxes, and what flows between them."""

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
    """A layer in a box. `kind` is the module that its class is from; `parameters` are those that no layer above has."""

    type: str
    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0
    remarks: str = ""


@dataclass(frozen=True)
class LayerBox:
    """Layers that follow each other, under the first one's name; `takes` is what comes in, `output` what goes out.

    `written` is where they stand in the spec: copies of one entry have it in common.
    """

    name: str
    lines: tuple[BoxLine, ...]
    takes: tuple[InputEdge, ...]
    output: TensorInfo
    spec_path: Any = ()


def make_layer_box(layer: BuiltLayer, row: SummaryRow) -> LayerBox:
    kind = _find_kind(layer.module)
    line = BoxLine(layer.type, kind, layer.settings, row.count, row.remarks)
    takes = tuple(
        each if each.layer else replace(each, layer=_make_end_name(INPUT, each.output)) for each in layer.takes
    )
    return LayerBox(layer.name, (line,), takes, layer.output, layer.path)


def _find_kind(module: nn.Module) -> str:
    """The module that a layer's class is from, whatever parametrizes it: `conv`, `linear`, `attention`."""
    made = type(module)
    made = made.__mro__[1] if made.__module__ == parametrize.__name__ else made
    return made.__module__.rpartition(".")[2]


def make_input_boxes(network: Network) -> list[LayerBox]:
    """The model's inputs; a single one may have no name in the model, but in the data."""
    taken = {each.output for layer in network.layers for each in layer.takes if not each.layer}
    return [
        LayerBox(_make_end_name(INPUT, name if name in taken else ""), (BoxLine(name, INPUT),), (), value)
        for name, value in network.fields.items()
    ]


def make_output_boxes(network: Network) -> list[LayerBox]:
    return [
        LayerBox(
            _make_end_name(OUTPUT, name),
            (BoxLine(name, OUTPUT),),
            (InputEdge(each.layer.name, "", each.value),),
            each.value,
        )
        for name, each in network.outputs.items()
    ]


def _make_end_name(kind: str, name: str) -> str:
    """The name of an input's or output's box, which no layer has."""
    return f"<{kind} {name}>"


def rename_sources(boxes: Iterable[LayerBox], names: Mapping[str, str]) -> list[LayerBox]:
    """The boxes, whose inputs have other names now; what is twice the same then comes in once."""
    return [replace(box, takes=_rename_edges(box.takes, names)) for box in boxes]


def _rename_edges(takes: Iterable[InputEdge], names: Mapping[str, str]) -> tuple[InputEdge, ...]:
    return tuple(dict.fromkeys(replace(each, layer=names.get(each.layer, each.layer)) for each in takes))
