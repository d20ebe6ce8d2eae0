"""Stochastic depth: residual branches that are dropped at random in training."""

from __future__ import annotations

from torch import Tensor, nn

from dlspec.parts.layers.rule import Rule


class StochasticDepth(nn.Module):
    """Set whole samples to zero with probability `p` in training, and scale the others by 1 / (1 - p).

    At the end of a residual branch it drops the branch (arXiv:1603.09382). Same as torchvision's with `mode="row"`.
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
