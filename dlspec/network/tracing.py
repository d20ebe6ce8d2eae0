"""Find the output shapes of layers for a small batch, without running every layer: much faster than a forward pass."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.network.layer import LayerCall
from dlspec.network.layer_rules.layout_rules import find_rule
from dlspec.network.memory_limits import limit_memory_growth
from dlspec.network.random_state import preserve_random_state
from dlspec.network.shape_formulas import apply_formula, make_placeholder

TRACED_STEPS = 8  # layers that take any number of steps run on this many steps of a longer sequence

LayerResult = Tensor | tuple[Tensor, ...]


class ShapeTracer:
    """Tracer of output shapes. A layer with the settings and input shapes of an earlier one is not run again."""

    def __init__(self) -> None:
        self._known_outputs: dict[Any, list[tuple[torch.Size, torch.dtype]]] = {}

    def trace(self, call: LayerCall, arguments: Mapping[int | str, Tensor]) -> LayerResult:
        """Return the layer's output for these tensors. Shapes and types are right; values may be arbitrary."""
        inputs = tuple((key, each.shape, each.dtype) for key, each in arguments.items())
        key = (call.layer.type, repr(call.settings), inputs, getattr(call.module, "wanted", ()))
        if key in self._known_outputs:
            placeholders = [make_placeholder(shape, dtype) for shape, dtype in self._known_outputs[key]]
            return placeholders[0] if len(placeholders) == 1 else tuple(placeholders)
        result = apply_formula(call.module, arguments)
        result = _run_few_steps(call, arguments) if result is None else result
        result = run_in_eval_mode(call.module, arguments) if result is None else result
        tensors = result if isinstance(result, tuple) else (result,)
        if all(isinstance(each, Tensor) for each in tensors) and _have_distinct_memory([*arguments.values(), *tensors]):
            self._known_outputs[key] = [(each.shape, each.dtype) for each in tensors]
        return result


def _run_few_steps(call: LayerCall, arguments: Mapping[int | str, Tensor]) -> Tensor | None:
    """Run the layer on the first steps only if it takes any number of steps; return None otherwise."""
    value = call.values[0] if call.values else None
    if value is None or len(arguments) != 1 or value.layout not in ("sequence", "tokens") or not value.has_batch:
        return None
    if value.shape[0] <= TRACED_STEPS or not _allows_any_length(call):
        return None
    if not any(True for _ in call.module.parameters()):  # without parameters it is fast, and may return a view
        return None
    try:
        result = run_in_eval_mode(call.module, {key: each[:, :TRACED_STEPS] for key, each in arguments.items()})
    except Exception:  # running all steps gives a better message
        return None
    if not isinstance(result, Tensor) or result.dim() < 3 or result.shape[1] != TRACED_STEPS:
        return None
    return make_placeholder((result.shape[0], value.shape[0], *result.shape[2:]), result.dtype)


def _allows_any_length(call: LayerCall) -> bool:
    """Whether this is a layer of PyTorch or dlspec that returns one step per input step, for any number of steps."""
    rule, module = find_rule(call.layer.schema), call.layer.schema.build.__module__
    keeps = rule.keeps_lengths(call.values, call.settings) if callable(rule.keeps_lengths) else rule.keeps_lengths
    is_known = module.startswith(("torch.", "dlspec.parts.layers."))
    return is_known and bool(keeps) and rule.gives(call.values, (1, 1), call.settings) == "sequence"


def _have_distinct_memory(tensors: Sequence[Tensor]) -> bool:
    """Whether no two tensors use the same memory, which matters for in-place operations."""
    memories = [get_memory_key(each) for each in tensors if each.numel()]
    return len(set(memories)) == len(memories)


def get_memory_key(tensor: Tensor) -> Hashable:
    """Return a key for a tensor's memory: its address, or its storage on the meta device, where addresses are 0."""
    storage = tensor.untyped_storage()
    return storage.data_ptr() or storage


def run_in_eval_mode(module: nn.Module, arguments: Mapping[int | str, Tensor]) -> Any:
    """Call a module in eval mode without gradients, and restore the random generators afterwards."""
    module.eval()
    positional = [each for key, each in arguments.items() if isinstance(key, int)]
    named = {key: each for key, each in arguments.items() if isinstance(key, str)}
    with torch.no_grad(), preserve_random_state(), limit_memory_growth():
        return module(*positional, **named)


@contextmanager
def ignore_build_warnings() -> Iterator[None]:
    """Return a context that hides PyTorch's warnings while layers are built; they concern layers that train anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
