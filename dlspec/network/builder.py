"""Builds a network, layer by layer, and learns each layer's inputs by passing a sample through.

Every layer is built once, for real, in the order in which it runs: under one seed its weights are those of the same
PyTorch code. The sample is passed in eval mode, with the random generators kept as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from dlspec.data.batches.trimming import border
from dlspec.data.dataset import Field
from dlspec.errors import Finding
from dlspec.language.expand.containers import JOIN
from dlspec.language.expand.entry_inputs import PARAMETER
from dlspec.language.expand.graph import MODEL, Graph
from dlspec.language.parse.deferred import Ref
from dlspec.language.problems import Problems
from dlspec.layouts import Value
from dlspec.network.built import BuiltLayer as BuiltLayer
from dlspec.network.built import Network as Network
from dlspec.network.built import Output as Output
from dlspec.network.call_checks import CallChecks
from dlspec.network.codegen import Step, assemble
from dlspec.network.joining import plan_join
from dlspec.network.layer import Layer as Layer
from dlspec.network.layer import LayerCall
from dlspec.network.layer_call import are_enough, attempt, completed, computed, in_order, made, may_parametrize
from dlspec.network.meta_device import RUN, Place
from dlspec.network.network_outputs import describe_output, find_outputs, is_known
from dlspec.network.output_values import (
    choose_outputs,
    find_input_lengths,
    find_output_value,
    find_wanted_outputs,
    output_words,
)
from dlspec.network.partial_network import PartialNetwork
from dlspec.network.shape_chain import describe_shapes
from dlspec.network.ties import tie
from dlspec.network.tracing import Tracer, sampling
from dlspec.parts.layers.rule import main

# Settings that open further outputs.
_OPENING = ("need_weights", "return_indices")


def build(
    graph: Graph,
    layers: Sequence[Layer],
    fields: Mapping[str, tuple[Field, Tensor]],
    problems: Problems,
    place: Place = RUN,
) -> Network | None:
    """The network of a graph whose nodes were read, or None where a layer does not fit and `problems` says why.

    `fields` are the data's by the model's names for its inputs, each with a small batch of samples. Raises `Unfit`
    where the place is none for this network.
    """
    if not graph.inputs:  # the model names none: its only one has the field's name
        fields = dict(zip(("",), fields.values(), strict=False))
    before = len(problems)
    with sampling(), place.making():
        builder = Builder(PartialNetwork(graph, fields, place.device), problems, place)
        for layer in layers:
            builder.add(layer)
        problems.enter({})
        return builder.finish() if len(problems) == before else None


class Builder:
    """Builds one network, layer by layer, in the order in which they run."""

    def __init__(self, network: PartialNetwork, problems: Problems, place: Place) -> None:
        self.network, self.problems = network, problems
        self.checks = CallChecks(network, problems)
        self.limit, self.tracer, self.any_length = place.weights(), Tracer(), True
        self.wanted = find_wanted_outputs(network.graph)

    def add(self, layer: Layer) -> None:
        """Build a layer and pass the sample through it; what takes from a layer that failed is left out."""
        self.problems.enter(layer.node.origins)
        node = layer.node
        if not all(is_known(self.network, ref, node, self.problems) for ref in node.inputs.values()):
            return
        if node.part.type == JOIN:
            self._add_join(layer)
        else:
            self._add_layer(layer)
        self.network.forget_samples(node)

    def _add_join(self, layer: Layer) -> None:
        """Add a residual's body and its shortcut."""
        node, network = layer.node, self.network
        body, shortcut = node.inputs[0], node.inputs[1]
        norm = network.find_last_norm(body)
        layers = plan_join(layer, network.values[body], network.values[shortcut], norm)
        if isinstance(layers, Finding):
            self.problems.add_finding(node.where, layers, note=describe_shapes(network, node))
            return
        if not layers:  # the body flows on alone
            network.add_names(body, Ref(node.id))
            network.nodes[node.id] = node
        for each in layers:
            if all(ref in network.values for ref in each.node.inputs.values()):
                self._add_layer(each)

    def _add_layer(self, layer: Layer) -> None:
        call = self._prepare_call(layer)
        if call is None or not self.checks.has_lengths(call):
            return
        given = self._run(call)
        if given is not None:
            self._keep(call, given)

    # ---- the call --------------------------------------------------------------------------------------------------

    def _prepare_call(self, layer: Layer) -> LayerCall | None:
        """The layer with its module and the values that it takes; None where something does not fit."""
        shared = self.network.calls.get(layer.node.path) if layer.node.is_shared else None
        settings: Mapping[str, Any] | None
        if shared is not None:
            layer, settings = replace(layer, schema=shared.layer.schema), shared.settings
        else:
            settings = computed(layer, lambda ref: self.network.values[ref].channels, self.problems)
        if settings is None or (layer.node.is_shared and not self.checks.fits_shared(layer, settings)):
            return None
        by_argument = self.network.values_of(layer.node)
        values = in_order(layer, by_argument, self.problems)
        if values is None or not self.checks.accepts(layer, settings, values):
            return None
        if not are_enough(layer, by_argument, self.problems):
            return None
        if shared is not None:
            return LayerCall(layer, shared.module, settings, values)
        return self._make_call(layer, settings, values)

    def _make_call(self, layer: Layer, settings: Mapping[str, Any], values: Sequence[Value]) -> LayerCall | None:
        """The call with a module that is made for it; None where none can be made of these inputs."""
        words = self.wanted.get(layer.node.name, ("",))
        opening = [key for key in _OPENING if "1" in words and key in layer.schema.settings]
        settings = {**dict.fromkeys(opening, True), **settings}
        whole = completed(layer, settings, values, self.problems) if values else settings
        module = None if whole is None else self._make_module(layer, whole, values)
        if whole is None or module is None:
            return None
        choose_outputs(module, words)
        call = LayerCall(layer, module, whole, values)
        self.network.calls[layer.node.path] = call
        return call

    def _make_module(self, layer: Layer, settings: Mapping[str, Any], values: Sequence[Value]) -> nn.Module | None:
        note = self._note_of(layer)
        module: nn.Module | None = attempt(
            lambda: made(layer, settings, self.limit), layer, values, self.problems, note
        )
        if module is None or not may_parametrize(layer, module, self.problems):
            return None
        return module if tie(layer, module, self.network.calls, self.problems) else None

    def _note_of(self, layer: Layer) -> Callable[[], str]:
        return lambda: describe_shapes(self.network, layer.node)

    # ---- what it gives ---------------------------------------------------------------------------------------------

    def _run(self, call: LayerCall) -> dict[str, Tensor] | None:
        """What the layer gives for the sample, by word: a row for each row, in the layout that was asked for."""
        layer = call.layer
        inputs = self.network.samples_of(layer.node)
        found = attempt(
            lambda: self.tracer.trace(call, inputs), layer, call.values, self.problems, self._note_of(layer)
        )
        if found is None:
            return None
        tensors = found if isinstance(found, tuple) else (found,)
        if not self.checks.gives_tensors(call, tensors):
            return None
        has_batch = layer.type != PARAMETER and call.has_batch
        given = dict(zip(output_words(call.module, len(tensors)), tensors, strict=False))
        first = next(iter(given.values()))
        if has_batch and not self.checks.has_rows(call, first):
            return None
        return given if self.checks.fits_layout(layer, first, has_batch) else None

    def _keep(self, call: LayerCall, given: Mapping[str, Tensor]) -> None:
        """Keep what the layer gave, for those that take it."""
        node, network = call.layer.node, self.network
        first = next(iter(given))
        for word, tensor in given.items():
            ref = Ref(node.id, "" if word == first else word)
            output = find_output_value(call, tensor, ref.output)
            self.any_length &= output.any_length
            network.keep_output(ref, output.value, tensor)
        self._name_outputs(call, tuple(given))
        network.nodes[node.id] = node
        network.steps.append(self._step_of(call, tuple(given)))
        network.rows[node.id] = self._row_of(call)

    def _name_outputs(self, call: LayerCall, words: Sequence[str]) -> None:
        """Of a layer with named outputs the first one flows on, and numbers will do, too."""
        if not words[0]:
            return
        id, network = call.layer.node.id, self.network
        names: tuple[str, ...] = call.module.output_names  # type: ignore[assignment]  # its class says so
        network.add_names(Ref(id), Ref(id, words[0]), Ref(id, str(names.index(words[0]))))
        for word in words[1:]:
            network.add_names(Ref(id, word), Ref(id, str(names.index(word))))

    def _step_of(self, call: LayerCall, words: Sequence[str]) -> Step:
        node = call.layer.node
        edge = border(main(call.values), self.network.values[Ref(node.id)]) if call.values else None
        return Step(
            node.id, node.path, call.module, call.layer.type, node.inputs, ("", *words[1:]), find_input_lengths(call),
            len(words) > 1, edge,
        )  # fmt: skip

    def _row_of(self, call: LayerCall) -> BuiltLayer:
        layer, node, settings = call.layer, call.layer.node, call.settings
        defaults = {name: each.default for name, each in layer.schema.settings.items()}
        written = {name: settings[name] for name in layer.settings if settings[name] != defaults[name]}
        sources = tuple(self.network.source_of(ref) for ref in node.inputs.values())
        output = self.network.values[Ref(node.id)]
        return BuiltLayer(node.id, layer.type, call.module, output, node.entry, node.is_shared, written, sources)

    # ---- the end ---------------------------------------------------------------------------------------------------

    def finish(self) -> Network | None:
        """The network, or None where an output is none."""
        network = self.network
        outputs = find_outputs(network, self.problems)
        if outputs is None:
            return None
        module, inputs = assemble(network.steps, network.fields, outputs, network.aliases)
        ends = {name: describe_output(network, ref) for name, ref in outputs.items()}
        fields = {name or each.name: network.values[Ref(MODEL, name)] for name, each in network.fields.items()}
        rows = tuple(network.rows.values())
        return Network(module.train(), inputs, fields, rows, ends, self.any_length, network.fewest_steps())
