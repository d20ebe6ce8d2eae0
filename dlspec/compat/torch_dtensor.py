"""PyTorch's DTensor, a tensor of which each process has a part, without importing it where there is none."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor


def is_sharded(tensor: Any) -> bool:
    """Whether each process has only its part of a tensor."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def get_local_part(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor, which shares its memory; an ordinary tensor is returned itself."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
