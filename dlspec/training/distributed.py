"""The processes that train one network together, seen by one of them. Without torchrun it is a single process.

The group is used wherever a process's rank matters: which samples of a batch a process takes, how gradients are added
up, what the processes decide together, and which one writes files. `rank_group.py` implements it for several processes;
it is only imported where torchrun has started them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from dlspec.data.batches.batch_share import BatchShare
from dlspec.errors import TrainingFailed
from dlspec.training.runtime.interruption import Interruption

T = TypeVar("T")


class FailedElsewhere(TrainingFailed):
    """Another process fails in the same step, and prints why."""


@dataclass
class JointDecisions:
    """What all processes have decided together in the last step."""

    interruption: Interruption = field(default_factory=Interruption)  # a signal that any of them has received
    saves: bool = False  # whether a checkpoint is saved after this step


@dataclass
class ProcessGroup:
    """The processes that train together, and this process's rank among them. This class is for a single process."""

    rank: int = 0  # from 0 to world_size - 1
    world_size: int = 1  # number of processes
    decisions: JointDecisions = field(default_factory=JointDecisions)
    # What this process contributes to the decisions: its own signal, and whether it wants to save a checkpoint.
    interruption: Interruption = field(default_factory=Interruption)
    wants_to_save: Callable[[], bool] = lambda: False
    mesh: Any = None  # torch's DeviceMesh of processes that divide the parameters; None if each has all of them

    @property
    def is_writer(self) -> bool:
        """Whether this process writes the run's files and shows its progress."""
        return self.rank == 0

    @property
    def is_parallel(self) -> bool:
        """Whether there are several processes."""
        return self.world_size > 1

    @property
    def undivided(self) -> ProcessGroup:
        """The same processes, each with all parameters."""
        return self

    @property
    def is_sharded(self) -> bool:
        """Whether each process has only a part of the parameters, so that all must compute forward passes together."""
        return self.mesh is not None

    def disable_gradients(self) -> AbstractContextManager[None]:
        """Return a context for evaluation, in which nothing is recorded for a backward pass."""
        return torch.inference_mode()

    def make_share(self, *, is_even: bool = False) -> BatchShare:
        """Make this process's share of every batch; `is_even` where each process needs several samples."""
        return BatchShare(self.rank, self.world_size, is_even)

    def is_true_on_any_rank(self, flag: bool) -> bool:
        """Return whether `flag` is true in any process. All processes must call this."""
        return flag

    def is_true_on_any_part(self, flag: bool) -> bool:
        """Return whether `flag`, found in this process's part of the parameters, is true in any of them."""
        return flag

    def share_interruption(self, interruption: Interruption) -> Interruption:
        """Return an interruption to check after each step, which is set if any process was interrupted."""
        self.interruption = interruption
        return self.decisions.interruption if self.is_parallel else interruption

    def broadcast(self, value: T) -> T:
        """Return the value of the first process. All processes must call this."""
        return value

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in order of their ranks. All processes must call this."""
        return [value]

    def compute_gradients(
        self, backward: Callable[[], None], parameters: Sequence[nn.Parameter], network: nn.Module, *, is_bad: bool
    ) -> bool:
        """Compute gradients; replace them by their sums over all processes, and running statistics by their means.

        Args:
            backward: computes this process's gradients. Not called for a loss that is not finite.
            parameters: the parameters whose gradients are replaced; none between the batches of one update.
            network: the network, for its running statistics.
            is_bad: whether this process's loss is not finite.

        Returns:
            Whether the loss of any process is not finite.
        """
        if not is_bad:
            backward()
        return is_bad

    def decide_together(self) -> None:
        """Update the decisions after a batch of an evaluation."""

    def find_failure_elsewhere(self, error: Exception) -> Exception | None:
        """Find out whether an error in a forward or backward pass is due to another process that has failed."""
        return None

    def average_statistics(self, network: nn.Module) -> None:
        """Replace a network's running statistics by their means over all processes."""

    def prepare_metric(self, metric: Any) -> None:
        """Make a metric of torchmetrics compute its result from the samples of all processes."""


_STARTED: list[ProcessGroup] = []  # the group that torchrun's processes have formed, at most one


def count_started_processes() -> int:
    """Return the number of processes that torchrun has started together; 1 without torchrun."""
    written = os.environ.get("WORLD_SIZE", "")
    return int(written) if written.isascii() and written.isdigit() and os.environ.get("MASTER_ADDR") else 1


def find_process_group() -> ProcessGroup:
    """Find the group that this process has joined."""
    return _STARTED[-1] if _STARTED else ProcessGroup()


def register_process_group(group: ProcessGroup | None) -> None:
    """Make `find_process_group` return this group; None for a single process."""
    _STARTED[:] = [] if group is None else [group]
