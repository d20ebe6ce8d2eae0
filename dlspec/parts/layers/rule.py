"""Rules of layers: input and output layouts, inferred settings, what happens to lengths, and checks beyond PyTorch's.

The rules of PyTorch's own layers are in `network/layer_rules/`; dlspec's layers and a user's own layers have their rule
as the class attribute `rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlspec.errors import Code, Finding
from dlspec.layouts import NO_PADDING, Layout, LengthChange, Lengths, TensorInfo, guess_layout

Settings = Mapping[str, Any]
Shape = tuple[int, ...]
Inputs = Sequence[TensorInfo]
"""A layer's inputs in the order of `forward`. An input that is left out before a later one is replaced by the first."""

LayoutFunction = Callable[[Inputs, Shape, Settings], Layout]
"""Returns the output's layout, given the inputs, the output's shape (without the batch) and the settings."""

NUMBER_LAYOUTS: tuple[Layout, ...] = ("features", "sequence", "channels-first", "channels-last")
ALL_LAYOUTS: tuple[Layout, ...] = (*NUMBER_LAYOUTS, "tokens")
CHANNELS_LAST_LAYOUTS: tuple[Layout, ...] = ("features", "sequence", "channels-last")


def layout_by_rank(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    """Guess the output's layout from its number of dimensions, for layers that do not keep the input's layout.

    Args:
        inputs: The layer's inputs; not used.
        shape: The output's shape, without the batch.
        settings: The layer's settings; not used.

    Returns:
        The output's layout.
    """
    return guess_layout(shape)


def same_layout(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    """Keep the main input's layout if the output has the same number of dimensions; otherwise guess it.

    Args:
        inputs: The layer's inputs.
        shape: The output's shape, without the batch.
        settings: The layer's settings; not used.

    Returns:
        The output's layout.
    """
    value = main_input(inputs)
    return value.layout if len(shape) == len(value.shape) else guess_layout(shape)


def constant_layout(layout: Layout) -> LayoutFunction:
    """Make a layout function that always returns this layout."""
    return lambda inputs, shape, settings: layout


def main_input(inputs: Inputs) -> TensorInfo:
    """Return the input whose layout and lengths the output keeps: the first with a batch dimension, else the first."""
    return next((each for each in inputs if each.has_batch), inputs[0])


def lengths_of_input(index: int) -> Callable[[Inputs, Shape, Settings], Lengths | None]:
    """Make a function for `Rule.lengths`: the output has the steps of the input at this position."""

    def find_lengths(inputs: Inputs, shape: Shape, settings: Settings) -> Lengths | None:
        value = inputs[index]
        return value.lengths or (None if value.lengths_lost_at else NO_PADDING)

    return find_lengths


def fill_nothing(inputs: Inputs, settings: Settings) -> Mapping[str, Any]:
    """Infer no settings: the default of `Rule.fill`."""
    return {}


def guesses_other_rank(inputs: Inputs, shape: Shape, settings: Settings) -> bool:
    """Whether `same_layout` guesses: the output has another number of dimensions.

    Args:
        inputs: The layer's inputs.
        shape: The output's shape, without the batch.
        settings: The layer's settings; not used.
    """
    return 1 < len(shape) != len(main_input(inputs).shape)


@dataclass(frozen=True)
class Rule:
    """How a layer transforms layouts, shapes and lengths, and which inputs it accepts."""

    # Layouts that the first input may have.
    takes: tuple[Layout, ...] = NUMBER_LAYOUTS
    # Returns the output's layout.
    gives: LayoutFunction = same_layout
    # Whether that layout is a guess, which a message about it has to say; None: where `same_layout` guesses.
    guesses: Callable[[Inputs, Shape, Settings], bool] | None = None
    # Required number of dimensions of the input besides batch and channels; None for any.
    dims: int | None = None
    # True if padding does not affect the output of a sample's real steps, or the single vector per sample.
    keeps_lengths: bool | Callable[[Inputs, Settings], bool] = False
    # Returns how a convolution or pooling changes the lengths, None where its output depends on padding.
    changes_length: Callable[[Settings], LengthChange | None] | None = None
    # Whether such a layer reads steps after a sample's end, which must then be zeros, as for the sample alone.
    reads_past_end: Callable[[Settings], bool] = lambda settings: False
    # Returns the output's lengths, if they are neither the input's nor determined by `changes_length`; `NO_PADDING`
    # where all its steps are real.
    lengths: Callable[[Inputs, Shape, Settings], Lengths | None] | None = None
    # Whether a dimension of the output that is not its time dimension has a number for each padded step.
    hides_steps: Callable[[Inputs, Shape, Settings], bool] = lambda inputs, shape, settings: False
    # The position of a mask among the inputs, in which the layer itself leaves padding out; None without one.
    mask_input: int | None = None
    # Returns what is wrong with inputs that PyTorch would silently accept, or reject with an unclear message.
    check: Callable[[Inputs, Settings], Finding | tuple[str, str] | None] | None = None
    # Returns settings that are inferred from the inputs; those that start with `_` can't be written in a spec.
    fill: Callable[[Inputs, Settings], Mapping[str, Any]] = fill_nothing
    # Returns the roles of the output's dimensions, for layers that reorder or reshape them.
    roles: Callable[[Inputs, Shape, Settings], tuple[str, ...]] | None = None
    # Whether a `Parameter`, which has no batch, may be an input.
    takes_parameter: bool = False
    # Whether output tokens are always tokens of the input, not numbers computed from them.
    keeps_vocabulary: Callable[[Settings], bool] = lambda settings: True

    def is_guess(self, inputs: Inputs, shape: Shape, settings: Settings) -> bool:
        """Whether the output's layout is a guess.

        Args:
            inputs: The layer's inputs.
            shape: The output's shape, without the batch.
            settings: All its settings.
        """
        if self.guesses is not None:
            return self.guesses(inputs, shape, settings)
        if self.gives is layout_by_rank:
            return len(shape) > 1
        return self.gives is same_layout and guesses_other_rank(inputs, shape, settings)

    def refuse(self, inputs: Inputs, settings: Settings) -> Finding | None:
        """Run `check` and return what it found, or None if the inputs are fine.

        The `check` of a user's own layer may return a pair of strings: what was found, and the fix.
        """
        found = self.check(inputs, settings) if self.check else None
        return Finding(Code.LAYER_REFUSED, *found) if isinstance(found, tuple) else found
