"""The function that makes a training step of all members of a stack, to be compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlspec.training.criterion_interface import total_losses
from dlspec.training.stacking.dropout_masks import use_masks
from dlspec.training.step.block_function import BlockFunction, BlockResult
from dlspec.training.step.functional_step import StepTensors, TensorsByName


@dataclass(frozen=True)
class StackedBlock:
    """The steps of one run with a dimension for the members, the first one of all tensors but those of the split.

    A member whose loss is not finite keeps its tensors. Masks of dropout are given among the frozen parameters.
    """

    block: BlockFunction

    def __call__(
        self, tensors: StepTensors, frozen: TensorsByName, numbers: Tensor, split: Sequence[Tensor], rows: Tensor
    ) -> tuple[StepTensors, BlockResult]:
        """Compute the steps of a call, and change nothing.

        Args:
            tensors: what the steps change.
            frozen: the parameters that are not trained, and the masks of dropout.
            numbers: the optimizer's numbers at each step, (members, steps, numbers).
            split: the tensors of the whole split, which all members train on.
            rows: the samples of the batches, (members, batches * batch size).

        Returns:
            The new tensors; and the outputs and targets of all samples, and the losses of the batches. All of these
            have the dimension for the members.
        """
        make_steps = torch.func.vmap(self._make_steps, in_dims=(0, 0, 0, None, 0))
        with use_masks(self.block.step.network, list(frozen)):
            found: tuple[StepTensors, BlockResult] = make_steps(tensors, frozen, numbers, list(split), rows)
        return found

    def _make_steps(self, tensors: StepTensors, *others: Any) -> tuple[StepTensors, BlockResult]:
        """Make the steps of a member."""
        new, result = self.block(tensors, *others)
        is_finite = total_losses(result[1]).isfinite().all()
        return StepTensors(*(_choose(is_finite, *pair) for pair in zip(new, tensors, strict=True))), result


def _choose(condition: Tensor, new: Any, old: Any) -> Any:
    """Choose between the tensors of nested mappings with equal keys."""
    if isinstance(new, Tensor):
        return torch.where(condition, new, old)
    return {name: _choose(condition, each, old[name]) for name, each in new.items()}
