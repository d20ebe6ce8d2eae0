"""Lengths of padded sequences: after convolutions and pooling, for masked means, and to cut padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from dlspec.layouts import Lengths, TensorInfo, Window

L = TypeVar("L", int, Tensor)


@dataclass(frozen=True)
class PaddingTrim:
    """Where a tensor of a batch can be cut: steps that are padding in every sample of the batch."""

    lengths: Lengths  # the lengths of the samples
    dim: int  # the dimension of the steps


def compute_lengths_after_windows(lengths: L, windows: Sequence[Window]) -> L:
    """Compute lengths after convolutions or pooling, by PyTorch's output-size formula, at least 1."""
    for each in windows:
        lengths = (lengths + 2 * each.padding - _compute_span(each)) // each.stride + 1
        lengths = lengths.clamp(min=1) if isinstance(lengths, Tensor) else max(lengths, 1)
    return lengths


def compute_min_input_steps(windows: Sequence[Window]) -> int:
    """Count the steps of the shortest input that all windows fit in."""
    steps = 1
    for each in reversed(windows):
        steps = max((steps - 1) * each.stride + _compute_span(each) - 2 * each.padding, 1)
    return steps


def _compute_span(window: Window) -> int:
    return window.dilation * (window.kernel_size - 1) + 1


def find_padding_to_zero(before_value: TensorInfo, after_value: TensorInfo) -> tuple[Lengths, int] | None:
    """Find the padding of a layer's input that must be set to zero before the layer.

    That is needed before convolutions or pooling with zero padding, which also see the steps after a sample's end.

    Returns:
        The lengths and the dimension of the steps, or None if nothing must be set to zero.
    """
    before, after = before_value.lengths, after_value.lengths
    if before is None or after is None or before_value.time_dim is None or len(after.windows) <= len(before.windows):
        return None
    return (before, before_value.time_dim) if after.windows[-1].padding else None


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean of the values where the mask is true, without synchronizing with the device.

    The mask may lack trailing dimensions of the values.
    """
    mask = mask.reshape(*mask.shape, *(1,) * (values.dim() - mask.dim())).expand_as(values)
    return values.masked_fill(~mask, 0).sum() / mask.sum()


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Compute the `masked_mean` times the number of true positions of the mask; 0 for a mask without any."""
    numbers_per_position = values.numel() // max(mask.numel(), 1)
    mask = mask.reshape(*mask.shape, *(1,) * (values.dim() - mask.dim())).expand_as(values)
    return values.masked_fill(~mask, 0).sum() / numbers_per_position
