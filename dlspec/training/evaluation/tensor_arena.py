"""Copy small tensors that outlive their training step into shared chunks of memory.

Otherwise glibc allocates them between a step's large tensors. When those are freed, the small ones fragment the heap,
and the next step's large tensors do not fit into the gaps: for a CNN at batch size 128, the heap grew up to ten times
larger than needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_BYTES = 2**20  # allocated at a time
ALIGNMENT_BYTES = 64  # as PyTorch aligns tensors: some kernels round differently at other addresses


class TensorArena:
    """Allocates copies of CPU tensors from chunks of memory. A chunk is freed when all of its tensors are."""

    def __init__(self) -> None:
        self._free: dict[torch.dtype, Tensor] = {}

    def copy(self, tensor: Tensor) -> Tensor:
        """Copy a CPU tensor into a chunk."""
        count, alignment = tensor.numel(), ALIGNMENT_BYTES // tensor.element_size()
        free = self._free.get(tensor.dtype)
        if free is None or len(free) < count:
            with torch.inference_mode(False):  # training and evaluation share chunks
                free = torch.empty(max(CHUNK_BYTES // tensor.element_size(), count), dtype=tensor.dtype)
        self._free[tensor.dtype] = free[-(-count // alignment) * alignment :]
        return free[:count].view(tensor.shape).copy_(tensor)
