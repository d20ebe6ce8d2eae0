"""The processes that train one network together. Only a single process is supported so far.

The group is used wherever a process's rank will matter: which samples of a batch a process takes, what the processes
decide together, and which one writes files. It is not called in every step, because that would cost time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from dlspec.training.runtime.interruption import Interruption

T = TypeVar("T")  # a batch, or a block of batches


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together, and this process's rank among them."""

    rank: int = 0  # from 0 to world_size - 1
    world_size: int = 1  # number of processes

    @property
    def is_writer(self) -> bool:
        """Whether this process writes the run's files and shows its progress."""
        return self.rank == 0

    def select_rank_samples(self, batches: Iterator[T]) -> Iterator[T]:
        """Select the samples of each batch that this process trains on. With one process these are all samples."""
        return batches

    def is_true_on_any_rank(self, flag: bool) -> bool:
        """Return whether `flag` is true in any process. All processes must call this."""
        return flag

    def share_interruption(self, interruption: Interruption) -> Interruption:
        """Return an interruption to check after each step, which is set if any process was interrupted."""
        return interruption


def find_process_group() -> ProcessGroup:
    """Find the group that this process was started in."""
    return ProcessGroup()
