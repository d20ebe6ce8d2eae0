"""A layer on its way into a network, and one call of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from dlspec.language.expand.graph import Node
from dlspec.layouts import TensorInfo
from dlspec.parts.schema import Schema


@dataclass(frozen=True)
class Layer:
    """A node whose settings were read: everything that building it needs but its inputs."""

    node: Node
    schema: Schema
    settings: Mapping[str, Any]

    @property
    def type(self) -> str:
        return self.schema.name

    @property
    def shown(self) -> str:
        """The type where the path of a mistake does not end with it."""
        return "" if self.type in self.node.problem_path else self.type


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer: its module, all the settings that this was made with, and the values that it takes.

    `values` are in the order of the module's `forward`.
    """

    layer: Layer
    module: nn.Module
    settings: Mapping[str, Any]
    values: Sequence[TensorInfo]

    @property
    def has_batch(self) -> bool:
        """Whether it takes samples, one row each."""
        return any(each.has_batch for each in self.values)
