"""Tensors in nested tuples, lists and mappings, as networks return them and checkpoints store them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor


def iterate_tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from iterate_tensors(each)


def map_tensors(change: Callable[[Tensor], Any], value: Any) -> Any:
    """Apply `change` to each tensor and keep the structure and all other values."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: map_tensors(change, each) for name, each in value.items()}
    if isinstance(value, list):
        return [map_tensors(change, each) for each in value]
    return tuple(map_tensors(change, each) for each in value) if isinstance(value, tuple) else value


def combine_tensors(combine: Callable[[Sequence[Tensor]], Tensor], values: Sequence[Any]) -> Any:
    """Combine the tensors at the same place of several values; the structure and everything else are the first's."""
    columns = zip(*(list(iterate_tensors(each)) for each in values), strict=True)
    remaining = iter([combine(each) for each in columns])
    return map_tensors(lambda _: next(remaining), values[0])
