"""What a layer's outputs are: their words, layouts, lengths and vocabularies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from dlspec.language.expand.entry_inputs import PARAMETER
from dlspec.language.expand.graph import Graph
from dlspec.layouts import Lengths, Value, guess_layout
from dlspec.network.layer import Layer, LayerCall
from dlspec.network.rules.layout_rules import layout_after, lengths_after, roles_after, rule_for, takes_any_length
from dlspec.parts.layers.rule import main


@dataclass(frozen=True)
class OutputValue:
    """What an output is. `any_length` says that batches may still end at their longest sample."""

    value: Value
    any_length: bool = True


def find_output_value(call: LayerCall, given: Tensor, word: str) -> OutputValue:
    """What a layer's output is, by the tensor that it gave for a sample; `word` is '' for the first output."""
    if call.layer.type == PARAMETER:
        return OutputValue(_parameter_value(call.layer, given))
    schema, module, values, settings = call.layer.schema, call.module, call.values, call.settings
    shape = tuple(given.shape[1:]) if call.has_batch else tuple(given.shape)
    ruled = layout_after(schema, values, settings, shape, word)
    layout = call.layer.node.layout or ruled
    lengths = lengths_after(schema, module, values, settings, shape, word)
    any_length = True
    if any(each.lengths for each in values):
        any_length = takes_any_length(schema, module, values, settings, shape, word) and layout == ruled
    is_of_vocabulary = layout == "tokens" and rule_for(schema).keeps_vocabulary(settings)
    vocab = main(values).vocab_size if is_of_vocabulary else None
    own_roles = roles_after(schema, values, settings, shape, layout) if layout == ruled and not word else ()
    value = Value(shape, layout, lengths if layout == ruled else None, vocab, call.has_batch, own_roles=own_roles)
    return OutputValue(_with_lost_lengths(call, value), any_length)


def _parameter_value(layer: Layer, given: Tensor) -> Value:
    shape = tuple(given.shape)
    return Value(shape, layer.node.layout or guess_layout(shape), has_batch=False)


def _with_lost_lengths(call: LayerCall, value: Value) -> Value:
    """The value with the layer that has mixed steps and padding, where one has."""
    if value.time_dim is None:
        return value if value.lengths is None else replace(value, lengths=None)
    if value.lengths is not None:
        return value
    has_dropped = any(each.lengths for each in call.values)
    return replace(value, lost=call.layer.node.id if has_dropped else main(call.values).lost)


def find_input_lengths(call: LayerCall) -> dict[str, Lengths]:
    """The lengths that a layer asks for, by the argument's name."""
    wanted: Mapping[str, int] = getattr(call.module, "lengths_of", {})
    found = {name: call.values[at].lengths for name, at in wanted.items() if at < len(call.values)}
    return {name: each for name, each in found.items() if each is not None}


# ---- outputs by word -----------------------------------------------------------------------------------------------


def find_wanted_outputs(graph: Graph) -> dict[str, tuple[str, ...]]:
    """For each module the outputs that something takes, wherever it is used."""
    names = {node.id: node.name for node in graph.nodes}
    wanted: dict[str, dict[str, None]] = {}
    for node, outputs in graph.wanted().items():
        wanted.setdefault(names.get(node, node), {}).update(dict.fromkeys(outputs))
    return {name: tuple(outputs) for name, outputs in wanted.items()}


def choose_outputs(module: nn.Module, words: Sequence[str]) -> None:
    """Tell a layer with named outputs which of them are taken; the first one always is."""
    names: tuple[str, ...] = getattr(module, "output_names", ())
    if not names:
        return
    taken = [names[int(word)] if word.isdigit() and int(word) < len(names) else word for word in words if word]
    module.wanted = (names[0], *(name for name in names[1:] if name in taken))  # type: ignore[assignment]


def output_words(module: nn.Module, count: int) -> Iterator[str]:
    """The words for what a module gives: '' for the first."""
    names: tuple[str, ...] = getattr(module, "wanted", ())
    yield from names if names else ("", *(str(at) for at in range(1, count)))
