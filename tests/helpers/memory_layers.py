"""A layer that runs out of memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TOO_MANY_ELEMENTS = 10**16


class MemoryHungryLayer(nn.Module):
    """Takes more than any machine has for batches of more than `most` samples."""

    def __init__(self, most: int, only_in_training: bool | None = None) -> None:
        super().__init__()
        self.most, self.when = most, only_in_training

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most and self.when in (None, self.training):
            torch.empty(TOO_MANY_ELEMENTS)
        return x
