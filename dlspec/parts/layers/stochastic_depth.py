"""Layers that are left out at random in training."""

from __future__ import annotations

from torch import Tensor, nn

from dlspec.parts.layers.rule import Rule


class StochasticDepth(nn.Module):
    """Makes whole samples zero with probability `p` in training, the others larger by as much (arXiv:1603.09382).

    At the end of a residual's body it drops the body; torchvision's `mode="row"`.
    """

    rule = Rule(keeps_lengths=True)

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return input
        kept = input.new_empty(len(input), *[1] * (input.dim() - 1)).bernoulli_(1.0 - self.p)
        return input * (kept if self.p == 1.0 else kept / (1.0 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"
