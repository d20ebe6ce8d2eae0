"""What convolutions and poolings make of lengths, means without padding, and where padding may be cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from dlspec.layouts import Lengths, TensorInfo, Window

L = TypeVar("L", int, Tensor)


@dataclass(frozen=True)
class PaddingTrim:
    """What is padding in a whole batch of a target may be cut off its dimension `dim`, as it is off an input's."""

    lengths: Lengths
    dim: int


def apply_windows(lengths: L, windows: Sequence[Window]) -> L:
    """The lengths behind the windows, by PyTorch's output-size formula; a sample that is too short has one step."""
    for each in windows:
        lengths = (lengths + 2 * each.padding - _compute_span(each)) // each.stride + 1
        lengths = lengths.clamp(min=1) if isinstance(lengths, Tensor) else max(lengths, 1)
    return lengths


def count_fewest_steps(windows: Sequence[Window]) -> int:
    """The shortest input that all windows fit in."""
    steps = 1
    for each in reversed(windows):
        steps = max((steps - 1) * each.stride + _compute_span(each) - 2 * each.padding, 1)
    return steps


def _compute_span(window: Window) -> int:
    return window.dilation * (window.kernel_size - 1) + 1


def find_padding_to_zero(before_value: TensorInfo, after_value: TensorInfo) -> tuple[Lengths, int] | None:
    """The lengths and the dimension of an input that goes through a window that pads: what is behind must be zero."""
    before, after = before_value.lengths, after_value.lengths
    if before is None or after is None or before_value.time_dim is None or len(after.windows) <= len(before.windows):
        return None
    return (before, before_value.time_dim) if after.windows[-1].padding else None


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values where the mask, which may have fewer dimensions behind, is true. Waits for nothing."""
    mask = mask.reshape(*mask.shape, *(1,) * (values.dim() - mask.dim())).expand_as(values)
    return values.masked_fill(~mask, 0).sum() / mask.sum()
