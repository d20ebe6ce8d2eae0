"""Random numbers of networks that draw in eval mode: an exported file takes them as inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from dlspec.inference.answers.batch_prediction import BatchPredictor
from dlspec.inference.answers.row_draws import ReplacedDraws, RowDraws
from dlspec.inference.export.file_inputs import RawInput
from dlspec.inference.loading.loaded_run import LoadedRun

_NAME = "noise"
_MEANINGS = {
    torch.randn_like: "numbers of the standard normal distribution; zeros for no noise",
    torch.rand_like: "numbers between 0 and 1, all equally probable",
}


@dataclass(frozen=True)
class Draw:
    """One call of `randn_like` or `rand_like` in a network."""

    function: Callable[..., Tensor]
    shape: tuple[int, ...]  # of one row


class ListedDraws(ReplacedDraws):
    """Lists the draws of a network, and replaces them by zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Draw] = []

    def draw(self, function: Callable[..., Tensor], like: Tensor) -> Tensor:
        """Note the draw, and return zeros."""
        self.found.append(Draw(function, tuple(like.shape[1:])))
        return torch.zeros_like(like)


class GivenNoise(ReplacedDraws):
    """Replaces the draws of a network by given tensors, in their order."""

    def __init__(self, noise: Sequence[Tensor]) -> None:
        super().__init__()
        self._rest: Iterator[Tensor] = iter(noise)

    def draw(self, function: Callable[..., Tensor], like: Tensor) -> Tensor:
        """Return the next tensor."""
        return next(self._rest).to(like)


def list_draws(run: LoadedRun) -> tuple[Draw, ...]:
    """List what a network draws for each batch in eval mode."""
    predictor = BatchPredictor(run, 2)
    if not predictor.draws:
        return ()
    inputs, _ = next(predictor.iterate_inputs(run.data.train))
    with torch.inference_mode(), ListedDraws() as draws:
        run.network(*inputs)
    return tuple(draws.found)


def describe_noise(draws: Sequence[Draw], taken: Collection[str]) -> list[RawInput]:
    """Describe an input for each draw: `noise`, `noise_2`, ...

    Args:
        draws: the draws in their order
        taken: names that other inputs and outputs have
    """
    names = (name for name in (_NAME if at == 1 else f"{_NAME}_{at}" for at in count(1)) if name not in taken)
    return [RawInput(next(names), torch.float32, each.shape, f"random {_MEANINGS[each.function]}") for each in draws]


def draw_noise(run: LoadedRun, draws: Sequence[Draw], rows: int) -> tuple[Tensor, ...]:
    """Draw what `predict` draws for the first rows.

    Args:
        run: the run, whose seed it is
        draws: the draws in their order
        rows: the number of rows
    """
    with RowDraws(run.spec.seed, range(rows)):
        return tuple(each.function(torch.empty(rows, *each.shape)) for each in draws)
