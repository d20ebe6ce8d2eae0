"""Combine built layers into one module: an `nn.Sequential` for a plain stack, else a module with a generated `forward`.

The generated code is plain PyTorch and can be read as `.code`: one call per layer, and a plain function where a layer
has neither weights nor state.
"""

from __future__ import annotations

import keyword
import operator
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.proxy import GraphAppendingTracer, Proxy

from dlspec.data.batches.sequence_lengths import change_lengths
from dlspec.data.dataset import Field
from dlspec.language.expand.graph import MODEL
from dlspec.language.parse.deferred import OutputRef
from dlspec.layouts import LengthChange, Lengths
from dlspec.parts.layers.padding import make_padding_mask

LAYER_KEY, TYPE_KEY = "layer", "layer_type"
"""Keys in the `meta` of each `fx` node: the id and the type of the layer that the node belongs to."""


@dataclass(frozen=True)
class ForwardStep:
    """One layer call in a network's `forward`. For a `Parameter` its tensor is read instead."""

    id: str
    # Where the module is registered, name by name: the start of its keys in the state dict.
    path: tuple[str, ...]
    module: nn.Module
    type: str
    # The inputs by position or argument name.
    inputs: Mapping[int | str, OutputRef]
    # The outputs that are used, in the order in which the module returns them; '' is the first.
    output_names: tuple[str, ...] = ("",)
    # The lengths that are passed to the module, by argument name.
    lengths: Mapping[str, Lengths] = field(default_factory=dict)
    has_multiple_outputs: bool = False
    # Lengths and time dimension of the first input if its padding must be set to zero before the call. A convolution
    # that pads with zeros then computes the same for a sample in a batch as for the sample by itself.
    padding_to_zero: tuple[Lengths, int] | None = None

    @property
    def is_parameter(self) -> bool:
        return self.type == "Parameter"

    @property
    def is_inline(self) -> bool:
        """Whether its code is copied into the network's `forward`: it has no state and needs no lengths."""
        return getattr(self.module, "inline", False) and not self.lengths


def assemble_network(
    steps: Sequence[ForwardStep],
    fields: Mapping[str, Field],
    outputs: Mapping[str, OutputRef],
    aliases: Mapping[OutputRef, OutputRef],
) -> tuple[nn.Module, tuple[str, ...]]:
    """Combine layer calls into one module.

    Args:
        steps: The calls in the order in which they run.
        fields: The data's fields by the model's names for its inputs.
        outputs: The values that the network returns, by name.
        aliases: Further names of values, each with the name that it stands for.

    Returns:
        The module, and the names of a split's tensors that it takes: fields first, then lengths.
    """
    sequential = _make_sequential(steps, fields, outputs)
    if sequential is not None:
        return sequential, tuple(each.name for each in fields.values())
    return _ForwardWriter(fields, aliases).write(steps, outputs)


def _make_sequential(
    steps: Sequence[ForwardStep], fields: Mapping[str, Field], outputs: Mapping[str, OutputRef]
) -> nn.Module | None:
    """Make an `nn.Sequential`, or return None unless each layer takes only the output of the layer before it."""
    if len(fields) != 1 or len(outputs) != 1 or not steps:
        return None
    previous = OutputRef(MODEL, steps[0].inputs[0].output) if 0 in steps[0].inputs else None
    for step in steps:
        takes_lengths = bool(step.lengths or step.padding_to_zero)
        is_plain = (
            len(step.path) == 1 and step.id == step.path[0] and not takes_lengths and not step.has_multiple_outputs
        )
        if not is_plain or dict(step.inputs) != {0: previous} or step.output_names != ("",) or step.type == "Formula":
            return None
        previous = OutputRef(step.id)
    if next(iter(outputs.values())) != previous:
        return None
    return nn.Sequential(OrderedDict((step.path[0], step.module) for step in steps))


class _ForwardWriter:
    """Writer of a graph's `forward`, as `torch.fx` code."""

    def __init__(self, fields: Mapping[str, Field], aliases: Mapping[OutputRef, OutputRef]) -> None:
        self.fields, self.aliases = fields, aliases
        self.graph = fx.Graph()
        self.tracer = GraphAppendingTracer(self.graph)
        self.values: dict[OutputRef, fx.Node] = {}
        self.lengths: dict[Lengths, fx.Node] = {}
        self.root = nn.Module()

    def write(
        self, steps: Sequence[ForwardStep], outputs: Mapping[str, OutputRef]
    ) -> tuple[nn.Module, tuple[str, ...]]:
        inputs = self._write_inputs(steps)
        for step in steps:
            self._write_step(step)
            self._label_nodes(step)
        output_nodes = {name: self._find_value(ref) for name, ref in outputs.items()}
        self.graph.output(output_nodes if len(output_nodes) > 1 else next(iter(output_nodes.values())))
        network = fx.GraphModule(self.root, self.graph, class_name="Network")
        return network, inputs

    def _write_inputs(self, steps: Sequence[ForwardStep]) -> tuple[str, ...]:
        """Write the arguments of `forward`: the inputs, then the lengths that a layer needs.

        Lengths default to None, which means that every step is real.
        """
        for name, each in self.fields.items():
            self.values[OutputRef(MODEL, name)] = self.graph.placeholder(_make_argument_name(name or each.name))
        needed = [lengths for step in steps for lengths in step.lengths.values()]
        needed += [step.padding_to_zero[0] for step in steps if step.padding_to_zero]
        fields = {each.name: each for each in self.fields.values()}
        with_lengths = [name for name in fields if any(each.field == name for each in needed)]
        for name in with_lengths:
            node = self.graph.placeholder(f"{_make_argument_name(name)}_lengths", default_value=None)
            self.lengths[Lengths(name)] = node
        return (*fields, *(fields[name].lengths for name in with_lengths))

    def _write_step(self, step: ForwardStep) -> None:
        inputs = {key: self._find_value(ref) for key, ref in step.inputs.items()}
        if step.padding_to_zero:
            first = next(iter(inputs))
            padding = (inputs[first], self._write_lengths(step.padding_to_zero[0]), step.padding_to_zero[1])
            inputs[first] = self.graph.call_function(zero_padding_steps, padding)
        arguments = tuple(each for key, each in inputs.items() if isinstance(key, int))
        named: dict[str, Any] = {key: each for key, each in inputs.items() if isinstance(key, str)}
        named |= {name: self._write_lengths(lengths) for name, lengths in step.lengths.items()}
        if step.is_parameter:
            node = self._write_parameter(step)
        elif step.is_inline:
            node = self._write_inline(step, arguments, named)
        else:
            _register_at_path(self.root, step.path, step.module)
            node = self.graph.create_node(
                "call_module", ".".join(step.path), arguments, named, _make_variable_name(step)
            )
        self._name_outputs(step, node)

    def _label_nodes(self, step: ForwardStep) -> None:
        """Store in the `meta` of each new `fx` node which layer it belongs to."""
        for node in reversed(self.graph.nodes):
            if node.meta.setdefault(LAYER_KEY, step.id) != step.id:
                break
            node.meta[TYPE_KEY] = step.type

    def _write_parameter(self, step: ForwardStep) -> fx.Node:
        _register_at_path(self.root, step.path, step.module.weight)
        return self.graph.create_node("get_attr", ".".join(step.path), name=_make_variable_name(step))

    def _write_inline(self, step: ForwardStep, arguments: tuple[fx.Node, ...], named: Mapping[str, fx.Node]) -> fx.Node:
        proxies = [Proxy(each, self.tracer) for each in arguments]
        result = step.module.forward(*proxies, **{key: Proxy(each, self.tracer) for key, each in named.items()})
        node: fx.Node = result.node
        return node

    def _name_outputs(self, step: ForwardStep, node: fx.Node) -> None:
        for at, output_name in enumerate(step.output_names):
            item = node
            if step.has_multiple_outputs:
                item = self.graph.call_function(operator.getitem, (node, at))
            self.values[OutputRef(step.id, output_name)] = item

    def _find_value(self, ref: OutputRef) -> fx.Node:
        while ref in self.aliases:
            ref = self.aliases[ref]
        return self.values[ref]

    def _write_lengths(self, lengths: Lengths) -> fx.Node:
        """Write the lengths after layers that change them; each is computed only once."""
        if lengths not in self.lengths:
            changes = tuple((each.removed, each.stride, each.factor, each.added) for each in lengths.changes)
            before = self.lengths[Lengths(lengths.field)]
            self.lengths[lengths] = self.graph.call_function(lengths_after, (before, changes))
        return self.lengths[lengths]


def lengths_after(lengths: Tensor | None, changes: Sequence[tuple[int, int, int, int]]) -> Tensor | None:
    """Compute lengths (N,) after changes by (removed, stride, factor, added); None stays None."""
    return None if lengths is None else change_lengths(lengths, [LengthChange(*each) for each in changes])


def zero_padding_steps(input: Tensor, lengths: Tensor | None, dim: int) -> Tensor:
    """Set the padding of each sample to zero.

    Args:
        input: Steps along `dim`, batch first, (N, ...).
        lengths: The number of real steps of each sample, (N,); None leaves `input` unchanged.
        dim: The time dimension.

    Returns:
        A tensor of the same shape.
    """
    return input if lengths is None else input.masked_fill(make_padding_mask(input, lengths, dim), 0)


def _register_at_path(root: nn.Module, path: Sequence[str], module: Any) -> None:
    """Register a module or parameter at its path below `root`, with empty modules in between."""
    *parents, last = path
    for name in parents:
        if not isinstance(getattr(root, name, None), nn.Module):
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    if isinstance(module, nn.Module):
        root.add_module(last, module)
    else:
        root.register_parameter(last, module)


def _make_variable_name(step: ForwardStep) -> str:
    """Make the name of the variable for an output: from the layer's names, or from its type."""
    names = [each for each in step.id.split(".") if not each.isdigit()]
    is_named = bool(names) and not step.id.rpartition(".")[2].isdigit()
    type_name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", step.type).lower()
    return _make_argument_name("_".join(names) if is_named else "_".join([*names, type_name]))


def _make_argument_name(name: str) -> str:
    """Make a valid Python variable name that resembles this one."""
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    return name if name.isidentifier() and not keyword.iskeyword(name) and name != "self" else f"input_{name}"
