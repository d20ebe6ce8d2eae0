"""Builds the network, layer by layer, and learns each layer's input by passing a sample through.

Every layer is built once, for real, in the order of the spec: under one seed its weights are those of the same
PyTorch code. The sample is passed in eval mode, with the random generators kept as they were.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from dlspec.building.layout_rules import infer, refusal, rule_for
from dlspec.building.values import Value
from dlspec.data.dataset import Field
from dlspec.registry.schema import REQUIRED, Schema
from dlspec.spec.mistakes import Mistakes
from dlspec.spec.model import Node


@dataclass(frozen=True)
class Layer:
    """A node whose settings were read: everything that building it needs but its input."""

    node: Node
    schema: Schema
    settings: Mapping[str, Any]

    @property
    def type(self) -> str:
        return self.schema.name


@dataclass(frozen=True)
class BuiltLayer:
    """A row of the summary."""

    name: str
    type: str
    module: nn.Module
    output: Value

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.module.parameters())


@dataclass(frozen=True)
class Network:
    """A built network: `inputs` names the tensors of a split that `module` takes, in order."""

    module: nn.Module
    inputs: tuple[str, ...]
    input: Value
    layers: tuple[BuiltLayer, ...]

    @property
    def output(self) -> Value:
        return self.layers[-1].output


def build(layers: Sequence[Layer], field: Field, sample: Tensor, mistakes: Mistakes) -> Network | None:
    """The network for one input field, or None where a layer does not fit and `mistakes` says why.

    `sample` has the field's shape behind a small batch.
    """
    value = Value(field.shape, field.layout, field.has_lengths, field.vocab_size)
    first, rows = value, []
    with _sampling():
        for layer in layers:
            traced = _build_layer(layer, value, sample, mistakes)
            if traced is None:
                return None
            row, sample = traced
            rows.append(row)
            value = row.output
    module, takes_lengths = _assemble(rows, field)
    inputs = (field.name, field.lengths) if takes_lengths else (field.name,)
    return Network(module.train(), inputs, first, tuple(rows))


def _build_layer(layer: Layer, value: Value, sample: Tensor, mistakes: Mistakes) -> tuple[BuiltLayer, Tensor] | None:
    path = layer.node.part.settings_path
    refused = refusal(layer.type, value, layer.settings)
    if refused is not None:
        mistakes.add(path, *refused, shown=_shown(layer))
        return None
    settings = _infer_settings(layer, value, mistakes)
    if settings is None:
        return None
    module = _attempt(lambda: layer.schema.build(**settings, **layer.schema.fixed), layer, value, mistakes)
    if module is None:
        return None
    given = _attempt(lambda: _pass(module, sample), layer, value, mistakes)
    if given is None:
        return None
    if not isinstance(given, Tensor):
        mistakes.add(path, f"{layer.type} gives several outputs", "they are not there yet", shown=_shown(layer))
        return None
    return BuiltLayer(layer.node.name, layer.type, module, _output(layer, value, given)), given


def _infer_settings(layer: Layer, value: Value, mistakes: Mistakes) -> dict[str, Any] | None:
    """The settings with the inferred ones filled in; those that were written must agree."""
    settings = dict(layer.settings)
    for name, setting in layer.schema.settings.items():
        if not setting.is_inferred:
            continue
        known, written = infer(name, value), settings.get(name)
        if written is None and known is not None:
            settings[name] = known
        elif written is None and setting.default is REQUIRED:
            path = layer.node.part.settings_path
            mistakes.add(path, f"{layer.type} wants {name}", "these data do not tell it: write it", shown=_shown(layer))
            return None
        elif written is not None and known is not None and not _agrees(name, written, known, value):
            path = layer.node.part.where(name)
            found = f"{name} is {written}, but {value} comes in"
            mistakes.add(path, found, f"leave it out: it is inferred ({known})", at_value=True, shown=_shown(layer))
            return None
    return settings


def _agrees(name: str, written: Any, known: Any, value: Value) -> bool:
    if name == "normalized_shape" and not isinstance(written, int):
        return tuple(written) == value.shape[-len(written) :]
    if name == "num_embeddings":
        return bool(written >= known)
    return bool(written == known)


def _attempt(action: Callable[[], Any], layer: Layer, value: Value, mistakes: Mistakes) -> Any:
    """What PyTorch gives; what it refuses becomes a mistake at the layer's place."""
    try:
        return action()
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError, MemoryError) as error:
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        mistakes.add(layer.node.part.settings_path, f"{layer.type} can't take {value}", f"PyTorch says: {reason}")
        return None


def _pass(module: nn.Module, sample: Tensor) -> Any:
    module.eval()
    with torch.no_grad(), _kept_random_state():
        return module(sample)


def _output(layer: Layer, value: Value, given: Tensor) -> Value:
    shape = tuple(given.shape[1:])
    rule = rule_for(layer.type)
    layout = layer.node.layout or rule.gives(value, shape, layer.settings)
    keeps = rule.keeps_lengths and value.lengths and layout in ("sequence", "tokens")
    vocab = value.vocab_size if layout == "tokens" else None
    return Value(shape, layout, keeps, vocab)


def _shown(layer: Layer) -> str:
    return "" if layer.type in layer.node.part.settings_path else layer.type


@contextmanager
def _sampling() -> Iterator[None]:
    """Without the warnings that a sample alone provokes (dropout in a one-layer LSTM is told by the checks)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _kept_random_state() -> Iterator[None]:
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _assemble(rows: Sequence[BuiltLayer], field: Field) -> tuple[nn.Module, bool]:
    """A plain `nn.Sequential`; a generated `forward` where lengths have to reach a layer in the middle."""
    lengths = field.has_lengths
    needing: set[str] = set()
    for row in rows:
        if lengths and getattr(row.module, "takes_lengths", False):
            needing.add(row.name)
        lengths = row.output.lengths
    modules = OrderedDict((row.name, row.module) for row in rows)
    if not needing:
        return nn.Sequential(modules), False
    return _graph(modules, needing, field), True


def _graph(modules: Mapping[str, nn.Module], needing: set[str], field: Field) -> nn.Module:
    """`forward(FIELD, FIELD_lengths)` in straight PyTorch, readable as `.code`."""
    graph = fx.Graph()
    value = graph.placeholder(field.name)
    lengths = graph.placeholder(field.lengths, default_value=None)
    for name in modules:
        arguments = (value, lengths) if name in needing else (value,)
        value = graph.call_module(name, arguments)
    graph.output(value)
    return fx.GraphModule(dict(modules), graph, class_name="Network")
