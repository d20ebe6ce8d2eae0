"""Formulas whose value is known only when the channels of a layer's input are: those with `$in_channels`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dlspec.language.expressions.evaluator import UnknownValue


@dataclass(frozen=True)
class OutputRef:
    """A value: which node gives it, and which of the node's outputs it is ('' for the first)."""

    node: str
    output: str = ""


ChannelLookup = Callable[[OutputRef], int]


@dataclass(frozen=True)
class Deferred(UnknownValue):
    """A formula with `$in_channels`: `compute` gives its value once the channels of values can be looked up."""

    compute: Callable[[ChannelLookup], Any] = field(default=lambda channels: None, compare=False)

    def __str__(self) -> str:
        return self.key


def compute_deferred(value: Any, find_channels: ChannelLookup) -> Any:
    """The value with every `Deferred` in it computed."""
    if isinstance(value, Deferred):
        return value.compute(find_channels)
    if isinstance(value, dict):
        return {key: compute_deferred(each, find_channels) for key, each in value.items()}
    return [compute_deferred(each, find_channels) for each in value] if isinstance(value, list) else value


def is_deferred(value: Any) -> bool:
    """Whether something in it waits for the channels of its input."""
    if isinstance(value, dict):
        return any(is_deferred(each) for each in value.values())
    return any(is_deferred(each) for each in value) if isinstance(value, list) else isinstance(value, Deferred)
