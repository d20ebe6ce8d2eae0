"""Choose the next token from its probabilities: the most probable one, or at random by temperature, top k and top p."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from dlspec.errors import UserError, format_value
from dlspec.network.random_state import make_row_seed

DEFAULT_TEMPERATURE = 1.0
DEFAULT_LENGTH = 200  # tokens


@dataclass(frozen=True)
class GenerationOptions:
    """How a text is generated.

    Args:
        temperature: the logits are divided by it; 0 for the most probable token each time
        top_k: how many of the most probable tokens may be chosen; None for all
        top_p: only the most probable tokens that together have this probability may be chosen; None for all
        seed: of the random numbers
        max_length: the most tokens to generate; None for 200, or what the target of the run may have
        stop: texts that end the generation; they are not part of the result
        beams: with more than one, beam search: the most probable text of this many candidates

    Raises:
        UserError: if a value is out of its range, or two settings exclude each other.
    """

    temperature: float = DEFAULT_TEMPERATURE
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    max_length: int | None = None
    stop: Sequence[str] = ()
    beams: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        _check_number("temperature", self.temperature, 0)
        for name in ("top_k", "max_length", "beams"):
            _check_count(name, getattr(self, name))
        _check_number("top_p", self.top_p, 0, 1)
        if self.top_p == 0:
            raise UserError("top_p must be above 0; for the most probable token write temperature=0")
        if not all(self.stop):
            raise UserError("a text of stop is empty; leave it out")
        self._check_combination()

    def _check_combination(self) -> None:
        choosing = [name for name in ("top_k", "top_p") if getattr(self, name) is not None]
        if choosing and self.temperature == 0:
            raise UserError(f"{choosing[0]} has no effect with temperature=0; leave one of them out")
        if self.beams > 1 and (choosing or self.temperature not in (0, DEFAULT_TEMPERATURE)):
            name = choosing[0] if choosing else "temperature"
            raise UserError(f"{name} has no effect with beams={self.beams}, which draws nothing; leave one of them out")


def _check_number(name: str, value: object, lowest: float, highest: float | None = None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < lowest or (
        highest is not None and value > highest
    ):  # fmt: skip
        limits = f"at least {lowest}" if highest is None else f"between {lowest} and {highest}"
        raise UserError(f"{name} must be a number of {limits}, got {format_value(value)}")


def _check_count(name: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError(f"{name} must be a whole number of at least 1, got {format_value(value)}")


GREEDY = GenerationOptions(temperature=0)


class TokenSampler:
    """Chooses tokens for the rows of a batch, each from random numbers of its own.

    Args:
        options: how
        rows: the numbers of the rows, which with the seed determine what is drawn
    """

    def __init__(self, options: GenerationOptions, rows: Sequence[int]) -> None:
        self.options = options
        self._generators = [torch.Generator().manual_seed(make_row_seed(options.seed, row)) for row in rows]

    def choose(self, probabilities: Tensor) -> Tensor:
        """Return a token (N,) for each row of probabilities (N, K)."""
        if self.options.temperature == 0:
            return probabilities.argmax(1)
        scores = self._restrict(probabilities.double().log() / self.options.temperature)
        bounds = scores.softmax(1).cumsum(1)
        draws = torch.stack([torch.rand((), generator=each, dtype=torch.float64) for each in self._generators])
        chosen = torch.searchsorted(bounds, draws[:, None] * bounds[:, -1:], right=True)[:, 0]
        return chosen.clamp(max=probabilities.shape[1] - 1)

    def _restrict(self, scores: Tensor) -> Tensor:
        """Set the scores (N, K) of tokens that may not be chosen to minus infinity: first by top k, then by top p."""
        top_k, top_p = self.options.top_k, self.options.top_p
        if top_k is not None and top_k < scores.shape[1]:
            scores = scores.masked_fill(scores < scores.topk(top_k, dim=1).values[:, -1:], -torch.inf)
        if top_p is not None:
            ordered, order = scores.softmax(1).sort(dim=1, descending=True)
            is_beyond = ordered.cumsum(1) - ordered >= top_p  # the tokens before it have that probability already
            scores = scores.masked_fill(torch.zeros_like(is_beyond).scatter(1, order, is_beyond), -torch.inf)
        return scores
