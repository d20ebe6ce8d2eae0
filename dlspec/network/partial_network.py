"""A network while it is built: its layers so far, and what they return for a small batch, the sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from dlspec.data.batches.sequence_lengths import compute_min_input_steps
from dlspec.data.dataset import Field
from dlspec.language.expand.graph import MODEL, Graph, Node
from dlspec.language.parse.deferred import OutputRef
from dlspec.layouts import Lengths, TensorInfo
from dlspec.network.built_network import BuiltLayer, InputEdge
from dlspec.network.codegen import ForwardStep
from dlspec.network.layer import LayerCall
from dlspec.network.shortcuts import Norm, is_norm


class PartialNetwork:
    """The built layers of a network, and their outputs.

    Args:
        graph: The nodes of the model and how they are connected.
        fields: The data's fields by the model's names for its inputs, each with a small batch, (N, ...).
        device: The device to copy the batch to; None leaves the batch where it is.
    """

    def __init__(self, graph: Graph, fields: Mapping[str, tuple[Field, Tensor]], device: torch.device | None) -> None:
        self.graph = graph
        self.fields = {name: field for name, (field, _) in fields.items()}
        # Inputs of the model and outputs of the layers: their shapes and layouts, and their tensors for the small
        # batch, which are deleted when no later layer needs them.
        self.values: dict[OutputRef, TensorInfo] = {
            OutputRef(MODEL, name): _value_from_field(field) for name, field in self.fields.items()
        }
        self.samples: dict[OutputRef, Tensor] = {
            OutputRef(MODEL, name): sample.to(device, copy=True) for name, (_, sample) in fields.items()
        }
        # Kept to the end, so that the memory of the data is not reused for an output.
        self.data = [*self.samples.values()]
        # Further names of a value, each with the name that it stands for.
        self.aliases: dict[OutputRef, OutputRef] = {}
        # Layers and nodes by the ids of the nodes.
        self.built_layers: dict[str, BuiltLayer] = {}
        self.nodes: dict[str, Node] = {}
        # The calls that made a module, by the module's path in the state dict.
        self.calls: dict[tuple[str, ...], LayerCall] = {}
        self.steps: list[ForwardStep] = []
        self._positions = {node.id: at for at, node in enumerate(graph.nodes)}
        self._last_positions = _find_last_positions(graph)

    def store_output(self, ref: OutputRef, value: TensorInfo, sample: Tensor) -> None:
        """Keep a layer's output for the layers that use it.

        Args:
            ref: The layer and the name of the output.
            value: The output's shape and layout.
            sample: The output for the small batch, (N, ...).
        """
        self.values[ref], self.samples[ref] = value, sample

    def add_aliases(self, ref: OutputRef, *aliases: OutputRef) -> None:
        """Add further names for a value."""
        for each in aliases:
            self.store_output(each, self.values[ref], self.samples[ref])
            self.aliases[each] = ref

    def resolve_alias(self, ref: OutputRef) -> OutputRef:
        """Return the name under which a value was stored first."""
        while ref in self.aliases:
            ref = self.aliases[ref]
        return ref

    def make_input_edge(self, ref: OutputRef) -> InputEdge:
        """Describe where a value comes from: its layer and output."""
        ref = self.resolve_alias(ref)
        return InputEdge(ref.node, ref.output, self.values[ref])

    def get_input_values(self, node: Node) -> dict[int | str, TensorInfo]:
        """Return shapes and layouts of a layer's inputs, by position or argument name."""
        return {key: self.values[ref] for key, ref in node.inputs.items()}

    def get_input_samples(self, node: Node) -> dict[int | str, Tensor]:
        """Return the tensors for a layer's inputs, by position or argument name."""
        return {key: self.samples[ref] for key, ref in node.inputs.items()}

    def list_further_outputs(self, node: str) -> Sequence[str]:
        """List the names of a layer's outputs after the first one."""
        names: Sequence[str] = getattr(self.built_layers[node].module, "output_names", ())[1:]
        return [*names] or [each.output for each in self.values if each.node == node and each.output]

    # ---- tensors that are still needed -----------------------------------------------------------------------------

    def find_values_read_later(self, node: Node) -> Iterator[OutputRef]:
        """Iterate over the values that a layer after this node, or an output of the network, uses."""
        position = self._positions.get(node.id, 0)
        return (ref for ref in self.samples if self._last_positions.get(ref, -1) > position)

    def forget_samples(self, node: Node) -> None:
        """Delete the tensors that no layer after this node needs."""
        for ref in node.inputs.values():
            if self._last_positions.get(ref, -1) <= self._positions[node.id]:
                self.samples.pop(ref, None)

    # ---- properties of the layers so far ---------------------------------------------------------------------------

    def find_final_norm(self, ref: OutputRef) -> Norm | None:
        """Find the normalization at the end of a residual's body, as spec version 1 does: behind it only dropout."""
        ref = self.aliases.get(ref, ref)
        while ref.node in self.built_layers and self.built_layers[ref.node].type in ("StochasticDepth", "Dropout"):
            ref = next(iter(self.nodes[ref.node].inputs.values()))
            ref = self.aliases.get(ref, ref)
        return self.describe_norm(ref.node)

    def describe_norm(self, node: str) -> Norm | None:
        """Return the type and the written settings of a node's layer; None if it is not a normalization."""
        if node not in self.built_layers or not is_norm(self.built_layers[node].type):
            return None
        layer = self.calls[self.nodes[node].path].layer
        inferred = [name for name, each in layer.schema.settings.items() if each.is_inferred]
        return layer.type, {name: each for name, each in layer.settings.items() if name not in inferred}

    def find_fewest_steps(self) -> dict[str, int]:
        """Find the fewest steps that the convolutions and poolings need, by field with lengths."""
        fewest: dict[str, int] = {}
        for each in filter(None, (value.lengths for value in self.values.values())):
            fewest[each.field] = max(fewest.get(each.field, 1), compute_min_input_steps(each.changes))
        return fewest


def _value_from_field(field: Field) -> TensorInfo:
    return TensorInfo(field.shape, field.layout, Lengths(field.name) if field.has_lengths else None, field.vocab_size)


def _find_last_positions(graph: Graph) -> dict[OutputRef, int]:
    """Find the position of the last node that uses each value; an output of the network is used after all nodes."""
    last = {ref: at for at, node in enumerate(graph.nodes) for ref in node.inputs.values()}
    return last | {ref: len(graph.nodes) for ref in graph.outputs.values()}
