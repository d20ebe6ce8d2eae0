"""A network while it is built: its layers so far, and the values and samples that they give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlspec.data.batches.trimming import fewest_steps
from dlspec.data.dataset import Field
from dlspec.language.expand.graph import MODEL, Graph, Node
from dlspec.language.parse.deferred import Ref
from dlspec.layouts import Lengths, Value
from dlspec.network.built import BuiltLayer, Taken
from dlspec.network.codegen import Step
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
        self.values: dict[Ref, Value] = {Ref(MODEL, name): _value_of(field) for name, field in self.fields.items()}
        self.samples: dict[Ref, Tensor] = {
            Ref(MODEL, name): sample.to(device, copy=True) for name, (_, sample) in fields.items()
        }
        self.data = [*self.samples.values()]  # kept, so that no other output comes to lie there
        self.aliases: dict[Ref, Ref] = {}
        self.rows: dict[str, BuiltLayer] = {}
        self.nodes: dict[str, Node] = {}
        self.calls: dict[tuple[str, ...], LayerCall] = {}
        self.steps: list[Step] = []
        self._places = {node.id: at for at, node in enumerate(graph.nodes)}
        self._last_read = _last_read(graph)

    def keep_output(self, ref: Ref, value: Value, sample: Tensor) -> None:
        """Keep what a layer gave, for those that take it."""
        self.values[ref], self.samples[ref] = value, sample

    def add_names(self, ref: Ref, *others: Ref) -> None:
        """Let the same value be known under other names."""
        for each in others:
            self.keep_output(each, self.values[ref], self.samples[ref])
            self.aliases[each] = ref

    def first_name(self, ref: Ref) -> Ref:
        """The first of a value's names."""
        while ref in self.aliases:
            ref = self.aliases[ref]
        return ref

    def source_of(self, ref: Ref) -> Taken:
        """The layer and the output that a value comes from."""
        ref = self.first_name(ref)
        return Taken(ref.node, ref.output, self.values[ref])

    def values_of(self, node: Node) -> dict[int | str, Value]:
        """What a layer takes, by position or by the argument's name."""
        return {key: self.values[ref] for key, ref in node.inputs.items()}

    def samples_of(self, node: Node) -> dict[int | str, Tensor]:
        """The samples that a layer takes, by position or by the argument's name."""
        return {key: self.samples[ref] for key, ref in node.inputs.items()}

    def outputs_of(self, node: str) -> Sequence[str]:
        """The words of the further outputs that a layer has."""
        names: Sequence[str] = getattr(self.rows[node].module, "output_names", ())[1:]
        return [*names] or [each.output for each in self.values if each.node == node and each.output]

    # ---- what is still read ----------------------------------------------------------------------------------------

    def read_later(self, node: Node) -> Iterator[Ref]:
        """The values that something behind a layer takes."""
        place = self._places.get(node.id, 0)
        return (ref for ref in self.samples if self._last_read.get(ref, -1) > place)

    def forget_samples(self, node: Node) -> None:
        """Drop the samples that a layer was the last one to take."""
        for ref in node.inputs.values():
            if self._last_read.get(ref, -1) <= self._places[node.id]:
                self.samples.pop(ref, None)

    # ---- what messages and joins ask for ---------------------------------------------------------------------------

    def find_last_norm(self, ref: Ref) -> tuple[str, Mapping[str, Any]] | None:
        """The normalisation that a residual's body ends in, and the settings that it was written with."""
        ref = self.aliases.get(ref, ref)
        while ref.node in self.rows and self.rows[ref.node].type in ("StochasticDepth", "Dropout"):
            ref = next(iter(self.nodes[ref.node].inputs.values()))
            ref = self.aliases.get(ref, ref)
        if ref.node not in self.rows or not is_norm(self.rows[ref.node].type):
            return None
        layer = self.calls[self.nodes[ref.node].path].layer
        inferred = [name for name, each in layer.schema.settings.items() if each.is_inferred]
        return layer.type, {name: each for name, each in layer.settings.items() if name not in inferred}

    def fewest_steps(self) -> dict[str, int]:
        """How many steps its windows need at least, by the field that has lengths."""
        fewest: dict[str, int] = {}
        for each in filter(None, (value.lengths for value in self.values.values())):
            fewest[each.field] = max(fewest.get(each.field, 1), fewest_steps(each.windows))
        return fewest


def _value_of(field: Field) -> Value:
    return Value(field.shape, field.layout, Lengths(field.name) if field.has_lengths else None, field.vocab_size)


def _last_read(graph: Graph) -> dict[Ref, int]:
    """The place of the last node that takes each value; the network's outputs come after all."""
    last = {ref: at for at, node in enumerate(graph.nodes) for ref in node.inputs.values()}
    return last | {ref: len(graph.nodes) for ref in graph.outputs.values()}
