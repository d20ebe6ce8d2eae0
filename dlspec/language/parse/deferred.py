"""Expressions with `$in_channels`, which can be computed only when the channels of a layer's input are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dlspec.language.expressions.expression_parsing import UnknownValue


@dataclass(frozen=True)
class OutputRef:
    """Reference to an output of a node."""

    node: str
    output: str = ""  # name of one of multiple outputs; '' is the first


# Returns the number of channels of an output.
ChannelLookup = Callable[[OutputRef], int]


@dataclass(frozen=True)
class Deferred(UnknownValue):
    """The value of an expression with `$in_channels`, to be computed when the layer is built."""

    compute: Callable[[ChannelLookup], Any] = field(default=lambda channels: None, compare=False)

    def __str__(self) -> str:
        return self.key


def compute_deferred(value: Any, find_channels: ChannelLookup) -> Any:
    """Replace every `Deferred` in a value, also inside lists and mappings, by its result."""
    if isinstance(value, Deferred):
        return value.compute(find_channels)
    if isinstance(value, dict):
        return {key: compute_deferred(each, find_channels) for key, each in value.items()}
    return [compute_deferred(each, find_channels) for each in value] if isinstance(value, list) else value


def is_deferred(value: Any) -> bool:
    """Whether a value is or contains a `Deferred`."""
    if isinstance(value, dict):
        return any(is_deferred(each) for each in value.values())
    return any(is_deferred(each) for each in value) if isinstance(value, list) else isinstance(value, Deferred)
