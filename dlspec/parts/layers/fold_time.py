"""Fold the time dimension into the batch and back, so that layers in between process each step as a separate sample."""

from __future__ import annotations

from torch import Tensor, nn

from dlspec.layouts import Layout
from dlspec.parts.layers.rule import Inputs, Rule, Settings, Shape, constant_layout, layout_by_rank, lengths_of_input


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


class UnfoldTime(nn.Module):
    """Reshape (N * T, ...) back to (N, T, ...). The second input is the value before folding; its lengths are kept."""

    rule = Rule(gives=constant_layout("sequence"), keeps_lengths=True, lengths=lengths_of_input(1))
    inline = True
    folds_batch = True

    def forward(self, input: Tensor, folded: Tensor) -> Tensor:
        unfolded: Tensor = input.unflatten(0, (folded.shape[0], folded.shape[1]))  # type: ignore[no-untyped-call]
        return unfolded
