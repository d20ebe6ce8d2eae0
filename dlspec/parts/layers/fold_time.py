"""Time folded into the batch and out again, so that a layer treats each step as a sample of its own."""

from __future__ import annotations

from torch import Tensor, nn

from dlspec.layouts import Layout
from dlspec.parts.layers.rule import Inputs, Rule, Settings, Shape, constant_layout, layout_by_rank


def _step_layout(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    return "tokens" if inputs[0].layout == "tokens" and shape else layout_by_rank(inputs, shape, settings)


class FoldTime(nn.Module):
    """(N, T, ...) as (N * T, ...): each step is a sample."""

    rule = Rule(takes=("sequence", "tokens"), gives=_step_layout, keeps_lengths=True, lengths=lambda *_: None)
    inline = True
    folds_batch = True

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(0, 1)


class UnfoldTime(nn.Module):
    """(N * T, ...) as (N, T, ...), after the value that was folded; samples have that one's lengths."""

    rule = Rule(
        gives=constant_layout("sequence"), keeps_lengths=True, lengths=lambda inputs, shape, settings: inputs[1].lengths
    )
    inline = True
    folds_batch = True

    def forward(self, input: Tensor, folded: Tensor) -> Tensor:
        unfolded: Tensor = input.unflatten(0, (folded.shape[0], folded.shape[1]))  # type: ignore[no-untyped-call]
        return unfolded
