"""The processes that train one network together. There is one so far, and every answer is the trivial one.

It is asked wherever a process's rank will matter, and never once a step: which samples of a batch a process takes, what
the processes decide together, and who writes files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dlspec.data.batches.batch_loader import Batch
from dlspec.training.runtime.interruption import Interruption


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train: `rank` counts from 0 to `world_size - 1`."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_writer(self) -> bool:
        """Whether this process writes the run's files and shows its progress."""
        return self.rank == 0

    def take_slices(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Of each batch the samples that this process trains on: with one process the batches themselves."""
        return batches

    def is_true_on_any_rank(self, flag: bool) -> bool:
        """Whether any process says so; all of them have to ask."""
        return flag

    def share_interruption(self, interruption: Interruption) -> Interruption:
        """What is to be asked after each step: whether any process was interrupted."""
        return interruption


def find_process_group() -> ProcessGroup:
    """The group that this process was started in."""
    return ProcessGroup()
