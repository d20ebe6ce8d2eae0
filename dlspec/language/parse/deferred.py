"""Formulas whose value is known only when the channels of a layer's input are: those with `$in_channels`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dlspec.language.expressions.expressions import Unknown


@dataclass(frozen=True)
class Ref:
    """A value: which node gives it, and which of the node's outputs it is ('' for the first)."""

    node: str
    output: str = ""


Channels = Callable[[Ref], int]


@dataclass(frozen=True)
class Deferred(Unknown):
    """A formula with `$in_channels`: `compute` gives its value once the channels of values can be looked up."""

    compute: Callable[[Channels], Any] = field(default=lambda channels: None, compare=False)

    def __str__(self) -> str:
        return self.key


def settled(value: Any, channels: Channels) -> Any:
    """The value with every `Deferred` in it computed."""
    if isinstance(value, Deferred):
        return value.compute(channels)
    if isinstance(value, dict):
        return {key: settled(each, channels) for key, each in value.items()}
    return [settled(each, channels) for each in value] if isinstance(value, list) else value


def is_deferred(value: Any) -> bool:
    """Whether something in it waits for the channels of its input."""
    if isinstance(value, dict):
        return any(is_deferred(each) for each in value.values())
    return any(is_deferred(each) for each in value) if isinstance(value, list) else isinstance(value, Deferred)
