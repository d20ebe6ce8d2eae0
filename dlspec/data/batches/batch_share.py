"""Which samples of each batch one of several processes takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchShare:
    """The part of every batch that one process computes; by default the whole batch.

    A batch is cut as if each process had its own batch size, the batch size divided by the number of processes, so that
    the last processes may get no samples of a small last batch. Where a layer needs several samples (batch
    normalization), every batch is divided evenly instead.
    """

    rank: int = 0  # from 0 to world_size - 1
    world_size: int = 1  # number of processes
    is_even: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether this process computes whole batches."""
        return self.world_size == 1

    def divide(self, size: int, batch_size: int) -> list[int]:
        """Divide a batch of `size` samples: the number of samples of each process, in order of their ranks."""
        if self.is_even:
            return [(size + self.world_size - 1 - rank) // self.world_size for rank in range(self.world_size)]
        part = -(-max(size, batch_size) // self.world_size)
        return [min(part, max(0, size - rank * part)) for rank in range(self.world_size)]

    def find_rows(self, sizes: Sequence[int], batch_size: int) -> list[slice]:
        """Find this process's positions in the order of an epoch's samples, for each batch.

        Args:
            sizes: the number of samples of each batch
            batch_size: the largest batch without those that were merged

        Returns:
            For each batch the positions of its samples. A process without samples gets the first one of the batch: it
            computes it too, and it counts nothing.
        """
        rows = []
        for end, size in zip(accumulate(sizes), sizes, strict=True):
            parts = self.divide(size, batch_size)
            start = end - size + sum(parts[: self.rank]) if parts[self.rank] else end - size
            rows.append(slice(start, start + max(parts[self.rank], 1)))
        return rows


def select_rows(order: Tensor, rows: Sequence[slice]) -> tuple[Tensor, list[int]]:
    """Select the samples of a process from those of all batches.

    Args:
        order: the samples of all batches, in order
        rows: the process's positions in this order, for each batch

    Returns:
        The process's samples, and how many of them each batch has.
    """
    selected = torch.cat([order[each] for each in rows]) if rows else order[:0]
    return selected, [each.stop - each.start for each in rows]
