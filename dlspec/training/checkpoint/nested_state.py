"""Convert nested state to JSON and tensors and back, without pickle. All numbers are restored exactly.

Values that JSON can represent stay unchanged: null, booleans, integers, finite floats, strings, lists. Everything else
becomes a mapping with one key for its type: `{"tensor": name}`, `{"float": "nan"}`, `{"tuple": [...]}`,
`{"dict": [[key, value]]}`, `{"rows": [...]}`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlspec.compat.torch_dtensor import is_sharded

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class EpochResults:
    """Mappings from names to numbers, such as the results of each epoch. Not copied, since there may be 100,000.

    The mappings must not be modified afterwards; the list may grow.
    """

    rows: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class ImmutableState:
    """A value whose tensors are never modified, so that those on the CPU are not copied."""

    value: Any
    name: str  # the prefix of its tensors' names


def flatten_state(value: Any, tensors: Tensors, name: str, *, copy: bool = True) -> Any:
    """Convert a value to JSON, and move its tensors to the CPU.

    Args:
        value: nested mappings, lists, tuples, tensors, numbers and strings.
        tensors: receives the tensors by name.
        name: the prefix of their names.
        copy: whether to copy tensors that are on the CPU already; not needed if they are never modified.

    Returns:
        The value for JSON, with names in place of tensors.

    Raises:
        TypeError: a value of another type.
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
    if isinstance(value, EpochResults):
        return {"rows": list(value.rows)}
    if isinstance(value, Mapping):
        pairs = value.items()
        return {
            "dict": [[_check_key(key), flatten_state(each, tensors, f"{name}.{key}", copy=copy)] for key, each in pairs]
        }
    if isinstance(value, list | tuple):
        items = [flatten_state(each, tensors, f"{name}.{index}", copy=copy) for index, each in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    raise TypeError(f"{name}: a {type(value).__name__} can't be stored in a checkpoint")


def unflatten_state(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Restore the value that `flatten_state` converted.

    Raises:
        ValueError, KeyError: `flatten_state` can't have returned this.
    """
    if isinstance(packed, list):
        return [unflatten_state(each, tensors) for each in packed]
    if not isinstance(packed, dict):
        return packed
    (kind, content), *others = packed.items()
    if others or kind not in _DECODERS:
        raise ValueError(f"invalid state: {kind}")
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
    if is_sharded(tensor):  # written before training goes on
        return detached
    if not copy and detached.device.type == "cpu" and detached.is_contiguous():
        return detached
    return detached.to("cpu", copy=True, memory_format=torch.contiguous_format)
