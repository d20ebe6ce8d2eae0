"""Fold the time dimension into the batch and back, so that layers in between process each step as a separate sample."""

from __future__ import annotations

from torch import Tensor, nn

from dlspec.errors import Code, Finding
from dlspec.layouts import Layout, format_shape
from dlspec.parts.layers.rule import (
    ALL_LAYOUTS,
    Inputs,
    Rule,
    Settings,
    Shape,
    constant_layout,
    layout_by_rank,
    lengths_of_input,
)


def _find_single_step_layout(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    """Layout of a single step, after time is folded into the batch."""
    return "tokens" if inputs[0].layout == "tokens" and shape else layout_by_rank(inputs, shape, settings)


class FoldTime(nn.Module):
    """Reshape (N, T, ...) to (N * T, ...): each step becomes a sample."""

    rule = Rule(
        takes=("sequence", "tokens"), gives=_find_single_step_layout, keeps_lengths=True, lengths=lambda *_: None
    )
    inline = True
    folds_batch = True

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(0, 1)


_STEP_LAYOUTS = ("sequence", "tokens")


def _check_steps(inputs: Inputs, settings: Settings) -> Finding | None:
    given, folded = inputs
    if given.layout not in _STEP_LAYOUTS or given.shape[0] == folded.shape[0]:
        return None
    steps = f"{given.shape[0]} steps instead of {folded.shape[0]}"
    found = f"inside TimeDistributed each input takes its step, but {format_shape(given.shape)} has {steps}"
    fix = "reduce its steps with Mean or Select before, or write layout: features on its entry to repeat it whole"
    return Finding(Code.SHAPE_MISMATCH, found, fix)


def _find_added_step_layout(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    given = inputs[0]
    return _find_single_step_layout(inputs, shape, settings) if given.layout in _STEP_LAYOUTS else given.layout


class FoldTimeLike(nn.Module):
    """Fold a further input of `TimeDistributed` like its first one.

    A sequence (N, T, ...) becomes (N * T, ...), as in `FoldTime`. Any other value (N, ...) is repeated for each step.
    """

    rule = Rule(
        takes=ALL_LAYOUTS,
        gives=_find_added_step_layout,
        keeps_lengths=True,
        lengths=lambda *_: None,
        check=_check_steps,
        fill=lambda inputs, settings: {"_is_repeated": inputs[0].layout not in _STEP_LAYOUTS},
    )
    inline = True
    folds_batch = True

    def __init__(self, _is_repeated: bool = False) -> None:
        super().__init__()
        self._is_repeated = _is_repeated

    def forward(self, input: Tensor, folded: Tensor) -> Tensor:
        return input.repeat_interleave(folded.shape[1], 0) if self._is_repeated else input.flatten(0, 1)


class UnfoldTime(nn.Module):
    """Reshape (N * T, ...) back to (N, T, ...). The second input is the value before folding; its lengths are kept."""

    rule = Rule(gives=constant_layout("sequence"), keeps_lengths=True, lengths=lengths_of_input(1))
    inline = True
    folds_batch = True

    def forward(self, input: Tensor, folded: Tensor) -> Tensor:
        unfolded: Tensor = input.unflatten(0, (folded.shape[0], folded.shape[1]))  # type: ignore[no-untyped-call]
        return unfolded
