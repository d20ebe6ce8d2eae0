"""A built network: its module, its layers, and descriptions of its outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dlspec.errors import KeyPath
from dlspec.layouts import TensorInfo


@dataclass(frozen=True)
class InputEdge:
    """One input of a layer: where it comes from, and its shape and layout."""

    layer: str  # the name of the layer that it comes from; '' for an input of the model
    output: str  # the name of that layer's output; '' for the first one
    value: TensorInfo


@dataclass(frozen=True)
class BuiltLayer:
    """One layer of a built network, as `dlspec summary` lists it."""

    name: str
    type: str
    module: nn.Module
    output: TensorInfo
    # The key path at which the layer is written in the spec.
    path: KeyPath
    # Whether the module was built for an earlier layer and is called again.
    is_reused: bool = False
    # The settings that are written in the spec and differ from their defaults, with expressions computed.
    settings: Mapping[str, Any] = field(default_factory=dict)
    # The layer's inputs in order.
    takes: tuple[InputEdge, ...] = ()
    # The shortcut that was made for a residual, if it depended on shapes: "input", "none", "as written" or layer types.
    shortcut: str = ""


@dataclass(frozen=True)
class NetworkOutput:
    """One output of a network."""

    value: TensorInfo
    # The layer that returns it.
    layer: BuiltLayer
    # The last layer that computes its values: layers such as Flatten and Dropout are skipped.
    end: BuiltLayer


@dataclass(frozen=True)
class Network:
    """A built network. Its `module` returns one tensor, or a dict of tensors if the network has multiple outputs."""

    module: nn.Module
    # The names of a split's tensors that `module` takes, in order.
    inputs: tuple[str, ...]
    # The shapes and layouts of the inputs by name.
    fields: Mapping[str, TensorInfo]
    layers: tuple[BuiltLayer, ...]
    outputs: Mapping[str, NetworkOutput]
    # Whether a batch may be cut to its longest sample: no layer needs the fields' full length.
    allows_trimming: bool = True
    # The fewest steps that the network's convolutions and poolings need, by field.
    fewest_steps: Mapping[str, int] = field(default_factory=dict)

    @property
    def field_inputs(self) -> tuple[str, ...]:
        """The data's names of the fields among the inputs, in order; the lengths after them may be left out."""
        return self.inputs[: len(self.fields)]

    @property
    def max_layer_outputs(self) -> int:
        """The size of the largest layer output for one sample, in numbers."""
        return max((math.prod(each.output.shape) for each in self.layers), default=0)

    @property
    def output(self) -> TensorInfo:
        """Shape and layout of the only or first output."""
        return next(iter(self.outputs.values())).value
