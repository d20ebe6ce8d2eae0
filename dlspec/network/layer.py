"""A layer while its network is built, and one call of it."""

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
    """A node of the graph with its schema and checked settings. Only its inputs are missing before it can be built."""

    node: Node
    schema: Schema
    settings: Mapping[str, Any]

    @property
    def type(self) -> str:
        return self.schema.name

    @property
    def shown(self) -> str:
        """The layer's type for a message, or '' where the problem's path contains it already."""
        return "" if self.type in self.node.problem_path else self.type


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer with its inputs."""

    layer: Layer
    module: nn.Module
    # All settings that the module was made with, including inferred ones.
    settings: Mapping[str, Any]
    # Shapes and layouts of the inputs, in the order of the module's `forward`.
    values: Sequence[TensorInfo]

    @property
    def has_batch(self) -> bool:
        """Whether an input has a batch dimension; Parameters have none."""
        return any(each.has_batch for each in self.values)
