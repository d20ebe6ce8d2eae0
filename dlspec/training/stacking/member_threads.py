"""Runs of a stack, each in a thread of its own; only one of them runs at a time.

A thread runs a whole job as usual. Where it would train on its training split, it waits until that is done in one loop
with the other members, and goes on. The threads take turns, and what belongs to a run but is kept by the process,
such as the state of random generators, is exchanged when another one continues.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from dlspec.network.random_state import CPU
from dlspec.training.runtime.randomness import read_random_states, write_random_states
from dlspec.training.stacking.training_pass import TrainingPass


class ProcessState(Protocol):
    """Something that the process keeps for the run that is active."""

    def exchange(self, kept: Any) -> Any:
        """Activate what was kept for a run (None at its start), and return what was active before."""


class MemberThread:
    """A run of a stack in its thread.

    Args:
        name: the thread's name.
        task: runs the job; called with this object.
        states: what is exchanged when the run continues and when it waits.
    """

    def __init__(self, name: str, task: Callable[[MemberThread], Any], states: Sequence[ProcessState] = ()) -> None:
        self._task, self._states = task, states
        self._may_run, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._random_states = read_random_states(CPU)
        self._kept: list[Any] = [None] * len(states)
        self._error: BaseException | None = None
        self.training_pass: TrainingPass | None = None  # that the run waits for
        self.generator: torch.Generator | None = None  # draws for the run while the stack trains it
        self.result: Any = None
        self.is_done = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # ---- called by the stack ---------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Let the run continue until it waits again, or has ended. The generators are left in its state."""
        write_random_states(self._random_states)
        before = [each.exchange(kept) for each, kept in zip(self._states, self._kept, strict=True)]
        self._may_run.release()
        self._waits.acquire()
        self._kept = [each.exchange(kept) for each, kept in zip(self._states, before, strict=True)]
        self._random_states = read_random_states(CPU)
        if self.is_done:
            self._thread.join()

    @property
    def generator_state(self) -> Tensor:
        """The state of PyTorch's generator for the run."""
        return self._random_states.torch

    def end_pass(self, generator_state: Tensor, error: BaseException | None = None) -> None:
        """Let the run continue with the rest of its pass, if there is any; `error` is raised in its thread."""
        self.keep_generator_state(generator_state)
        self.training_pass, self.generator, self._error = None, None, error

    def keep_generator_state(self, generator_state: Tensor) -> None:
        """Keep the state of PyTorch's generator after a part of the pass; the run keeps waiting."""
        self._random_states = replace(self._random_states, torch=generator_state)

    def activate_generators(self) -> None:
        """Give all generators the states of this run, for a checkpoint within the pass."""
        if self.generator is not None:  # else the run itself continues: they have them
            write_random_states(replace(self._random_states, torch=self.generator.get_state()))

    # ---- called in the thread --------------------------------------------------------------------------------------

    def train(self, training_pass: TrainingPass) -> None:
        """Wait until the stack has trained the pass, or a part of it."""
        self.training_pass = training_pass
        self._waits.release()
        self._may_run.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        self._may_run.acquire()
        try:
            self.result = self._task(self)
        finally:
            self.is_done, self.training_pass = True, None
            self._waits.release()
