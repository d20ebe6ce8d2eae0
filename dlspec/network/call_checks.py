"""Checks of one call of a layer: its inputs, what an in-place operation would overwrite, and its outputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from torch import Tensor

from dlspec.errors import Code, format_value
from dlspec.language.expand.entry_inputs import FORMULA
from dlspec.language.problems import Problems
from dlspec.language.spec_versions import LAYOUTS_OF_FORMULAS, POWERS_OF_INTEGERS
from dlspec.layouts import TensorInfo, format_shape
from dlspec.network.layer import Layer, LayerCall
from dlspec.network.layer_construction import setting_fits_input
from dlspec.network.layer_rules.layout_fixes import RESHAPE_FIX
from dlspec.network.layer_rules.layout_rules import check_layer_rule, find_rule, infer_setting
from dlspec.network.layer_rules.padding_fixes import suggest_fix_for_lost_lengths
from dlspec.network.layout_guess import name_layout_source
from dlspec.network.memory_limits import limit_memory_growth
from dlspec.network.partial_network import PartialNetwork
from dlspec.network.random_state import CPU, preserve_random_state
from dlspec.network.shape_chain import describe_shapes
from dlspec.network.tracing import get_memory_key
from dlspec.parts.layers.formula_layer import find_former_layout
from dlspec.parts.layers.formula_powers import has_changed_power

# The minimum number of dimensions of each layout, without the batch, and their description.
_MIN_DIMS: Mapping[str, tuple[int, str]] = {
    "features": (1, "(C)"),
    "tokens": (1, "(T) of whole numbers"),
    "sequence": (2, "(T, C)"),
    "channels-first": (2, "(C, T or S...)"),
    "channels-last": (2, "(S..., C)"),
}


class CallChecks:
    """Checks of a call of a layer beyond PyTorch's own; each one adds the problems that it finds."""

    def __init__(self, network: PartialNetwork, problems: Problems) -> None:
        self.network, self.problems = network, problems

    # ---- before the module is built --------------------------------------------------------------------------------

    def accepts_repeated_call(self, layer: Layer, settings: Mapping[str, Any]) -> bool:
        """Whether a module that is called again, with these settings, fits the inputs of this call."""
        values = [*self.network.get_input_values(layer.node).values()]
        for name, setting in layer.schema.settings.items():
            inferred = infer_setting(name, values) if setting.is_inferred and values else None
            if (
                inferred is None
                or settings.get(name) is None
                or setting_fits_input(name, settings[name], inferred, values[0])
            ):
                continue
            found = f"'{layer.node.name}' has {name} {settings[name]}, but the input is {values[0]}"
            fix = "write a new layer, with its own weights"
            self.problems.add(Code.SHAPE_MISMATCH, layer.node.entry, found, fix)
            return False
        return True

    def accepts(self, layer: Layer, settings: Mapping[str, Any], values: Sequence[TensorInfo]) -> bool:
        """Whether the layer's rule allows these inputs, and an in-place operation overwrites nothing still needed.

        Args:
            layer: The layer to call.
            settings: Its settings so far; those that the inputs decide may be missing.
            values: Its inputs in the order of its `forward`.

        Returns:
            False where a problem was found.
        """
        refused = None
        if not values and layer.type == FORMULA:
            with limit_memory_growth():
                refused = find_rule(layer.schema).refuse(values, settings)
        elif values:
            # A layer's own check may run a formula on a small batch.
            with limit_memory_growth() if find_rule(layer.schema).check else nullcontext():
                refused = check_layer_rule(layer.schema, values, settings)
        if refused is not None:
            note = describe_shapes(self.network, layer.node)
            if refused.code is Code.WRONG_LAYOUT:
                refused = replace(refused, fix=name_layout_source(self.network, layer, refused.fix))
            self.problems.add_finding(layer.node.problem_path, refused, shown=layer.shown, note=note)
            return False
        if layer.type == FORMULA and values and self.problems.spec_version < POWERS_OF_INTEGERS.since:
            self._check_powers(layer, settings["formula"])
        return settings.get("inplace") is not True or self._can_work_in_place(layer)

    def _check_powers(self, layer: Layer, formula: str) -> None:
        """Report a power that was another number in version 1."""
        samples = list(self.network.get_input_samples(layer.node).values())
        device = samples[0].device if samples else CPU
        with limit_memory_growth(), preserve_random_state(device):
            if has_changed_power(formula, samples):
                self.problems.refuse_changed_rule(POWERS_OF_INTEGERS, layer.node.problem_path)

    def _can_work_in_place(self, layer: Layer) -> bool:
        """Whether an in-place operation overwrites neither the data nor a value that a later layer reads."""
        network, node = self.network, layer.node
        memory = get_memory_key(network.samples[next(iter(node.inputs.values()))])
        if memory in [get_memory_key(each) for each in network.data]:
            return self._report_inplace(layer, "inplace would overwrite the data")
        for ref in network.find_values_read_later(node):
            if get_memory_key(network.samples[ref]) == memory:
                name = network.built_layers[ref.node].name if ref.node in network.built_layers else ref.output
                found = f"inplace would overwrite the output of '{name}', which a later layer reads"
                return self._report_inplace(layer, found)
        return True

    def _report_inplace(self, layer: Layer, found: str) -> bool:
        path = layer.node.part.path_of("inplace")
        self.problems.add(Code.INPLACE, path, found, "leave it out", at_value=True, shown=layer.shown)
        return False

    # ---- after the module is built ---------------------------------------------------------------------------------

    def has_lengths(self, call: LayerCall) -> bool:
        """Whether the lengths that the layer needs are known: an earlier layer may have mixed padding and steps."""
        if not self._has_valid_lengths_of(call):
            return False
        input_positions: Mapping[str, int] = getattr(call.module, "lengths_of", {})
        values, layer = call.values, call.layer
        mixing_layer = next(
            (
                values[at].lengths_lost_at
                for at in input_positions.values()
                if at < len(values) and values[at].lengths_lost_at
            ),
            "",
        )
        if not mixing_layer or not getattr(call.module, "needs_lengths", True):
            return True
        row = self.network.built_layers[mixing_layer]
        found = f"{layer.type} needs each sample's length, which is unknown after {row.type} ('{row.name}')"
        fix = suggest_fix_for_lost_lengths(row.type, layer.type)
        note = describe_shapes(self.network, layer.node)
        self.problems.add(Code.LENGTHS_LOST, layer.node.problem_path, found, fix, shown=layer.shown, note=note)
        return False

    def _has_valid_lengths_of(self, call: LayerCall) -> bool:
        """Whether the class attribute `lengths_of` of a user's layer maps arguments of its `forward` to inputs."""
        written, layer = getattr(call.module, "lengths_of", {}), call.layer
        if written == {}:
            return True
        arguments = inspect.signature(type(call.module).forward).parameters
        takes_any = any(each.kind is each.VAR_KEYWORD for each in arguments.values())
        if isinstance(written, Mapping) and all(
            (takes_any or name in arguments) and type(position) is int and position >= 0
            for name, position in written.items()
        ):
            return True
        found = f"{layer.type}.lengths_of must map arguments of its forward to positions of inputs"
        fix = 'write lengths_of = {"lengths": 0} in the class, and an argument lengths in forward'
        self.problems.add(
            Code.WRONG_VALUE, layer.node.problem_path, f"{found}, got {format_value(written)}", fix, shown=layer.shown
        )
        return False

    def fits_lengths_of(self, layer: Layer, value: TensorInfo, source: TensorInfo) -> bool:
        """Whether an output can have the lengths of the output that `lengths_of` names.

        Args:
            layer: The layer.
            value: Its output.
            source: The output that `lengths_of` names.

        Returns:
            False where a problem was found.
        """
        path = layer.node.part.path_of("lengths_of")
        name = layer.node.part.keys["lengths_of"]
        code, fix = Code.SHAPE_MISMATCH, "leave it out, or name an output with the same steps"
        if value.time_dim is None:
            found = f"{layer.type} returns {value}, which has no steps"
        elif source.time_dim is None:
            found = f"'{name}' is {source}, which has no steps"
        elif source.lengths_lost_at:
            mixing = self.network.built_layers[source.lengths_lost_at]
            code, fix = Code.LENGTHS_LOST, "name an output above it"
            found = f"the lengths of '{name}' are unknown after {mixing.type} ('{mixing.name}')"
        elif value.shape[value.time_dim - 1] != source.shape[source.time_dim - 1]:
            steps = value.shape[value.time_dim - 1], source.shape[source.time_dim - 1]
            found = f"{layer.type} returns {steps[0]} steps, but '{name}' has {steps[1]}"
        else:
            return True
        self.problems.add(code, path, found, fix, at_value=True, shown=layer.shown)
        return False

    # ---- after the small batch was passed --------------------------------------------------------------------------

    def check_former_layout(self, call: LayerCall, value: TensorInfo) -> None:
        """Report a formula whose output had another layout in version 1."""
        node, is_current = call.layer.node, self.problems.spec_version >= LAYOUTS_OF_FORMULAS.since
        if is_current or call.layer.type != FORMULA or node.layout is not None or not call.values:
            return
        if find_former_layout(call.values, value.shape, call.settings) != value.layout:
            self.problems.refuse_changed_rule(LAYOUTS_OF_FORMULAS, node.problem_path)

    def returns_tensors(self, call: LayerCall, outputs: Sequence[Any]) -> bool:
        """Whether the layer returned only tensors."""
        if all(isinstance(each, Tensor) for each in outputs):
            return True
        fix = "a layer's forward must return a tensor or a tuple of tensors"
        layer = call.layer
        self.problems.add(
            Code.WRONG_RESULT, layer.node.problem_path, f"{layer.type} returned {type(outputs[0]).__name__}", fix
        )
        return False

    def keeps_batch_size(self, call: LayerCall, output: Tensor) -> bool:
        """Whether the layer's output has as many samples as its input."""
        layer, network = call.layer, self.network
        with_batch = [ref for ref in layer.node.inputs.values() if network.values[ref].has_batch]
        batch_size = len(network.samples[with_batch[0]])
        if getattr(call.module, "folds_batch", False) or (output.dim() > 0 and len(output) == batch_size):
            return True
        found = f"{layer.type} returned shape {tuple(output.shape)} for a batch of {batch_size}"
        fix = "dimension 0 is the batch: a layer must keep its size"
        if any(not each.shape for each in call.values if each.has_batch):
            found, fix = f"{layer.type} expects a dimension besides the batch, got one number per sample", RESHAPE_FIX
        self.problems.add(Code.WRONG_RESULT, layer.node.problem_path, found, fix, shown=layer.shown)
        return False

    def has_values(self, call: LayerCall, outputs: Mapping[str, Tensor]) -> bool:
        """Whether no dimension of the layer's outputs is empty: PyTorch would train on nothing without an error."""
        layer = call.layer
        empty = next((each for each in outputs.values() if 0 in each.shape), None)
        if empty is None:
            return True
        shape = format_shape(empty.shape[1:] if call.has_batch else empty.shape)
        found = f"{layer.type} returns no values: its output has shape {shape}"
        fix = "keep at least 1 of each dimension: the layer cuts or selects too much"
        note = describe_shapes(self.network, layer.node)
        self.problems.add(Code.WRONG_RESULT, layer.node.problem_path, found, fix, shown=layer.shown, note=note)
        return False

    def fits_layout(self, layer: Layer, output: Tensor, has_batch: bool) -> bool:
        """Whether a layer's output can have the layout that is written in the spec.

        Args:
            layer: The layer; its node has the written layout, or None.
            output: The layer's output for the small batch.
            has_batch: Whether dimension 0 of `output` is the batch.

        Returns:
            False where a problem was found.
        """
        layout = layer.node.layout
        if layout is None:
            return True
        dims, expected = _MIN_DIMS[layout]
        shape = tuple(output.shape[1:]) if has_batch else tuple(output.shape)
        if len(shape) >= dims and (layout != "tokens" or not output.is_floating_point()):
            return True
        found = f"layout is {layout}, which means {expected}, but {layer.type} returns {format_shape(shape)}"
        path, fix = layer.node.part.path_of("layout"), "leave it out, or write another layout"
        self.problems.add(Code.WRONG_LAYOUT, path, found, fix, at_value=True, shown=layer.shown)
        return False
