"""PyTorch's Transformer layer, with lengths."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TransformerEncoderLayer(nn.TransformerEncoderLayer):
    """`torch.nn.TransformerEncoderLayer`, batch first: (N, T, C) to (N, T, C). Padding is attended to by nothing."""

    takes_lengths = True

    def forward(self, src: Tensor, lengths: Tensor | None = None) -> Tensor:  # type: ignore[override]
        if lengths is None:
            return super().forward(src)
        is_padding = torch.arange(src.shape[1], device=src.device) >= lengths.to(src.device).unsqueeze(1)
        return super().forward(src, src_key_padding_mask=is_padding)
