"""What a layer keeps of the steps before, so that one more step of a sequence costs one step.

A layer that looks back in time has a method `step(state, *inputs)`: it takes the next steps of its inputs, and what it
kept, None at the beginning. It returns its output for these steps and the new state, which consists of tensors with the
batch first, `KeptSteps`, numbers, and tuples of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MIN_CAPACITY = 64  # steps; the capacity doubles when it is used up


class KeptSteps:
    """A tensor that grows along one dimension without copying all of it for each step.

    Args:
        dim: the dimension of time; the batch is the first
    """

    def __init__(self, dim: int) -> None:
        self.dim, self.steps = dim, 0
        self._buffer: Tensor | None = None

    def append(self, new: Tensor) -> Tensor:
        """Append steps, and return all of them as a view."""
        end = self.steps + new.shape[self.dim]
        if self._buffer is None or end > self._buffer.shape[self.dim]:
            self._buffer = self._grow(new, end)
        self._buffer.narrow(self.dim, self.steps, new.shape[self.dim]).copy_(new)
        self.steps = end
        return self._buffer.narrow(self.dim, 0, end)

    def _grow(self, like: Tensor, steps: int) -> Tensor:
        shape = list(like.shape)
        shape[self.dim] = max(MIN_CAPACITY, 2 * steps)
        buffer = like.new_empty(shape)
        if self._buffer is not None:
            buffer.narrow(self.dim, 0, self.steps).copy_(self._buffer.narrow(self.dim, 0, self.steps))
        return buffer

    def select(self, rows: Tensor) -> KeptSteps:
        """Return the steps of some rows (int64), which may repeat."""
        chosen = KeptSteps(self.dim)
        if self._buffer is not None:
            chosen._buffer, chosen.steps = self._buffer.index_select(0, rows), self.steps
        return chosen


def select_rows(state: Any, rows: Tensor) -> Any:
    """Return the state of some rows (int64) of the batch, which may repeat."""
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    if isinstance(state, KeptSteps):
        return state.select(rows)
    return tuple(select_rows(each, rows) for each in state) if isinstance(state, tuple) else state


def make_step_causal_mask(new: int, total: int, device: torch.device) -> Tensor | None:
    """Make a mask (new, total) that is true where the last steps may look; None if they may look everywhere.

    Args:
        new: the number of the last steps
        total: the number of all steps
        device: the device of the mask
    """
    if new == 1:
        return None
    return torch.ones(new, total, dtype=torch.bool, device=device).tril(total - new)
