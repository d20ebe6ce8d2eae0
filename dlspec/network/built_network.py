"""A network that was built: its module, the layers in it, and what the outputs are."""

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
    """What a layer takes: the output of the layer of that name ('' is the model's input), and which of its outputs."""

    layer: str
    output: str
    value: TensorInfo


@dataclass(frozen=True)
class BuiltLayer:
    """A row of the summary. `path` is where the layer was written, `is_reused` a module that was there before.

    `settings` are those that were written and are not the defaults, computed; `takes` is what comes in, in order.
    """

    name: str
    type: str
    module: nn.Module
    output: TensorInfo
    path: KeyPath
    is_reused: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    takes: tuple[InputEdge, ...] = ()


@dataclass(frozen=True)
class NetworkOutput:
    """One of a network's outputs: the layer that gives it, and the last one whose numbers these are."""

    value: TensorInfo
    layer: BuiltLayer
    end: BuiltLayer


@dataclass(frozen=True)
class Network:
    """A built network: `inputs` names the tensors of a split that `module` takes, in order.

    Several outputs come as a mapping by their names. `fields` are the inputs' values, by name. `allows_trimming` says that
    batches may end at their longest sample: no layer needs the fields' full length, only the `fewest_steps` of each
    that its windows fit in.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    fields: Mapping[str, TensorInfo]
    layers: tuple[BuiltLayer, ...]
    outputs: Mapping[str, NetworkOutput]
    allows_trimming: bool = True
    fewest_steps: Mapping[str, int] = field(default_factory=dict)

    @property
    def max_layer_outputs(self) -> int:
        """The most numbers that a layer gives for a sample."""
        return max((math.prod(each.output.shape) for each in self.layers), default=0)

    @property
    def output(self) -> TensorInfo:
        """The only output's, or the first's."""
        return next(iter(self.outputs.values())).value
