"""Metrics of language models: perplexity and bits per character, exact over all tokens.

torchmetrics' own Perplexity expects logits and would apply softmax to dlspec's predictions, which are already
probabilities.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

MIN_PROBABILITY = torch.finfo(torch.float32).tiny
"""Lower limit of a token's probability, about 1e-38: one token of probability 0 must not make the metric infinite."""


class _TokenLikelihood(Metric):
    """Base of the token metrics: accumulates the sum of -log p of the true classes and the number of tokens.

    Tokens of the class `ignore_index` are left out. The sum is in float64 and the result in float32, so that the result
    does not depend on how the tokens were divided into batches, or among processes.
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

    def update(self, preds: Tensor, target: Tensor, weights: Tensor | None = None) -> None:
        """Add the tokens of a batch.

        Args:
            preds: Probabilities, (M, K) for M tokens and K classes, or (M,) for the second of two classes.
            target: True classes, (M,).
            weights: The weight of each token, (M,); None: all count equally.
        """
        if preds.dim() == 1:
            preds = torch.stack([1 - preds, preds], 1)
        is_counted = torch.ones_like(target) if self.ignore_index is None else (target != self.ignore_index).long()
        true_probabilities = preds.gather(1, (target * is_counted)[:, None]).squeeze(1)
        counts = is_counted if weights is None else is_counted * weights
        logs = true_probabilities.clamp(min=MIN_PROBABILITY).log() * counts
        self.total = self.total - logs.sum(dtype=torch.float32 if logs.device.type == "mps" else torch.float64)
        self.count = self.count + counts.sum()

    def mean(self) -> Tensor:
        """Return the mean cross-entropy per token, in nats."""
        return self.total / self.count

    def compute(self) -> Any:
        raise NotImplementedError


class Perplexity(_TokenLikelihood):
    """Perplexity: exp of the mean cross-entropy per token. A uniform guess among k tokens has perplexity k."""

    def compute(self) -> Tensor:
        return self.mean().exp().float()


class BitsPerCharacter(_TokenLikelihood):
    """Mean cross-entropy per token in bits. Per character only if the tokens are characters."""

    def compute(self) -> Tensor:
        return (self.mean() / math.log(2)).float()
