"""Find names, layouts, lengths and vocabularies of a layer's outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from dlspec.language.expand.entry_inputs import FORMULA
from dlspec.language.expand.graph import Graph
from dlspec.layouts import NO_PADDING, Layout, Lengths, TensorInfo, guess_layout
from dlspec.network.layer import Layer, LayerCall
from dlspec.network.layer_rules.layout_rules import (
    can_trim_padding,
    find_output_layout,
    find_output_lengths,
    find_output_roles,
    find_rule,
)
from dlspec.parts.layers.rule import Inputs, Rule, main_input


@dataclass(frozen=True)
class OutputValue:
    """Shape, layout and lengths of an output."""

    value: TensorInfo
    # Whether batches may still be cut to their longest sample.
    allows_trimming: bool = True


def find_output_value(call: LayerCall, tensor: Tensor, output_name: str) -> OutputValue:
    """Find the layout, lengths and vocabulary of one output of a layer.

    Args:
        call: The call of the layer.
        tensor: The output for the small batch, (N, ...).
        output_name: The output's name; '' for the first one.
    """
    constant = getattr(call.module, "constant", None) if call.layer.type == FORMULA else None
    if not call.values:
        return OutputValue(_make_value_without_inputs(call.layer, tensor, constant))
    schema, module, values, settings = call.layer.schema, call.module, call.values, call.settings
    shape = tuple(tensor.shape[1:]) if call.has_batch else tuple(tensor.shape)
    rule_layout = find_output_layout(schema, values, settings, shape, output_name)
    layout = call.layer.node.layout or rule_layout
    lengths = find_output_lengths(schema, module, values, settings, shape, output_name)
    allows_trimming = True
    if any(each.lengths for each in values):
        allows_trimming = (
            can_trim_padding(schema, module, values, settings, shape, output_name) and layout == rule_layout
        )
    rule = find_rule(schema)
    hides_steps = rule.hides_steps(values, shape, {**settings, "output": output_name} if output_name else settings)
    allows_trimming &= hides_steps or not _reads_hidden_steps(rule, values)
    hides_steps |= any(each.hides_steps and each.shape == shape for each in values)
    is_of_vocabulary = layout == "tokens" and rule.keeps_vocabulary(settings)
    vocab = main_input(values).vocab_size if is_of_vocabulary else None
    own_roles = (
        find_output_roles(schema, values, settings, shape, layout) if layout == rule_layout and not output_name else ()
    )
    value = TensorInfo(
        shape, layout, lengths if layout == rule_layout else None, vocab, call.has_batch, "", hides_steps, own_roles,
        _name_dtype(tensor, layout), constant,
    )  # fmt: skip
    return OutputValue(_record_layer_that_lost_lengths(call, value), allows_trimming)


def _reads_hidden_steps(rule: Rule, inputs: Inputs) -> bool:
    """Whether an input has padding that the layer does not know of. An attention leaves the padding of its mask out."""
    return any(each.hides_steps for at, each in enumerate(inputs) if at != rule.mask_input)


def _make_value_without_inputs(layer: Layer, tensor: Tensor, constant: Any) -> TensorInfo:
    """Describe a `Parameter`, or a formula that uses no output."""
    shape = tuple(tensor.shape)
    layout = layer.node.layout or guess_layout(shape)
    return TensorInfo(shape, layout, has_batch=False, dtype=_name_dtype(tensor, layout), constant=constant)


def _name_dtype(tensor: Tensor, layout: Layout) -> str:
    """Name the data type of a tensor unless its layout implies it: int64 for tokens, else a floating point type."""
    if tensor.is_floating_point():
        return "float" if layout == "tokens" else ""
    name = str(tensor.dtype).removeprefix("torch.")
    return "" if layout == "tokens" and name == "int64" else name


def _record_layer_that_lost_lengths(call: LayerCall, value: TensorInfo) -> TensorInfo:
    """Record in a value without lengths which layer has mixed its steps with padding."""
    if value.time_dim is None or value.lengths == NO_PADDING:
        return replace(value, lengths=None)
    if value.lengths is not None:
        return value
    has_dropped = any(each.lengths for each in call.values)
    lost_before = next((each.lengths_lost_at for each in call.values if each.lengths_lost_at), "")
    return replace(value, lengths_lost_at=lost_before or (call.layer.node.id if has_dropped else ""))


def take_lengths_of(output: OutputValue, source: TensorInfo) -> OutputValue:
    """Return an output with the lengths of another one, as `lengths_of` says.

    Batches are cut only if its lengths would be the same without that: otherwise both may be cut to different steps.
    """
    is_same = output.value.lengths == source.lengths
    value = replace(output.value, lengths=source.lengths, lengths_lost_at="")
    return OutputValue(value, output.allows_trimming and is_same)


def find_input_lengths(call: LayerCall) -> dict[str, Lengths]:
    """Find the lengths that the layer's `forward` takes, by argument name."""
    module = call.module
    if not getattr(module, "needs_lengths", True) and not getattr(module, "takes_unneeded_lengths", True):
        return {}
    input_positions: Mapping[str, int] = getattr(module, "lengths_of", {})
    found = {name: call.values[at].lengths for name, at in input_positions.items() if at < len(call.values)}
    return {name: each for name, each in found.items() if each is not None}


# ---- outputs by name -----------------------------------------------------------------------------------------------


def find_required_outputs(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Find the outputs of each module that any layer or the model uses, over all calls of the module."""
    names = {node.id: node.name for node in graph.nodes}
    required: dict[str, dict[str, None]] = {}
    for node, outputs in graph.find_used_outputs().items():
        required.setdefault(names.get(node, node), {}).update(dict.fromkeys(outputs))
    return {name: tuple(outputs) for name, outputs in required.items()}


def choose_outputs(module: nn.Module, output_names: Sequence[str]) -> None:
    """Set which outputs a layer with named outputs returns: always the first one, and those that are used."""
    names: tuple[str, ...] = getattr(module, "output_names", ())
    if not names:
        return
    chosen = [
        names[int(output_name)] if output_name.isdigit() and int(output_name) < len(names) else output_name
        for output_name in output_names
        if output_name
    ]
    module.wanted = (names[0], *(name for name in names[1:] if name in chosen))  # type: ignore[assignment]


def list_output_names(module: nn.Module, count: int) -> Iterator[str]:
    """Iterate over the names of a module's outputs. Unnamed ones are '' for the first, then '1', '2', ..."""
    names: tuple[str, ...] = getattr(module, "wanted", ())
    yield from names if names else ("", *(str(at) for at in range(1, count)))
