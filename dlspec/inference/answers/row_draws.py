"""Random numbers for networks that draw in eval mode: those of a row depend only on the seed and the row.

So a prediction is the same in any batch, in any order and in any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dlspec.network.random_state import make_row_seed, preserve_random_state

_DRAWS: Mapping[Any, Callable[..., Tensor]] = {torch.randn_like: torch.randn, torch.rand_like: torch.rand}
_generators_in_use = threading.Lock()  # PyTorch's own generators belong to the process


class ReplacedDraws(TorchFunctionMode):
    """Replaces `randn_like` and `rand_like`. Subclasses say for which tensors, and what replaces them."""

    def replaces(self, like: Tensor) -> bool:
        """Whether a draw in the shape of this tensor is replaced."""
        return True

    def draw(self, function: Callable[..., Tensor], like: Tensor) -> Tensor:
        """Return what replaces a call of `randn_like` or `rand_like`."""
        raise NotImplementedError

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        like = args[0] if args else (kwargs or {}).get("input")
        if function in _DRAWS and isinstance(like, Tensor) and self.replaces(like):
            return self.draw(function, like)
        return function(*args, **(kwargs or {}))


class RowDraws(ReplacedDraws):
    """Replaces `randn_like` and `rand_like` of a batch by draws from (seed, row), one generator a row.

    Args:
        seed: the seed of the run
        rows: the numbers of the batch's rows in the data
    """

    def __init__(self, seed: int, rows: range) -> None:
        super().__init__()
        self._generators = [_make_generator(seed, row) for row in rows]

    def replaces(self, like: Tensor) -> bool:
        """Whether the tensor has the rows of the batch."""
        return like.dim() > 0 and len(like) == len(self._generators)

    def draw(self, function: Callable[..., Tensor], like: Tensor) -> Tensor:
        """Draw the numbers of each row."""
        draw = _DRAWS[function]
        drawn = torch.stack([draw(like.shape[1:], generator=each, dtype=torch.float32) for each in self._generators])
        return drawn.to(like)


def _make_generator(seed: int, row: int) -> torch.Generator:
    return torch.Generator().manual_seed(make_row_seed(seed, row))


def find_draws(run: Callable[[], object], device: torch.device) -> bool:
    """Find out whether a function draws random numbers from PyTorch's generators."""
    with _generators_in_use, preserve_random_state(device):
        before = _get_states(device)
        run()
        return any(not torch.equal(one, other) for one, other in zip(before, _get_states(device), strict=True))


def _get_states(device: torch.device) -> list[Tensor]:
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *cuda]


@contextmanager
def seed_row(seed: int, row: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's generators for one row inside the context, for draws that `RowDraws` does not replace.

    Args:
        seed: the seed of the run
        row: the number of the row in the data
        device: where the network computes
    """
    with _generators_in_use, preserve_random_state(device):
        torch.manual_seed(make_row_seed(seed, row))
        yield
