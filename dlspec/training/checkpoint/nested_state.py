"""Nested state as JSON and tensors, so that it can be kept without pickle: numbers come back to the last bit.

What JSON has as it is stays: null, booleans, whole numbers, finite floats, texts, lists. Everything else is a mapping
with one key that says what it is: `{"tensor": name}`, `{"float": "nan"}`, `{"tuple": [...]}`,
`{"dict": [[key, value]]}`, `{"rows": [...]}`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class ResultRows:
    """Mappings from texts to numbers, such as each epoch's results: taken as they are, as there may be 100,000.

    They must change no more; the list may grow.
    """

    rows: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class ImmutableState:
    """A value whose tensors nothing will change any more: those on the CPU are not copied. They are called `name`."""

    value: Any
    name: str


def flatten_state(value: Any, tensors: Tensors, name: str, *, copy: bool = True) -> Any:
    """`value` for JSON; its tensors are put into `tensors`, on the CPU, under names that begin with `name`.

    `copy=False` for tensors on the CPU that nothing will change any more. Raises TypeError for what has no such form.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, Tensor):
        tensors[name] = _copy_to_cpu(value, copy)
        return {"tensor": name}
    if isinstance(value, ImmutableState):
        return flatten_state(value.value, tensors, value.name, copy=False)
    if isinstance(value, ResultRows):
        return {"rows": list(value.rows)}
    if isinstance(value, Mapping):
        pairs = value.items()
        return {
            "dict": [[_check_key(key), flatten_state(each, tensors, f"{name}.{key}", copy=copy)] for key, each in pairs]
        }
    if isinstance(value, list | tuple):
        items = [flatten_state(each, tensors, f"{name}.{index}", copy=copy) for index, each in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    raise TypeError(f"{name}: a {type(value).__name__} can't be kept in a checkpoint")


def unflatten_state(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `pack` was given. Raises ValueError or KeyError for what `pack` did not make."""
    if isinstance(packed, list):
        return [unflatten_state(each, tensors) for each in packed]
    if not isinstance(packed, dict):
        return packed
    (kind, content), *others = packed.items()
    if others or kind not in _DECODERS:
        raise ValueError(f"no packed value: {kind}")
    return _DECODERS[kind](content, tensors)


_DECODERS: Mapping[str, Callable[[Any, Mapping[str, Tensor]], Any]] = {
    "tensor": lambda inner, tensors: tensors[inner],
    "float": lambda inner, tensors: float(inner),
    "rows": lambda inner, tensors: [dict(each) for each in inner],
    "tuple": lambda inner, tensors: tuple(unflatten_state(each, tensors) for each in inner),
    "dict": lambda inner, tensors: {key: unflatten_state(each, tensors) for key, each in inner},
}


def _check_key(key: Any) -> str | int:
    if isinstance(key, str | int) and not isinstance(key, bool):
        return key
    raise TypeError(f"a {type(key).__name__} can't be a key in a checkpoint")


def _copy_to_cpu(tensor: Tensor, copy: bool) -> Tensor:
    detached = tensor.detach()
    if not copy and detached.device.type == "cpu" and detached.is_contiguous():
        return detached
    return detached.to("cpu", copy=True, memory_format=torch.contiguous_format)
