"""Find the last normalization on the main path of a residual's body, which the projection of its shortcut repeats."""

from __future__ import annotations

from torch import nn

from dlspec.language.expand.graph import MODEL
from dlspec.language.parse.deferred import OutputRef
from dlspec.network.partial_network import PartialNetwork
from dlspec.network.shortcuts import Norm

_GATES = ("Multiply", "Formula")


def find_main_norm(network: PartialNetwork, body: OutputRef, residual_input: OutputRef) -> Norm | None:
    """Find the last normalization on the main path of a residual's body.

    The search goes back from the body's output through layers that do not mix channels by weights: activations,
    dropout, poolings, gates, factors for each channel. A convolution or Linear behind the last normalization ends it.
    Where paths join, a gate's main path is the one that the others are computed from; the paths that a sum or
    concatenation joins must all end with the same normalization.

    Args:
        network: the layers so far.
        body: the output of the body.
        residual_input: the input of the residual, before which the search stops.

    Returns:
        The type and written settings of the normalization; None if there is none, or if it does not fit the output.
    """
    return _MainPath(network, network.resolve_alias(residual_input), body).find_norm(body)


class _MainPath:
    """The main path of one body, followed from its output back to its input."""

    def __init__(self, network: PartialNetwork, given: OutputRef, body: OutputRef) -> None:
        self.network, self.given, self.output = network, given, network.values[body]
        self.sources: dict[str, frozenset[str]] = {}
        self.norms: dict[OutputRef, Norm | None] = {}

    def find_norm(self, ref: OutputRef) -> Norm | None:
        """Find the last normalization at or before an output."""
        if ref not in self.norms:  # paths that join again and again would be followed many times
            self.norms[ref] = self._follow(ref)
        return self.norms[ref]

    def _follow(self, ref: OutputRef) -> Norm | None:
        while True:
            ref = self.network.resolve_alias(ref)
            if ref == self.given or ref.node == MODEL:
                return None
            norm = self.network.describe_norm(ref.node)
            if norm is not None:
                return norm if self._fits_output(norm, ref) else None
            inputs = self._list_inputs(ref.node)
            if not inputs or self._mixes_channels(ref, inputs[0]):
                return None
            if len(inputs) > 1:
                main = self._choose_main_inputs(ref, inputs)
                norms = [self.find_norm(each) for each in main]
                return norms[0] if all(each == norms[0] for each in norms) else None
            ref = inputs[0]

    def _list_inputs(self, node: str) -> list[OutputRef]:
        """List a node's inputs that depend on the residual's input: not those that are Parameters."""
        inputs = [self.network.resolve_alias(each) for each in self.network.nodes[node].inputs.values()]
        return [each for each in dict.fromkeys(inputs) if each == self.given or self._depends_on_given(each)]

    def _depends_on_given(self, ref: OutputRef) -> bool:
        return self.given.node in self._find_sources(ref.node)

    def _find_sources(self, node: str) -> frozenset[str]:
        """Return the nodes that a node is computed from, itself included, back to the residual's input."""
        stack = [node]
        while stack:
            each = stack[-1]
            if each in self.sources:
                stack.pop()
                continue
            inputs = []
            if each not in (self.given.node, MODEL):
                inputs = [self.network.resolve_alias(ref).node for ref in self.network.nodes[each].inputs.values()]
            missing = [other for other in inputs if other not in self.sources]
            if missing:
                stack += missing
                continue
            self.sources[each] = frozenset({each}).union(*(self.sources[other] for other in inputs))
        return self.sources[node]

    def _choose_main_inputs(self, ref: OutputRef, inputs: list[OutputRef]) -> list[OutputRef]:
        """Choose the inputs on the main path of a layer with multiple inputs."""
        values, type = self.network.values, self.network.built_layers[ref.node].type
        whole = [each for each in inputs if values[each].shape == values[ref].shape] or inputs
        trunks = [each for each in whole if all(each.node in self._find_sources(other.node) for other in whole)]
        if len(whole) == 1 or not trunks:
            return whole
        # A gate is computed from what it multiplies, the body of a residual from what it is added to.
        others = [each for each in whole if each not in trunks]
        return trunks[:1] if type in _GATES or not others else others

    def _mixes_channels(self, ref: OutputRef, first: OutputRef) -> bool:
        """Whether a layer has weights that mix channels: others have at most one number for each channel."""
        channels = self.network.values[ref].channels
        if any(True for _ in self._get_module(ref).parameters()) and channels != self.network.values[first].channels:
            return True
        return any(
            each.numel() not in (1, channels) or sum(size > 1 for size in each.shape) > 1
            for each in self._get_module(ref).parameters()
        )

    def _get_module(self, ref: OutputRef) -> nn.Module:
        return self.network.built_layers[ref.node].module

    def _fits_output(self, norm: Norm, ref: OutputRef) -> bool:
        """Whether a normalization can also normalize the output of the body."""
        value, (type, settings) = self.network.values[ref], norm
        if value.layout != self.output.layout or len(value.shape) != len(self.output.shape):
            return False
        groups = settings.get("num_groups")
        return type != "GroupNorm" or not isinstance(groups, int) or self.output.channels % groups == 0
