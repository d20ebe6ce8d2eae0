"""How well the tokens are foretold: perplexity and bits per character, exact over all tokens that were seen.

torchmetrics' own Perplexity wants the network's outputs, and takes the softmax of what is a probability already.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

MIN_PROBABILITY = torch.finfo(torch.float32).tiny
"""What float32 has no number for, below 1e-38, counts as this: a single such token must not make all infinite."""


class _TokenLikelihood(Metric):
    """Keeps the sum of -log p of the true classes and how many there were; two numbers, however many classes.

    Tokens of the class `ignore_index` are left out.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Takes probabilities (M, K), or (M,) of the second of two classes, and classes (M,)."""
        if preds.dim() == 1:
            preds = torch.stack([1 - preds, preds], 1)
        is_counted = torch.ones_like(target) if self.ignore_index is None else (target != self.ignore_index).long()
        true_probabilities = preds.gather(1, (target * is_counted)[:, None]).squeeze(1)
        self.total -= (true_probabilities.clamp(min=MIN_PROBABILITY).log() * is_counted).sum()
        self.count += is_counted.sum()

    def mean(self) -> Tensor:
        """The cross-entropy of a token, in nats."""
        return self.total / self.count

    def compute(self) -> Any:
        raise NotImplementedError


class Perplexity(_TokenLikelihood):
    """exp of the mean cross-entropy of a token: among how many equally probable ones the network hesitates."""

    def compute(self) -> Tensor:
        return self.mean().exp()


class BitsPerCharacter(_TokenLikelihood):
    """The mean cross-entropy of a token in bits, whatever a token is: a character, a byte, a word."""

    def compute(self) -> Tensor:
        return self.mean() / math.log(2)
