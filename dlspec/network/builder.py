"""Build a network layer by layer, passing a small batch through each layer to find the inputs of the next one.

Every layer is built once, in the order in which the layers run, so that with the same seed its weights equal those of
the same network written in PyTorch. The batch is passed in eval mode, and the state of the random generators is
restored afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.data.dataset import Field
from dlspec.errors import Finding
from dlspec.language.expand.containers import RESIDUAL_ADD
from dlspec.language.expand.entry_inputs import PARAMETER
from dlspec.language.expand.graph import MODEL, Graph
from dlspec.language.parse.deferred import OutputRef
from dlspec.language.problems import Problems
from dlspec.language.spec_versions import NORM_OF_PROJECTIONS, PADDING
from dlspec.layouts import TensorInfo
from dlspec.network.body_norm import find_main_norm
from dlspec.network.build_mode import RUN_MODE, BuildMode
from dlspec.network.built_network import BuiltLayer as BuiltLayer
from dlspec.network.built_network import Network as Network
from dlspec.network.call_checks import CallChecks
from dlspec.network.codegen import ForwardStep, assemble_network
from dlspec.network.former_padding import counted_padding_before
from dlspec.network.layer import Layer as Layer
from dlspec.network.layer import LayerCall
from dlspec.network.layer_construction import (
    check_parametrization,
    complete_settings,
    compute_settings,
    has_required_inputs,
    make_module,
    order_inputs,
    try_or_report,
)
from dlspec.network.layer_rules.layout_rules import find_padding_to_zero
from dlspec.network.network_outputs import check_output_is_computed, describe_output, find_outputs
from dlspec.network.output_values import (
    choose_outputs,
    find_input_lengths,
    find_output_value,
    find_required_outputs,
    list_output_names,
    take_lengths_of,
)
from dlspec.network.padding_check import check_padding
from dlspec.network.partial_network import PartialNetwork
from dlspec.network.residual_join import plan_residual_join
from dlspec.network.shape_chain import describe_shapes
from dlspec.network.shortcuts import Norm
from dlspec.network.tied_weights import tie_weight
from dlspec.network.tracing import ShapeTracer, ignore_build_warnings
from dlspec.parts.layers.rule import main_input

# Settings that make a PyTorch layer return further outputs.
_OUTPUT_SETTINGS = ("need_weights", "return_indices")


def build_network(
    graph: Graph,
    layers: Sequence[Layer],
    fields: Mapping[str, tuple[Field, Tensor]],
    problems: Problems,
    mode: BuildMode = RUN_MODE,
) -> Network | None:
    """Build the network of a graph.

    Args:
        graph: The nodes of the model and how they are connected.
        layers: The graph's nodes with their settings, in the order in which they run.
        fields: The data's fields by the model's names for its inputs, each with a small batch, (N, ...).
        problems: Collects what does not fit.
        mode: The device to build on, with its limits.

    Returns:
        The network, or None where a problem was found.

    Raises:
        BuildModeError: If the network can't be built in this mode.
    """
    if not graph.inputs:  # the model does not name its inputs: the only one takes the field's name
        fields = dict(zip(("",), fields.values(), strict=False))
    problem_count = len(problems)
    with ignore_build_warnings(), mode.default_device():
        builder = NetworkBuilder(PartialNetwork(graph, fields, mode.device), problems, mode)
        for layer in layers:
            builder.add(layer)
        problems.set_part_origins({})
        return builder.finish() if len(problems) == problem_count else None


class NetworkBuilder:
    """Builder of one network: call `add` for its layers in the order in which they run, then `finish`."""

    def __init__(self, network: PartialNetwork, problems: Problems, mode: BuildMode) -> None:
        self.network, self.problems = network, problems
        self.checks = CallChecks(network, problems)
        self.weight_limit, self.tracer, self.allows_trimming = mode.weights(), ShapeTracer(), True
        self.values = mode.values
        self.shortcuts: dict[str, str] = {}  # which shortcut was made, by the joins' nodes
        self.required_outputs = find_required_outputs(network.graph)

    def add(self, layer: Layer) -> None:
        """Build a layer and pass the small batch through it. Skip it if a layer that it depends on has failed."""
        self.problems.set_part_origins(layer.node.origins)
        if layer.node.part.type == RESIDUAL_ADD:
            layer = self._choose_shortcut(layer)
        node = layer.node
        if any(self._has_equal_shapes(*pair) for pair in node.only_if_unequal):
            self.network.forget_samples(node)
            return
        if not all(check_output_is_computed(self.network, ref, node, self.problems) for ref in node.inputs.values()):
            return
        if node.part.type == RESIDUAL_ADD:
            self._add_residual_join(layer)
        else:
            self._add_layer(layer)
        self.network.forget_samples(node)

    def _add_residual_join(self, layer: Layer) -> None:
        """Add the layers that join a residual's body and its shortcut."""
        node, network = layer.node, self.network
        body, shortcut = node.inputs[0], node.inputs[1]
        norm = self._find_projection_norm(layer) if layer.settings.get("shortcut") == "auto" else None
        layers = plan_residual_join(layer, network.values[body], network.values[shortcut], norm)
        if isinstance(layers, Finding):
            self.problems.add_finding(node.problem_path, layers, note=describe_shapes(network, node))
            return
        self._note_shortcut(layer, layers)
        if not layers:  # no shortcut: the output of the body is the output of the residual
            network.add_aliases(body, OutputRef(node.id))
            network.nodes[node.id] = node
        for each in layers:
            if all(ref in network.values for ref in each.node.inputs.values()):
                self._add_layer(each)

    def _has_equal_shapes(self, one: OutputRef, other: OutputRef) -> bool:
        """Whether two outputs have the same shape and layout; also if one of them failed, which was reported."""
        first, second = self.network.values.get(one), self.network.values.get(other)
        if first is None or second is None:
            return True
        return first.shape == second.shape and first.layout == second.layout

    def _choose_shortcut(self, layer: Layer) -> Layer:
        """Choose between the input and the layers of `shortcut: {if_unequal: [...]}` by the shapes."""
        inputs = layer.node.inputs
        if 2 not in inputs:
            return layer
        is_equal = self._has_equal_shapes(inputs[0], inputs[1])
        self.shortcuts[layer.node.id] = "input" if is_equal else "as written"
        return replace(layer, node=replace(layer.node, inputs={0: inputs[0], 1: inputs[1 if is_equal else 2]}))

    def _note_shortcut(self, layer: Layer, shortcut_layers: Sequence[Layer]) -> None:
        """Note which shortcut was made, if that depends on the shapes."""
        kind, network, node = layer.settings.get("shortcut"), self.network, layer.node
        if kind is None:
            return
        if shortcut_layers:
            self.shortcuts.setdefault(node.id, ", ".join(each.type for each in shortcut_layers[:-1]) or "input")
            return
        body = network.resolve_alias(node.inputs[0]).node
        if body in network.built_layers:
            network.built_layers[body] = replace(network.built_layers[body], shortcut="none")

    def _find_projection_norm(self, layer: Layer) -> Norm | None:
        """Find the normalization that a projected shortcut ends with; None also if nothing is projected."""
        node, network = layer.node, self.network
        body, shortcut = node.inputs[0], node.inputs[1]
        if self._has_equal_shapes(body, shortcut):
            return None
        norm = find_main_norm(network, body, shortcut)
        if norm != network.find_final_norm(body):
            self.problems.refuse_changed_rule(NORM_OF_PROJECTIONS, node.part.path_of("shortcut"), at_value=True)
        return norm

    def _add_layer(self, layer: Layer) -> None:
        call = self._prepare_call(layer)
        if call is None or not self.checks.has_lengths(call):
            return
        if self.problems.spec_version < PADDING.since:
            earlier_types = {each.type for each in self.network.built_layers.values()}
            if counted_padding_before(call, earlier_types):
                self.problems.refuse_changed_rule(PADDING, layer.node.problem_path)
        outputs = self._trace_outputs(call)
        if outputs is not None:
            self._store_outputs(call, outputs)

    # ---- the call --------------------------------------------------------------------------------------------------

    def _prepare_call(self, layer: Layer) -> LayerCall | None:
        """Return the layer with its module and its input values, or None where something does not fit."""
        first_call = self.network.calls.get(layer.node.path) if layer.node.is_shared else None
        settings: Mapping[str, Any] | None
        if first_call is not None:
            layer, settings = replace(layer, schema=first_call.layer.schema), first_call.settings
        else:
            settings = compute_settings(layer, lambda ref: self.network.values[ref].channels, self.problems)
        if settings is None or (layer.node.is_shared and not self.checks.accepts_repeated_call(layer, settings)):
            return None
        values_by_argument = self.network.get_input_values(layer.node)
        values = order_inputs(layer, values_by_argument, self.problems)
        if values is None or not self.checks.accepts(layer, settings, values):
            return None
        if not has_required_inputs(layer, values_by_argument, self.problems):
            return None
        if first_call is not None:
            return LayerCall(layer, first_call.module, settings, values)
        return self._make_call(layer, settings, values)

    def _make_call(self, layer: Layer, settings: Mapping[str, Any], values: Sequence[TensorInfo]) -> LayerCall | None:
        """Make a module for the layer and return the call, or None where no module can be made for these inputs."""
        output_names = self.required_outputs.get(layer.node.name, ("",))
        output_settings = [key for key in _OUTPUT_SETTINGS if "1" in output_names and key in layer.schema.settings]
        settings = {**dict.fromkeys(output_settings, True), **settings}
        all_settings = complete_settings(layer, settings, values, self.problems) if values else settings
        module = None if all_settings is None else self._make_module(layer, all_settings, values)
        if all_settings is None or module is None:
            return None
        choose_outputs(module, output_names)
        call = LayerCall(layer, module, all_settings, values)
        self.network.calls[layer.node.path] = call
        return call

    def _make_module(self, layer: Layer, settings: Mapping[str, Any], values: Sequence[TensorInfo]) -> nn.Module | None:
        note = self._make_shape_describer(layer)
        module: nn.Module | None = try_or_report(
            lambda: self._make_module_with_values(layer, settings), layer, values, self.problems, note
        )
        if module is None or not check_parametrization(layer, module, self.problems):
            return None
        return module if tie_weight(layer, module, self.network.calls, self.problems) else None

    def _make_module_with_values(self, layer: Layer, settings: Mapping[str, Any]) -> nn.Module:
        if self.values is None:
            return make_module(layer, settings, self.weight_limit)
        with torch.device("cpu"):
            module = make_module(layer, settings, self.weight_limit)
        self.values.take(module)
        return module

    def _make_shape_describer(self, layer: Layer) -> Callable[[], str]:
        return lambda: describe_shapes(self.network, layer.node)

    # ---- the outputs -----------------------------------------------------------------------------------------------

    def _trace_outputs(self, call: LayerCall) -> dict[str, Tensor] | None:
        """Return the layer's outputs for the small batch by name; None where batch size or layout are unexpected."""
        layer = call.layer
        inputs = self.network.get_input_samples(layer.node)
        result = try_or_report(
            lambda: self.tracer.trace(call, inputs),
            layer,
            call.values,
            self.problems,
            self._make_shape_describer(layer),
        )
        if result is None:
            return None
        tensors = result if isinstance(result, tuple) else (result,)
        if not self.checks.returns_tensors(call, tensors):
            return None
        has_batch = layer.type != PARAMETER and call.has_batch
        outputs = dict(zip(list_output_names(call.module, len(tensors)), tensors, strict=False))
        first = next(iter(outputs.values()))
        if has_batch and not self.checks.keeps_batch_size(call, first):
            return None
        if not self.checks.has_values(call, outputs):
            return None
        return outputs if self.checks.fits_layout(layer, first, has_batch) else None

    def _store_outputs(self, call: LayerCall, outputs: Mapping[str, Tensor]) -> None:
        """Keep the layer's outputs for the layers that use them."""
        node, network = call.layer.node, self.network
        first = next(iter(outputs))
        for output_name, tensor in outputs.items():
            ref = OutputRef(node.id, "" if output_name == first else output_name)
            output = find_output_value(call, tensor, ref.output)
            if node.lengths_of in network.values and output_name == first:
                source = network.values[node.lengths_of]
                if not self.checks.fits_lengths_of(call.layer, output.value, source):
                    return
                output = take_lengths_of(output, source)
            self.checks.check_former_layout(call, output.value)
            self.allows_trimming &= output.allows_trimming
            network.store_output(ref, output.value, tensor)
        self._name_outputs(call, tuple(outputs))
        network.nodes[node.id] = node
        network.steps.append(self._make_step(call, tuple(outputs)))
        network.built_layers[node.id] = self._make_built_layer(call)

    def _name_outputs(self, call: LayerCall, output_names: Sequence[str]) -> None:
        """Let references find named outputs by number too, and the first one also without a name."""
        if not output_names[0]:
            return
        id, network = call.layer.node.id, self.network
        names: tuple[str, ...] = call.module.output_names  # type: ignore[assignment]  # its class says so
        network.add_aliases(
            OutputRef(id), OutputRef(id, output_names[0]), OutputRef(id, str(names.index(output_names[0])))
        )
        for output_name in output_names[1:]:
            network.add_aliases(OutputRef(id, output_name), OutputRef(id, str(names.index(output_name))))

    def _make_step(self, call: LayerCall, output_names: Sequence[str]) -> ForwardStep:
        node = call.layer.node
        padding_to_zero = (
            find_padding_to_zero(call.layer.schema, main_input(call.values), call.settings) if call.values else None
        )
        is_constant = self.network.values[OutputRef(node.id)].constant is not None
        inputs: Mapping[int | str, OutputRef] = {} if is_constant else node.inputs
        return ForwardStep(
            node.id, node.path, call.module, call.layer.type, inputs, ("", *output_names[1:]),
            find_input_lengths(call), len(output_names) > 1, padding_to_zero,
        )  # fmt: skip

    def _make_built_layer(self, call: LayerCall) -> BuiltLayer:
        layer, node, settings = call.layer, call.layer.node, call.settings
        defaults = {name: each.default for name, each in layer.schema.settings.items()}
        written_settings = {name: settings[name] for name in layer.settings if settings[name] != defaults[name]}
        sources = tuple(self.network.make_input_edge(ref) for ref in node.inputs.values())
        output = self.network.values[OutputRef(node.id)]
        return BuiltLayer(
            node.id, layer.type, call.module, output, node.entry, node.is_shared, written_settings, sources,
            self.shortcuts.get(node.id, ""),
        )  # fmt: skip

    # ---- the whole network -----------------------------------------------------------------------------------------

    def finish(self) -> Network | None:
        """Assemble the network and return it, or None where one of its outputs is invalid."""
        network = self.network
        outputs = find_outputs(network, self.problems)
        if outputs is None:
            return None
        module, inputs = assemble_network(network.steps, network.fields, outputs, network.aliases)
        described_outputs = {name: describe_output(network, ref) for name, ref in outputs.items()}
        fields = {name or each.name: network.values[OutputRef(MODEL, name)] for name, each in network.fields.items()}
        rows = tuple(network.built_layers.values())
        built = Network(
            module.train(), inputs, fields, rows, described_outputs, self.allows_trimming, network.find_fewest_steps()
        )
        samples = {
            each.name: (network.values[OutputRef(MODEL, name)], sample)
            for (name, each), sample in zip(network.fields.items(), network.data, strict=True)
        }
        problem_count = len(self.problems)
        check_padding(built, samples, self.problems)
        return built if len(self.problems) == problem_count else None
