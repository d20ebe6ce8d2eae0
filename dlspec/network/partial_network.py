"""A network while it is built: its layers so far, and the values and samples that they give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlspec.data.batches.sequence_lengths import count_fewest_steps
from dlspec.data.dataset import Field
from dlspec.language.expand.graph import MODEL, Graph, Node
from dlspec.language.parse.deferred import OutputRef
from dlspec.layouts import Lengths, TensorInfo
from dlspec.network.built_network import BuiltLayer, InputEdge
from dlspec.network.codegen import ForwardStep
from dlspec.network.layer import LayerCall
from dlspec.network.shortcuts import is_norm


class PartialNetwork:
    """What is known of a network of which some layers are built.

    `values` and `samples` are what layers gave, by reference; a sample is kept as long as something still reads it.
    `aliases` lead from further names of a value to its first one. `rows` and `nodes` are the layers by their nodes'
    ids, `calls` those that made a module, by its place in the state dict.
    """

    def __init__(self, graph: Graph, fields: Mapping[str, tuple[Field, Tensor]], device: torch.device | None) -> None:
        self.graph = graph
        self.fields = {name: field for name, (field, _) in fields.items()}
        self.values: dict[OutputRef, TensorInfo] = {
            OutputRef(MODEL, name): _value_from_field(field) for name, field in self.fields.items()
        }
        self.samples: dict[OutputRef, Tensor] = {
            OutputRef(MODEL, name): sample.to(device, copy=True) for name, (_, sample) in fields.items()
        }
        self.data = [*self.samples.values()]  # kept, so that no other output comes to lie there
        self.aliases: dict[OutputRef, OutputRef] = {}
        self.built_layers: dict[str, BuiltLayer] = {}
        self.nodes: dict[str, Node] = {}
        self.calls: dict[tuple[str, ...], LayerCall] = {}
        self.steps: list[ForwardStep] = []
        self._positions = {node.id: at for at, node in enumerate(graph.nodes)}
        self._last_positions = _find_last_positions(graph)

    def store_output(self, ref: OutputRef, value: TensorInfo, sample: Tensor) -> None:
        """Keep what a layer gave, for those that take it."""
        self.values[ref], self.samples[ref] = value, sample

    def add_aliases(self, ref: OutputRef, *aliases: OutputRef) -> None:
        """Let the same value be known under other names."""
        for each in aliases:
            self.store_output(each, self.values[ref], self.samples[ref])
            self.aliases[each] = ref

    def resolve_alias(self, ref: OutputRef) -> OutputRef:
        """The first of a value's names."""
        while ref in self.aliases:
            ref = self.aliases[ref]
        return ref

    def make_input_edge(self, ref: OutputRef) -> InputEdge:
        """The layer and the output that a value comes from."""
        ref = self.resolve_alias(ref)
        return InputEdge(ref.node, ref.output, self.values[ref])

    def get_input_values(self, node: Node) -> dict[int | str, TensorInfo]:
        """What a layer takes, by position or by the argument's name."""
        return {key: self.values[ref] for key, ref in node.inputs.items()}

    def get_input_samples(self, node: Node) -> dict[int | str, Tensor]:
        """The samples that a layer takes, by position or by the argument's name."""
        return {key: self.samples[ref] for key, ref in node.inputs.items()}

    def list_further_outputs(self, node: str) -> Sequence[str]:
        """The words of the further outputs that a layer has."""
        names: Sequence[str] = getattr(self.built_layers[node].module, "output_names", ())[1:]
        return [*names] or [each.output for each in self.values if each.node == node and each.output]

    # ---- what is still read ----------------------------------------------------------------------------------------

    def find_values_read_later(self, node: Node) -> Iterator[OutputRef]:
        """The values that something behind a layer takes."""
        position = self._positions.get(node.id, 0)
        return (ref for ref in self.samples if self._last_positions.get(ref, -1) > position)

    def forget_samples(self, node: Node) -> None:
        """Drop the samples that a layer was the last one to take."""
        for ref in node.inputs.values():
            if self._last_positions.get(ref, -1) <= self._positions[node.id]:
                self.samples.pop(ref, None)

    # ---- what messages and joins ask for ---------------------------------------------------------------------------

    def find_last_norm(self, ref: OutputRef) -> tuple[str, Mapping[str, Any]] | None:
        """The normalisation that a residual's body ends in, and the settings that it was written with."""
        ref = self.aliases.get(ref, ref)
        while ref.node in self.built_layers and self.built_layers[ref.node].type in ("StochasticDepth", "Dropout"):
            ref = next(iter(self.nodes[ref.node].inputs.values()))
            ref = self.aliases.get(ref, ref)
        if ref.node not in self.built_layers or not is_norm(self.built_layers[ref.node].type):
            return None
        layer = self.calls[self.nodes[ref.node].path].layer
        inferred = [name for name, each in layer.schema.settings.items() if each.is_inferred]
        return layer.type, {name: each for name, each in layer.settings.items() if name not in inferred}

    def find_fewest_steps(self) -> dict[str, int]:
        """How many steps its windows need at least, by the field that has lengths."""
        fewest: dict[str, int] = {}
        for each in filter(None, (value.lengths for value in self.values.values())):
            fewest[each.field] = max(fewest.get(each.field, 1), count_fewest_steps(each.windows))
        return fewest


def _value_from_field(field: Field) -> TensorInfo:
    return TensorInfo(field.shape, field.layout, Lengths(field.name) if field.has_lengths else None, field.vocab_size)


def _find_last_positions(graph: Graph) -> dict[OutputRef, int]:
    """The place of the last node that takes each value; the network's outputs come after all."""
    last = {ref: at for at, node in enumerate(graph.nodes) for ref in node.inputs.values()}
    return last | {ref: len(graph.nodes) for ref in graph.outputs.values()}
