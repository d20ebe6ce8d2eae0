"""Builds the network, layer by layer, and learns each layer's input by passing a sample through.

Every layer is built once, for real, in the order of the spec: under one seed its weights are those of the same
PyTorch code. The sample is passed in eval mode, with the random generators kept as they were.
"""

from __future__ import annotations

import keyword
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from dlspec.building.layout_rules import infer, keeps_lengths, left_open, refusal, rule_for
from dlspec.building.limits import SizeLimit, TooLarge, memory
from dlspec.building.values import Value
from dlspec.data.dataset import Field
from dlspec.layouts import Layout
from dlspec.registry.schema import REQUIRED, Schema
from dlspec.spec.mistakes import Mistakes
from dlspec.spec.model import Node
from dlspec.spec.yaml_files import KeyPath


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
    """A built network: `inputs` names the tensors of a split that `module` takes, in order.

    `any_length` says that batches may end at their longest sample: no layer needs the field's full length.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    input: Value
    layers: tuple[BuiltLayer, ...]
    any_length: bool = True

    @property
    def output(self) -> Value:
        return self.layers[-1].output


def build(layers: Sequence[Layer], field: Field, sample: Tensor, mistakes: Mistakes) -> Network | None:
    """The network for one input field, or None where a layer does not fit and `mistakes` says why.

    `sample` has the field's shape behind a small batch.
    """
    first = value = Value(field.shape, field.layout, field.has_lengths, field.vocab_size)
    data = sample = sample.clone()
    rows: list[BuiltLayer] = []
    limit, any_length = SizeLimit(memory()), True
    with _sampling():
        for layer in layers:
            if _is_refused(layer, value, sample, data, mistakes):
                return None
            module = _make(layer, value, limit, mistakes)
            given = None if module is None else _trace(layer, module, value, sample, mistakes)
            if module is None or given is None:
                return None
            keeps = value.lengths and _keeps_lengths(layer, module, value, given)
            any_length &= keeps or not value.lengths
            value, sample = _output(layer, value, given, keeps), given
            rows.append(BuiltLayer(layer.node.name, layer.type, module, value))
    network, takes_lengths = _assemble(rows, field)
    inputs = (field.name, field.lengths) if takes_lengths else (field.name,)
    return Network(network.train(), inputs, first, tuple(rows), any_length)


def _is_refused(layer: Layer, value: Value, sample: Tensor, data: Tensor, mistakes: Mistakes) -> bool:
    refused = refusal(layer.type, value, layer.settings)
    if refused is not None:
        mistakes.add(layer.node.part.settings_path, *refused, shown=_shown(layer))
        return True
    is_data = sample.untyped_storage().data_ptr() == data.untyped_storage().data_ptr()
    if layer.settings.get("inplace") is True and is_data:
        path = layer.node.part.where("inplace")
        mistakes.add(path, "inplace would overwrite the data", "leave it out", at_value=True, shown=_shown(layer))
        return True
    return False


def _make(layer: Layer, value: Value, limit: SizeLimit, mistakes: Mistakes) -> nn.Module | None:
    settings = _infer_settings(layer, value, mistakes)
    if settings is None:
        return None

    def make() -> Any:
        with limit:
            return layer.schema.build(**settings, **layer.schema.fixed)

    module: nn.Module | None = _attempt(make, layer, value, mistakes)
    return module


def _trace(layer: Layer, module: nn.Module, value: Value, sample: Tensor, mistakes: Mistakes) -> Tensor | None:
    """What the layer gives for the sample: one tensor, a row for each row, in the layout that was asked for."""
    given = _attempt(lambda: _pass(module, sample), layer, value, mistakes)
    if given is None:
        return None
    path = layer.node.part.settings_path
    if not isinstance(given, Tensor):
        mistakes.add(path, f"{layer.type} gives several outputs", "they are not there yet", shown=_shown(layer))
        return None
    if given.dim() == 0 or len(given) != len(sample):
        found = f"{layer.type} makes {tuple(given.shape)} of a batch of {len(sample)}"
        mistakes.add(path, found, "dimension 0 is the batch: a layer gives a row for each of its rows")
        return None
    return given if _can_have_layout(layer, given, path, mistakes) else None


# The fewest dimensions, batch left out, that a layout has, and what they are.
_SHAPES: Mapping[str, tuple[int, str]] = {
    "features": (1, "(C)"),
    "tokens": (1, "(T) of whole numbers"),
    "sequence": (2, "(T, C)"),
    "channels-first": (2, "(C, T or S...)"),
    "channels-last": (2, "(S..., C)"),
}


def _can_have_layout(layer: Layer, given: Tensor, path: KeyPath, mistakes: Mistakes) -> bool:
    layout = layer.node.layout
    if layout is None:
        return True
    dims, wanted = _SHAPES[layout]
    if given.dim() - 1 >= dims and (layout != "tokens" or not given.is_floating_point()):
        return True
    found = f"layout is {layout}, which is {wanted}, and {layer.type} gives {tuple(given.shape[1:])}"
    mistakes.add((*path, "layout"), found, "leave it out, or write another", at_value=True, shown=_shown(layer))
    return False


def _infer_settings(layer: Layer, value: Value, mistakes: Mistakes) -> dict[str, Any] | None:
    """The settings with the inferred ones filled in; those that were written must agree."""
    settings = dict(layer.settings)
    settings |= {name: each for name, each in left_open(layer.type, value).items() if settings.get(name) is None}
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
    except TooLarge as error:
        mistakes.add(layer.node.part.settings_path, f"{layer.type} is too large: {error}", "make it smaller")
    except Exception as error:
        who = "PyTorch" if hasattr(nn, layer.type) else f"{layer.type}'s own code"
        mistakes.add(layer.node.part.settings_path, f"{layer.type} can't take {value}", f"{who} says: {_reason(error)}")
    return None


def _reason(error: Exception) -> str:
    """The first line of what an error says; its type where that is no plain refusal."""
    text = str(error).strip().split("\n")[0][:200]
    is_plain = isinstance(error, RuntimeError | ValueError | TypeError | AssertionError | IndexError)
    return text if text and is_plain else f"{type(error).__name__}: {text}".removesuffix(": ")


def _pass(module: nn.Module, sample: Tensor) -> Any:
    module.eval()
    with torch.no_grad(), kept_random_state():
        return module(sample)


def _layout(layer: Layer, value: Value, given: Tensor) -> Layout:
    """The layout that the layer gives by its rule; the spec may say another."""
    return rule_for(layer.type).gives(value, tuple(given.shape[1:]), layer.settings)


def _keeps_lengths(layer: Layer, module: nn.Module, value: Value, given: Tensor) -> bool:
    """Whether padding leaves no trace in what the layer gives; what the spec calls otherwise has no steps left."""
    if layer.node.layout not in (None, _layout(layer, value, given)):
        return False
    return keeps_lengths(layer.type, module, layer.settings, value, tuple(given.shape[1:]))


def _output(layer: Layer, value: Value, given: Tensor, keeps: bool) -> Value:
    layout = layer.node.layout or _layout(layer, value, given)
    vocab = value.vocab_size if layout == "tokens" else None
    return Value(tuple(given.shape[1:]), layout, keeps and layout in ("sequence", "tokens"), vocab)


def _shown(layer: Layer) -> str:
    return "" if layer.type in layer.node.part.settings_path else layer.type


@contextmanager
def _sampling() -> Iterator[None]:
    """Without the warnings that PyTorch gives while it builds; what they are about trains all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Whatever is drawn within it, the generator is afterwards as it was."""
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
    argument = _argument(field.name)
    value = graph.placeholder(argument)
    lengths = graph.placeholder(f"{argument}_lengths", default_value=None)
    for name in modules:
        arguments = (value, lengths) if name in needing else (value,)
        value = graph.call_module(name, arguments)
    graph.output(value)
    return fx.GraphModule(dict(modules), graph, class_name="Network")


def _argument(field: str) -> str:
    """The field's name where Python takes it for an argument's, else one like it."""
    name = re.sub(r"\W", "_", field, flags=re.ASCII)
    return name if name.isidentifier() and not keyword.iskeyword(name) and name != "self" else f"input_{name}"
