"""Generate tokens one after another: drawn or most probable ones, or by beam search."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dlspec.generation.token_context import TokenContext


@dataclass(frozen=True)
class TokenLimits:
    """Which tokens may be generated, and how many."""

    max_length: int
    end: int | None = None  # the token that ends a text
    forbidden: Collection[int] = ()  # tokens without a text, such as padding


def iterate_tokens(
    context: TokenContext, prompt: Tensor, choose: Callable[[Tensor], Tensor], limits: TokenLimits
) -> Iterator[Tensor]:
    """Yield the next token (N,) of each text, until all of them have ended.

    Args:
        context: the texts, still empty
        prompt: their first tokens (N, T)
        choose: chooses a token (N,) for each row of probabilities (N, K), as `TokenSampler.choose`
        limits: which tokens, and how many. After the end of a text, its end token is repeated
    """
    new, is_ended = prompt, torch.zeros(len(prompt), dtype=torch.bool)
    for _ in range(limits.max_length):
        chosen = choose(_forbid(context.extend(new), limits))
        if limits.end is not None:
            chosen = torch.where(is_ended, limits.end, chosen)
            is_ended |= chosen == limits.end
        yield chosen
        if bool(is_ended.all()):
            return
        new = chosen[:, None]


def _forbid(probabilities: Tensor, limits: TokenLimits) -> Tensor:
    if limits.forbidden:
        probabilities[:, list(limits.forbidden)] = 0
    return probabilities


@dataclass(frozen=True)
class _Candidate:
    """A text of beam search."""

    score: float  # the logarithm of its probability
    tokens: tuple[int, ...]

    @property
    def mean_score(self) -> float:
        """The score per token, so that longer texts are not at a disadvantage."""
        return self.score / max(len(self.tokens), 1)


def search_beams(context: TokenContext, prompt: Tensor, beams: int, limits: TokenLimits) -> Tensor:
    """Find the text of the highest mean log probability that beam search sees.

    Args:
        context: the text, still empty
        prompt: its first tokens (1, T)
        beams: how many candidates are kept at each step
        limits: which tokens, and how many

    Returns:
        The tokens (T,) after the prompt, with the end token if the text has ended.
    """
    running, ended = [_Candidate(0.0, ())], list[_Candidate]()
    new = prompt
    for _ in range(limits.max_length):
        log_probabilities = _forbid(context.extend(new), limits).double().log()
        parents, running, found = _extend_candidates(running, log_probabilities, beams, limits.end)
        ended = sorted([*ended, *found], key=lambda each: -each.mean_score)[:beams]
        if not running or (len(ended) == beams and running[0].mean_score <= ended[-1].mean_score):
            break
        context.select(torch.tensor(parents))
        new = torch.tensor([each.tokens[-1:] for each in running])
    best = max(ended or running, key=lambda each: each.mean_score)
    return torch.tensor(best.tokens)


def _extend_candidates(
    running: list[_Candidate], log_probabilities: Tensor, beams: int, end: int | None
) -> tuple[list[int], list[_Candidate], list[_Candidate]]:
    """Extend each candidate by its best tokens: which one each new candidate extends, the new ones, those that end."""
    scores = log_probabilities + torch.tensor([[each.score] for each in running], dtype=torch.float64)
    best = scores.flatten().topk(min(2 * beams, scores.numel()))
    parents, kept, ended = list[int](), list[_Candidate](), list[_Candidate]()
    for rank, (score, at) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
        parent, token = divmod(at, scores.shape[1])
        if score == float("-inf"):
            continue
        candidate = _Candidate(score, (*running[parent].tokens, token))
        if token == end:
            ended += [candidate] if rank < beams else []
        elif len(kept) < beams:
            parents.append(parent)
            kept.append(candidate)
    return parents, kept, ended
