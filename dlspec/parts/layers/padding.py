"""Masks of the real steps in a padded batch."""

from __future__ import annotations

import torch
from torch import Tensor


def make_step_mask(lengths: Tensor, steps: int, device: torch.device | None = None) -> Tensor:
    """Make a mask that is true for real steps and false for padding.

    Args:
        lengths: Number of real steps of each sample, int64 of shape (N,).
        steps: Number of steps T in the padded batch.
        device: Device of the mask; by default that of `lengths`.

    Returns:
        A boolean mask, (N, T).
    """
    lengths = lengths if device is None else lengths.to(device)
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(1)


def make_padding_mask(input: Tensor, lengths: Tensor, dim: int) -> Tensor:
    """Make a mask that is true for padding and broadcasts to the input.

    Args:
        input: Steps along `dim`, batch first, (N, ...).
        lengths: Number of real steps of each sample, int64 of shape (N,).
        dim: The time dimension.

    Returns:
        A boolean mask with the size 1 in all dimensions but the batch and `dim`.
    """
    is_real = make_step_mask(lengths, input.shape[dim], input.device)  # (N, T)
    shape = [len(is_real), *(input.shape[dim] if at == dim else 1 for at in range(1, input.dim()))]
    return ~is_real.reshape(shape)
