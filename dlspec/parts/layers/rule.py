"""What a layer takes and gives beyond PyTorch's own checks: layouts, what its inputs decide, what becomes of lengths.

PyTorch's own layers have their rules in `network/rules/torch_layers.py`; a layer of dlspec's or of a user's own carries
its rule as the class attribute `rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlspec.errors import Code, Finding
from dlspec.layouts import Layout, Lengths, TensorInfo, Window, guess_layout

Settings = Mapping[str, Any]
Shape = tuple[int, ...]
Inputs = Sequence[TensorInfo]
"""A layer's inputs in the order of its `forward`. One that was left out before a later one counts as the first."""

LayoutFunction = Callable[[Inputs, Shape, Settings], Layout]
"""The output's layout, from the inputs, the output's shape (batch left out) and the settings."""

NUMBER_LAYOUTS: tuple[Layout, ...] = ("features", "sequence", "channels-first", "channels-last")
ALL_LAYOUTS: tuple[Layout, ...] = (*NUMBER_LAYOUTS, "tokens")
CHANNELS_LAST_LAYOUTS: tuple[Layout, ...] = ("features", "sequence", "channels-last")


def layout_by_rank(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    """What the output's shape most likely is: of a layer that keeps no layout."""
    return guess_layout(shape)


def same_layout(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    """The main input's layout, where the output has as many dimensions."""
    value = main_input(inputs)
    return value.layout if len(shape) == len(value.shape) else guess_layout(shape)


def constant_layout(layout: Layout) -> LayoutFunction:
    """Always this layout."""
    return lambda inputs, shape, settings: layout


def main_input(inputs: Inputs) -> TensorInfo:
    """The first input that has a batch: the output keeps its layout and its lengths."""
    return next((each for each in inputs if each.has_batch), inputs[0])


def fill_nothing(inputs: Inputs, settings: Settings) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Rule:
    """`takes` are the first input's layouts, `dims` how many dimensions stand beside the channels.

    `gives` is the output's layout. `keeps_lengths` says that padding leaves no trace in what a sample's steps give, or
    in the one row that the steps end in; `window` that lengths become those of a convolution, `lengths` what they are
    where neither the steps nor a window tells. `check` refuses inputs and settings that PyTorch would run in silence,
    or words what it would refuse; `fill` gives settings that were left open and that the inputs decide, also those
    behind a `_`, which no spec can write. `roles` are those of the output, of a layer that moves them. Only a layer
    that `takes_parameter` may be given a `Parameter`. `keeps_vocabulary` says that tokens which come out are some of
    those that came in, and no numbers computed of them.
    """

    takes: tuple[Layout, ...] = NUMBER_LAYOUTS
    gives: LayoutFunction = same_layout
    dims: int | None = None
    keeps_lengths: bool | Callable[[Inputs, Settings], bool] = False
    window: Callable[[Settings], Window | None] | None = None
    lengths: Callable[[Inputs, Shape, Settings], Lengths | None] | None = None
    check: Callable[[Inputs, Settings], Finding | tuple[str, str] | None] | None = None
    fill: Callable[[Inputs, Settings], Mapping[str, Any]] = fill_nothing
    roles: Callable[[Inputs, Shape, Settings], tuple[str, ...]] | None = None
    takes_parameter: bool = False
    keeps_vocabulary: Callable[[Settings], bool] = lambda settings: True

    def refuse(self, inputs: Inputs, settings: Settings) -> Finding | None:
        """What `check` finds; that of a user's own layer may give what was found and the fix alone."""
        found = self.check(inputs, settings) if self.check else None
        return Finding(Code.LAYER_REFUSED, *found) if isinstance(found, tuple) else found
