"""Runs of a stack, each in a thread of its own; only one of them runs at a time.

A thread runs a whole job as usual. Where it would train on its training split, it waits until that is done in one loop
with the other members, and goes on. The threads take turns, and what belongs to a run but is kept by the process,
such as the state of random generators, is exchanged when another one continues.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from dlspec.training.runtime.randomness import get_random_state, set_random_state
from dlspec.training.stacking.training_pass import TrainingPass

CPU = torch.device("cpu")


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
        self._random_state: dict[str, Any] | None = None
        self._kept: list[Any] = [None] * len(states)
        self._error: BaseException | None = None
        self.training_pass: TrainingPass | None = None  # that the run waits for
        self.result: Any = None
        self.is_done = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # ---- called by the stack ---------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Let the run continue until it waits again, or has ended."""
        outside = get_random_state(CPU)
        if self._random_state is not None:
            set_random_state(self._random_state, CPU)
        before = [each.exchange(kept) for each, kept in zip(self._states, self._kept, strict=True)]
        self._may_run.release()
        self._waits.acquire()
        self._kept = [each.exchange(kept) for each, kept in zip(self._states, before, strict=True)]
        self._random_state = get_random_state(CPU)
        set_random_state(outside, CPU)
        if self.is_done:
            self._thread.join()

    @property
    def generator_state(self) -> Tensor:
        """The state of PyTorch's generator for the run."""
        assert self._random_state is not None  # it waits, so it has run before
        state: Tensor = self._random_state["torch"]
        return state

    def end_pass(self, generator_state: Tensor, error: BaseException | None = None) -> None:
        """Let the run continue with the rest of its pass, if there is any; `error` is raised in its thread."""
        self.keep_generator_state(generator_state)
        self.training_pass, self._error = None, error

    def keep_generator_state(self, generator_state: Tensor) -> None:
        """Keep the state of PyTorch's generator after a part of the pass; the run keeps waiting."""
        assert self._random_state is not None  # it waits, so it has run before
        self._random_state = {**self._random_state, "torch": generator_state}

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
