"""Values of all members of a stack: one tensor with the members in the first dimension, or a list with one of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlspec.data.batches.tensor_tree import combine_tensors


class MemberValues:
    """One value of each member. A stacked tensor is split, or a list is stacked, only where a layer needs it.

    Args:
        stacked: (members, ...); None if there is only the list.
        each: one value of each member, not always a tensor; None if there is only the stacked tensor.
    """

    def __init__(self, stacked: Tensor | None = None, each: Sequence[Any] | None = None) -> None:
        self._stacked, self._each = stacked, each

    def stack(self) -> Tensor:
        """Return the values as one tensor (members, ...)."""
        if self._stacked is None:
            assert self._each is not None  # there is one of both
            self._stacked = torch.stack(list(self._each))
        return self._stacked

    def split(self) -> Sequence[Any]:
        """Return a list with the value of each member."""
        if self._each is None:
            assert self._stacked is not None  # there is one of both
            self._each = self._stacked.unbind()
        return self._each

    def stack_tree(self) -> Any:
        """Return the values without gradients, stacked as `stack` does; of nested ones, each of their tensors."""
        if self._stacked is not None:
            return self._stacked.detach()
        with torch.no_grad():
            return combine_tensors(lambda tensors: torch.stack(list(tensors)), self.split())

    def count_dimensions(self) -> int:
        """Return the number of dimensions of each member's tensor."""
        return self._stacked.dim() - 1 if self._stacked is not None else int(self.split()[0].dim())

    def can_stack(self) -> bool:
        """Whether the values are tensors of one shape that lie in memory as their parts of a stacked tensor would.

        A mask of dropout is drawn in the order of the memory.
        """
        if self._stacked is not None:
            return True
        first, *_ = values = self.split()
        return all(isinstance(each, Tensor) and each.is_contiguous() and each.shape == first.shape for each in values)
