"""Tensors in tuples, lists and mappings, however nested: what a network may give and a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(each)


def mapped(change: Callable[[Tensor], Any], value: Any) -> Any:
    """The same nest with each tensor changed; what is no tensor stays."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: mapped(change, each) for name, each in value.items()}
    if isinstance(value, list):
        return [mapped(change, each) for each in value]
    return tuple(mapped(change, each) for each in value) if isinstance(value, tuple) else value
