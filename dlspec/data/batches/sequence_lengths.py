"""Lengths of padded sequences: after convolutions and pooling, for masked means, and to cut padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from dlspec.layouts import LengthChange, Lengths

L = TypeVar("L", int, Tensor)


@dataclass(frozen=True)
class PaddingTrim:
    """Where a tensor of a batch can be cut: steps that are padding in every sample of the batch."""

    lengths: Lengths  # the lengths of the samples
    dim: int  # the dimension of the steps


def change_lengths(lengths: L, changes: Sequence[LengthChange]) -> L:
    """Compute the lengths of samples after the changes, at least 1."""
    for each in changes:
        lengths = (lengths - each.removed) // each.stride * each.factor + each.added
        lengths = lengths.clamp(min=1) if isinstance(lengths, Tensor) else max(lengths, 1)
    return lengths


def compute_min_input_steps(changes: Sequence[LengthChange]) -> int:
    """Count the steps of the shortest sample that every kernel of the layers fits in."""
    steps = 1
    for each in reversed(changes):
        windows = -((each.added - steps) // each.factor)  # rounded up
        steps = max(windows * each.stride + each.removed, 1)
    return steps


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
