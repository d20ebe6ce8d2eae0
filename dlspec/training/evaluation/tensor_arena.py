"""Small tensors that live longer than the step that made them, side by side in memory of their own.

Where a step's tensors are large, glibc puts the small ones that stay between those that it frees, and then has no room
for the next step's: its heap grew up to ten times as large as the article's CNN needs at batch 128, as chance had it.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_BYTES = 2**20
"""Bytes that are taken at a time."""
ALIGNMENT_BYTES = 64
"""Some kernels round otherwise where a tensor begins elsewhere; PyTorch's own begin at multiples of so many bytes."""


class TensorArena:
    """Copies of tensors on the CPU. A piece of memory is given back when all that lie in it are gone."""

    def __init__(self) -> None:
        self._free: dict[torch.dtype, Tensor] = {}

    def copy(self, tensor: Tensor) -> Tensor:
        count, alignment = tensor.numel(), ALIGNMENT_BYTES // tensor.element_size()
        free = self._free.get(tensor.dtype)
        if free is None or len(free) < count:
            with torch.inference_mode(False):  # training's and evaluation's lie in the same
                free = torch.empty(max(CHUNK_BYTES // tensor.element_size(), count), dtype=tensor.dtype)
        self._free[tensor.dtype] = free[-(-count // alignment) * alignment :]
        return free[:count].view(tensor.shape).copy_(tensor)
