"""A batch that was evaluated: the network's output and the targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dlspec.data.batches.tensor_tree import map_tensors
from dlspec.training.criterion_interface import Targets


@dataclass(frozen=True)
class EvaluatedBatch:
    """The network's output for a batch, its targets, and its number of samples."""

    output: Any  # tensors, also in tuples, lists and mappings
    targets: Targets
    count: int

    def select(self, rows: Tensor) -> EvaluatedBatch:
        """Select samples by their indices."""
        output, targets = self._map(lambda each: each[rows.to(each.device)])
        return EvaluatedBatch(output, targets, len(rows))

    def select_one(self, row: int) -> EvaluatedBatch:
        """Select one sample, as a batch of its own."""
        output, targets = self._map(lambda each: each[row : row + 1])
        return EvaluatedBatch(output, targets, 1)

    def _map(self, select: Any) -> Any:
        """Apply a selection to all tensors that have samples; a penalty of the whole batch is kept."""
        return map_tensors(
            lambda each: select(each) if each.dim() and len(each) == self.count else each, (self.output, self.targets)
        )
