"""Which steps of a batch are real, for the layers that leave padding out."""

from __future__ import annotations

import torch
from torch import Tensor


def make_step_mask(lengths: Tensor, steps: int, device: torch.device | None = None) -> Tensor:
    """(N, steps), true where a sample's step is not padding. `lengths` may stand on another device."""
    lengths = lengths if device is None else lengths.to(device)
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(1)
