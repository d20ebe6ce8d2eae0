"""Passes samples through layers to learn the shapes of what they give, at a small part of a real pass's cost."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.building.layer import Layer
from dlspec.building.layout_rules import rule_for
from dlspec.layouts import Value

STEPS = 8
"""So many steps of a longer sequence are passed through a layer that takes any number of them."""

Given = Tensor | tuple[Tensor, ...]


class Tracer:
    """Remembers what layers gave: one like an earlier one, with inputs of the same shapes, is not run again."""

    def __init__(self) -> None:
        self._seen: dict[Any, list[tuple[torch.Size, torch.dtype]]] = {}

    def given(
        self,
        layer: Layer,
        module: nn.Module,
        settings: Mapping[str, Any],
        values: Sequence[Value],
        arguments: Mapping[int | str, Tensor],
    ) -> Given:
        """What the layer gives for the samples: shapes are real, numbers need not be."""
        inputs = tuple((key, each.shape, each.dtype) for key, each in arguments.items())
        key = (layer.type, repr(settings), inputs, getattr(module, "wanted", ()))
        is_same = _may_alias(layer, module, settings)
        if key in self._seen and not is_same:
            made = [_stand_in(shape, dtype) for shape, dtype in self._seen[key]]
            return made[0] if len(made) == 1 else tuple(made)
        given = None if is_same else self._short(layer, module, values, arguments)
        given = passed(module, arguments) if given is None else given
        tensors = given if isinstance(given, tuple) else (given,)
        if all(isinstance(each, Tensor) for each in tensors):
            self._seen[key] = [(each.shape, each.dtype) for each in tensors]
        return given

    def _short(
        self, layer: Layer, module: nn.Module, values: Sequence[Value], arguments: Mapping[int | str, Tensor]
    ) -> Tensor | None:
        """A few steps stand for all, where the layer keeps them apart; None where it does not."""
        rule, value = rule_for(layer.schema), values[0] if values else None
        if value is None or len(arguments) != 1 or value.layout not in ("sequence", "tokens") or not value.has_batch:
            return None
        if value.shape[0] <= STEPS or rule.keeps_lengths is not True or not hasattr(nn, layer.type):
            return None
        try:
            given = passed(module, {key: each[:, :STEPS] for key, each in arguments.items()})
        except Exception:  # the whole sample tells better what is wrong
            return None
        if not isinstance(given, Tensor) or given.dim() < 3 or given.shape[1] != STEPS:
            return given if isinstance(given, Tensor) and given.dim() == 2 and not _has_steps(layer) else None
        return _stand_in((given.shape[0], value.shape[0], *given.shape[2:]), given.dtype)


def _has_steps(layer: Layer) -> bool:
    """Whether a 2-dimensional output may be (N, T) rather than (N, C)."""
    return layer.type not in ("RNN", "LSTM", "GRU", "EmbeddingBag")


def _stand_in(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor whose numbers do not matter; indices must be some that are there. Memory is not touched."""
    return torch.empty(shape, dtype=dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)


_ALIASING = re.compile(r"Identity|Flatten|Unflatten|\w*Dropout\w*|StochasticDepth|AdaptiveAvgPool\dd")


def _may_alias(layer: Layer, module: nn.Module, settings: Mapping[str, Any]) -> bool:
    """Whether its output may be its input's memory, which the check of `inplace` asks for."""
    is_inline = bool(getattr(module, "inline", False))
    return is_inline or bool(settings.get("inplace")) or _ALIASING.fullmatch(layer.type) is not None


def passed(module: nn.Module, arguments: Mapping[int | str, Tensor]) -> Any:
    """What a module gives in eval mode; the random generator is kept as it was."""
    module.eval()
    positional = [each for key, each in arguments.items() if isinstance(key, int)]
    named = {key: each for key, each in arguments.items() if isinstance(key, str)}
    with torch.no_grad(), kept_random_state():
        return module(*positional, **named)


@contextmanager
def sampling() -> Iterator[None]:
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
