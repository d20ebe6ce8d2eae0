"""PyTorch's random numbers for the members of a stack: each draws what its own run would draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class MemberGenerators:
    """A generator of the CPU for each member."""

    def __init__(self, states: Sequence[Tensor]) -> None:
        self._generators = [torch.Generator() for _ in states]
        self.set_states(states)

    def __getitem__(self, member: int) -> torch.Generator:
        return self._generators[member]

    def get_states(self) -> list[Tensor]:
        """Return the state of each generator."""
        return [each.get_state() for each in self._generators]

    def set_states(self, states: Sequence[Tensor]) -> None:
        """Restore the states that `get_states` returned."""
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)

    @contextmanager
    def use(self, member: int) -> Iterator[None]:
        """Let PyTorch's own generator continue that of a member inside the `with` block."""
        torch.set_rng_state(self._generators[member].get_state())
        yield
        self._generators[member].set_state(torch.get_rng_state())
