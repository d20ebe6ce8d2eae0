"""Passes samples through layers to learn the shapes of what they give, at a small part of a real pass's cost."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.network.layer import LayerCall
from dlspec.network.memory_limits import bounded_growth
from dlspec.network.random_state import kept_random_state
from dlspec.network.rules.layout_rules import rule_for
from dlspec.network.shape_formulas import apply_formula, stand_in

STEPS = 8
"""So many steps of a longer sequence are passed through a layer that takes any number of them."""

Given = Tensor | tuple[Tensor, ...]


class Tracer:
    """Remembers what layers gave: one like an earlier one, with inputs of the same shapes, is not run again."""

    def __init__(self) -> None:
        self._seen: dict[Any, list[tuple[torch.Size, torch.dtype]]] = {}

    def trace(self, call: LayerCall, arguments: Mapping[int | str, Tensor]) -> Given:
        """What the layer gives for the samples: shapes are real, numbers need not be."""
        inputs = tuple((key, each.shape, each.dtype) for key, each in arguments.items())
        key = (call.layer.type, repr(call.settings), inputs, getattr(call.module, "wanted", ()))
        if key in self._seen:
            made = [stand_in(shape, dtype) for shape, dtype in self._seen[key]]
            return made[0] if len(made) == 1 else tuple(made)
        given = apply_formula(call.module, arguments)
        given = _run_few_steps(call, arguments) if given is None else given
        given = passed(call.module, arguments) if given is None else given
        tensors = given if isinstance(given, tuple) else (given,)
        if all(isinstance(each, Tensor) for each in tensors) and _are_apart([*arguments.values(), *tensors]):
            self._seen[key] = [(each.shape, each.dtype) for each in tensors]
        return given


def _run_few_steps(call: LayerCall, arguments: Mapping[int | str, Tensor]) -> Tensor | None:
    """A few steps stand for all, where the layer takes any number of them; None where it does not."""
    value = call.values[0] if call.values else None
    if value is None or len(arguments) != 1 or value.layout not in ("sequence", "tokens") or not value.has_batch:
        return None
    if value.shape[0] <= STEPS or not _takes_any_steps(call):
        return None
    if not any(True for _ in call.module.parameters()):  # cheap, and what it gives may be its input's memory
        return None
    try:
        given = passed(call.module, {key: each[:, :STEPS] for key, each in arguments.items()})
    except Exception:  # the whole sample tells better what is wrong
        return None
    if not isinstance(given, Tensor) or given.dim() < 3 or given.shape[1] != STEPS:
        return None
    return stand_in((given.shape[0], value.shape[0], *given.shape[2:]), given.dtype)


def _takes_any_steps(call: LayerCall) -> bool:
    """Whether a layer of PyTorch's or dlspec's gives a step for each step, however many there are."""
    rule, module = rule_for(call.layer.schema), call.layer.schema.build.__module__
    keeps = rule.keeps_lengths(call.values, call.settings) if callable(rule.keeps_lengths) else rule.keeps_lengths
    is_known = module.startswith(("torch.", "dlspec.parts.layers."))
    return is_known and bool(keeps) and rule.gives(call.values, (1, 1), call.settings) == "sequence"


def _are_apart(tensors: Sequence[Tensor]) -> bool:
    """Whether no two lie in the same memory: what a layer works on in place is then its own."""
    places = [memory_of(each) for each in tensors if each.numel()]
    return len(set(places)) == len(places)


def memory_of(tensor: Tensor) -> Hashable:
    """What tells the memory that a tensor lies in: its address; on the meta device, where all lie at 0, its storage."""
    storage = tensor.untyped_storage()
    return storage.data_ptr() or storage


def passed(module: nn.Module, arguments: Mapping[int | str, Tensor]) -> Any:
    """What a module gives in eval mode; the random generator is kept as it was."""
    module.eval()
    positional = [each for key, each in arguments.items() if isinstance(key, int)]
    named = {key: each for key, each in arguments.items() if isinstance(key, str)}
    with torch.no_grad(), kept_random_state(), bounded_growth():
        return module(*positional, **named)


@contextmanager
def sampling() -> Iterator[None]:
    """Without the warnings that PyTorch gives while it builds; what they are about trains all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
