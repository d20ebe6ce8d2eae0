"""What convolutions and poolings make of lengths, means without padding, and where padding may be cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from dlspec.layouts import Lengths, Window

L = TypeVar("L", int, Tensor)


@dataclass(frozen=True)
class Trim:
    """What is padding in a whole batch of a target may be cut off its dimension `dim`, as it is off an input's."""

    lengths: Lengths
    dim: int


def mapped(lengths: L, windows: Sequence[Window]) -> L:
    """The lengths behind the windows, by PyTorch's output-size formula."""
    for each in windows:
        reach = each.dilation * (each.kernel_size - 1)
        lengths = (lengths + 2 * each.padding - reach - 1) // each.stride + 1
    return lengths


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values where the mask, which may have fewer dimensions behind, is true. Waits for nothing."""
    mask = mask.reshape(*mask.shape, *(1,) * (values.dim() - mask.dim())).expand_as(values)
    return values.masked_fill(~mask, 0).sum() / mask.sum()
