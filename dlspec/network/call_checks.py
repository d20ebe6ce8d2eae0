"""Checks of one call of a layer: what comes in, what working in place would overwrite, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from torch import Tensor

from dlspec.errors import Code
from dlspec.language.problems import Problems
from dlspec.layouts import Value, format_shape
from dlspec.network.layer import Layer, LayerCall
from dlspec.network.layer_call import agrees
from dlspec.network.memory_limits import bounded_growth
from dlspec.network.partial_network import PartialNetwork
from dlspec.network.rules.layout_rules import infer, refusal, rule_for
from dlspec.network.shape_chain import describe_shapes
from dlspec.network.tracing import memory_of

# The fewest dimensions, batch left out, that a layout has, and what they are.
_SHAPES: Mapping[str, tuple[int, str]] = {
    "features": (1, "(C)"),
    "tokens": (1, "(T) of whole numbers"),
    "sequence": (2, "(T, C)"),
    "channels-first": (2, "(C, T or S...)"),
    "channels-last": (2, "(S..., C)"),
}


class CallChecks:
    """What may be wrong with a call of a layer beyond what PyTorch refuses; each check adds the problems it finds."""

    def __init__(self, network: PartialNetwork, problems: Problems) -> None:
        self.network, self.problems = network, problems

    # ---- before the module is there --------------------------------------------------------------------------------

    def fits_shared(self, layer: Layer, settings: Mapping[str, Any]) -> bool:
        """Whether a module that is used again takes inputs like these."""
        values = [*self.network.values_of(layer.node).values()]
        for name, setting in layer.schema.settings.items():
            known = infer(name, values) if setting.is_inferred and values else None
            if known is None or settings.get(name) is None or agrees(name, settings[name], known, values[0]):
                continue
            found = f"'{layer.node.name}' has {name} {settings[name]}, and {values[0]} comes in"
            fix = "write the layer again, for weights of its own"
            self.problems.add(Code.SHAPE_MISMATCH, layer.node.entry, found, fix)
            return False
        return True

    def accepts(self, layer: Layer, settings: Mapping[str, Any], values: Sequence[Value]) -> bool:
        """Whether the layer's rule takes these inputs, and working in place harms nothing."""
        refused = None
        if values:
            # A layer's own check may try a formula.
            with bounded_growth() if rule_for(layer.schema).check else nullcontext():
                refused = refusal(layer.schema, values, settings)
        if refused is not None:
            note = describe_shapes(self.network, layer.node)
            self.problems.add_finding(layer.node.where, refused, shown=layer.shown, note=note)
            return False
        return settings.get("inplace") is not True or self._may_overwrite(layer)

    def _may_overwrite(self, layer: Layer) -> bool:
        """Whether working in place changes neither the data nor what another layer takes later."""
        network, node = self.network, layer.node
        memory = memory_of(network.samples[next(iter(node.inputs.values()))])
        if memory in [memory_of(each) for each in network.data]:
            return self._refuse_inplace(layer, "inplace would overwrite the data")
        for ref in network.read_later(node):
            if memory_of(network.samples[ref]) == memory:
                name = network.rows[ref.node].name if ref.node in network.rows else ref.output
                found = f"inplace would overwrite the output of '{name}', which is taken below"
                return self._refuse_inplace(layer, found)
        return True

    def _refuse_inplace(self, layer: Layer, found: str) -> bool:
        path = layer.node.part.where("inplace")
        self.problems.add(Code.INPLACE, path, found, "leave it out", at_value=True, shown=layer.shown)
        return False

    # ---- with the module -------------------------------------------------------------------------------------------

    def has_lengths(self, call: LayerCall) -> bool:
        """Whether the lengths that the layer needs are known: a layer before it may have mixed padding and steps."""
        wanted: Mapping[str, int] = getattr(call.module, "lengths_of", {})
        values, layer = call.values, call.layer
        lost = next((values[at].lost for at in wanted.values() if at < len(values) and values[at].lost), "")
        if not lost or not getattr(call.module, "needs_lengths", True):
            return True
        row = self.network.rows[lost]
        found = f"{layer.type} needs each sample's length, and behind {row.type} ('{row.name}') none is known"
        fix = f"{row.type} mixes steps and padding: put {layer.type} before it, or take a layer that keeps steps apart"
        note = describe_shapes(self.network, layer.node)
        self.problems.add(Code.LENGTHS_LOST, layer.node.where, found, fix, shown=layer.shown, note=note)
        return False

    # ---- with what it gives ----------------------------------------------------------------------------------------

    def gives_tensors(self, call: LayerCall, given: Sequence[Any]) -> bool:
        """Whether the layer gives tensors alone."""
        if all(isinstance(each, Tensor) for each in given):
            return True
        fix = "a layer's forward gives a tensor, or a tuple of tensors"
        layer = call.layer
        self.problems.add(Code.WRONG_RESULT, layer.node.where, f"{layer.type} gives {type(given[0]).__name__}", fix)
        return False

    def has_rows(self, call: LayerCall, given: Tensor) -> bool:
        """Whether the layer gives a row for each row."""
        layer, network = call.layer, self.network
        with_batch = [ref for ref in layer.node.inputs.values() if network.values[ref].has_batch]
        rows = len(network.samples[with_batch[0]])
        if getattr(call.module, "folds_batch", False) or (given.dim() > 0 and len(given) == rows):
            return True
        found = f"{layer.type} makes {tuple(given.shape)} of a batch of {rows}"
        fix = "dimension 0 is the batch: a layer gives a row for each of its rows"
        self.problems.add(Code.WRONG_RESULT, layer.node.where, found, fix, shown=layer.shown)
        return False

    def fits_layout(self, layer: Layer, given: Tensor, has_batch: bool) -> bool:
        """Whether what the layer gives can have the layout that was written."""
        layout = layer.node.layout
        if layout is None:
            return True
        dims, wanted = _SHAPES[layout]
        shape = tuple(given.shape[1:]) if has_batch else tuple(given.shape)
        if len(shape) >= dims and (layout != "tokens" or not given.is_floating_point()):
            return True
        found = f"layout is {layout}, which is {wanted}, and {layer.type} gives {format_shape(shape)}"
        path, fix = layer.node.part.where("layout"), "leave it out, or write another"
        self.problems.add(Code.WRONG_LAYOUT, path, found, fix, at_value=True, shown=layer.shown)
        return False
