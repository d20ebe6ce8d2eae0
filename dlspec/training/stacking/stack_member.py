"""Runs of a stack, which take turns in one thread.

A member runs a whole job as usual. Where it would train on its training split, it waits until that is done in one loop
with the other members, and goes on. What belongs to a run but is kept by the process, such as the state of random
generators, is exchanged when another member continues.

Members are greenlets and not threads: the operating system would run threads that take turns on changing cores, without
what they have in the cache of another one, which takes 10 to 15 % longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import replace
from typing import Any, Protocol

import torch
from greenlet import greenlet
from torch import Tensor

from dlspec.network.random_state import CPU
from dlspec.training.runtime.randomness import read_random_states, write_random_states
from dlspec.training.stacking.training_pass import TrainingPass


class ProcessState(Protocol):
    """Something that the process keeps for the run that is active."""

    def exchange(self, kept: Any) -> Any:
        """Activate what was kept for a run (None at its start), and return what was active before."""


# Waiting members. Without a reference to them, they would be collected, and that raises an exception in their runs.
_WAITING: set[greenlet] = set()


class StackMember:
    """A run of a stack.

    Args:
        task: runs the job; called with this object.
        states: what is exchanged when the run continues and when it waits.
    """

    def __init__(self, task: Callable[[StackMember], Any], states: Sequence[ProcessState] = ()) -> None:
        self._states = states
        self._random_states = read_random_states(CPU)
        self._kept: list[Any] = [None] * len(states)
        self._error: BaseException | None = None
        self.training_pass: TrainingPass | None = None  # that the run waits for
        self.generator: torch.Generator | None = None  # draws for the run while the stack trains it
        self.result: Any = None
        self._greenlet = greenlet(lambda: task(self))
        self._greenlet.gr_context = copy_context()  # such as NumPy's settings of errors

    # ---- called by the stack ---------------------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether the run has ended."""
        return bool(self._greenlet.dead)

    def resume(self) -> None:
        """Let the run continue until it waits again, or has ended. The generators are left in its state."""
        write_random_states(self._random_states)
        before = [each.exchange(kept) for each, kept in zip(self._states, self._kept, strict=True)]
        _WAITING.add(self._greenlet)
        self.result = self._greenlet.switch()
        self._kept = [each.exchange(kept) for each, kept in zip(self._states, before, strict=True)]
        self._random_states = read_random_states(CPU)
        if self.is_done:
            _WAITING.discard(self._greenlet)

    @property
    def generator_state(self) -> Tensor:
        """The state of PyTorch's generator for the run."""
        return self._random_states.torch

    def end_pass(self, generator_state: Tensor, error: BaseException | None = None) -> None:
        """Let the run continue with the rest of its pass, if there is any; `error` is raised in it."""
        self.keep_generator_state(generator_state)
        self.training_pass, self.generator, self._error = None, None, error

    def keep_generator_state(self, generator_state: Tensor) -> None:
        """Keep the state of PyTorch's generator after a part of the pass; the run keeps waiting."""
        self._random_states = replace(self._random_states, torch=generator_state)

    def activate_generators(self) -> None:
        """Give all generators the states of this run, for a checkpoint within the pass."""
        if self.generator is not None:  # else the run itself continues: they have them
            write_random_states(replace(self._random_states, torch=self.generator.get_state()))

    # ---- called by the run -----------------------------------------------------------------------------------------

    def train(self, training_pass: TrainingPass) -> None:
        """Wait until the stack has trained the pass, or a part of it."""
        self.training_pass = training_pass
        assert self._greenlet.parent is not None  # the stack
        self._greenlet.parent.switch()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
