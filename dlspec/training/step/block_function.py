"""The function that makes several training steps in one call, to be compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlspec.compat.torch_inductor import compile_tensor_function
from dlspec.data.batches.tensor_tree import iterate_tensors, map_tensors
from dlspec.data.files.download import find_cache_folder
from dlspec.training.criterion_interface import Targets
from dlspec.training.evaluation.buffered_steps import concatenate_outputs
from dlspec.training.step.functional_step import FunctionalStep, StepTensors, TensorsByName
from dlspec.training.step.step_functions import Inputs

BlockResult = tuple[Any, Tensor, Targets]  # outputs and targets of all samples of a block, losses of its batches
# The steps of a block; its arguments are those of `BlockFunction`.
Block = Callable[[StepTensors, TensorsByName, Tensor, Sequence[Tensor], Tensor], tuple[StepTensors, BlockResult]]


@dataclass(frozen=True)
class BlockSize:
    """How many steps a call makes, and of how many batches of what size."""

    steps: int
    accumulate: int  # batches of a step
    batch_size: int

    @property
    def batches(self) -> int:
        """The number of batches of a call."""
        return self.steps * self.accumulate


@dataclass(frozen=True)
class BlockFunction:
    """The function to compile: the steps of a block, from the tensors of the whole split and the rows to gather."""

    step: FunctionalStep
    size: BlockSize
    names: Sequence[Sequence[str]]  # of the numbers of each parameter group
    num_inputs: int  # of the split's tensors; the others are targets

    def __call__(
        self, tensors: StepTensors, frozen: TensorsByName, numbers: Tensor, split: Sequence[Tensor], rows: Tensor
    ) -> tuple[StepTensors, BlockResult]:
        """Compute all steps of a call, and change nothing.

        Args:
            tensors: what the steps change.
            frozen: the parameters that are not trained.
            numbers: the optimizer's numbers at each step, (steps, numbers).
            split: the tensors of the whole split: inputs, then targets.
            rows: the samples of the block's batches, (batches * batch size,).

        Returns:
            The new tensors; and the outputs and targets of all samples, and the losses of the batches.
        """
        gathered = [each.index_select(0, rows) for each in split]
        batches = list(zip(*(torch.split(each, self.size.batch_size) for each in gathered), strict=True))
        new, results = tensors, []
        for step in range(self.size.steps):
            start = step * self.size.accumulate
            own = [self._split_batch(each) for each in batches[start : start + self.size.accumulate]]
            named, factors = self._name_numbers(numbers[step])
            with _use_factors(self.step.criterion, factors):
                new, found = self.step(new, frozen, named, own)
            results += found
        losses = torch.stack([loss.detach() for _, loss in results])
        outputs = concatenate_outputs([output for output, _ in results])
        return new, (outputs, losses, tuple(gathered[self.num_inputs :]))

    def _split_batch(self, batch: tuple[Tensor, ...]) -> tuple[Inputs, Targets]:
        return batch[: self.num_inputs], batch[self.num_inputs :]

    def _name_numbers(self, numbers: Tensor) -> tuple[list[dict[str, Tensor]], list[Tensor]]:
        """Split the numbers of a step into those of each parameter group, by name, and the factors of loss terms."""
        values = iter(numbers.unbind())
        return [{name: next(values) for name in names} for names in self.names], list(values)


class FlatFunction:
    """A block function whose arguments and results are lists of tensors, as the compiler takes them.

    Args:
        block: the function.
        arguments: the changed tensors (`StepTensors`), the frozen parameters and the tensors of the split, for their
            structure.
    """

    def __init__(self, block: Block, arguments: tuple[Sequence[Any], TensorsByName, Sequence[Tensor]]) -> None:
        self._block, self._arguments = block, arguments
        self._output: Any = None  # for its structure
        self._run: Callable[..., Sequence[Tensor]] = self._run_flat

    def compile(self, numbers: Tensor, rows: Tensor, options: Mapping[str, Any]) -> None:
        """Compile the function for arguments of these shapes.

        Args:
            numbers: the optimizer's numbers at each step, as an example.
            rows: the samples of the block's batches, as an example.
            options: options of Inductor.
        """
        arguments = (numbers, rows, *iterate_tensors(self._arguments))
        self._run = compile_tensor_function(self._run_flat, arguments, options, find_cache_folder("inductor"))

    def __call__(self, numbers: Tensor, rows: Tensor, tensors: Sequence[Tensor]) -> BlockResult:
        """Run the function.

        Args:
            numbers: the optimizer's numbers at each step.
            rows: the samples of the block's batches.
            tensors: the other arguments, as a list.
        """
        losses, *others = self._run(numbers, rows, *tensors)
        if losses.is_cuda:  # a recorded graph writes its next results into the same memory
            losses, others = losses.clone(), [each.clone() for each in others]
        remaining = iter(others)
        output = map_tensors(lambda _: next(remaining), self._output)
        return output, losses, tuple(remaining)

    def _run_flat(self, numbers: Tensor, rows: Tensor, *tensors: Tensor) -> list[Tensor]:
        remaining = iter(tensors)
        changed, frozen, split = map_tensors(lambda _: next(remaining), self._arguments)
        old = StepTensors(*changed)
        new, (output, losses, targets) = self._block(old, frozen, numbers, split, rows)
        _copy_in_place(old, new)
        self._output = output
        return [losses, *iterate_tensors(output), *targets]


@contextmanager
def _use_factors(criterion: Any, factors: Sequence[Tensor]) -> Iterator[None]:
    """Let a criterion multiply its terms by tensors inside the context: numbers would be constants of compiled code."""
    before = criterion.factors
    if factors:
        criterion.factors = list(factors)
    try:
        yield
    finally:
        if factors:
            criterion.factors = before


def _copy_in_place(old: StepTensors, new: StepTensors) -> None:
    """Copy new tensors into those that a step changes."""
    for old_tensors, new_tensors in (
        (old.weights, new.weights),
        (old.buffers, new.buffers),
        (old.averages, new.averages),
    ):
        for name, each in old_tensors.items():
            each.copy_(new_tensors[name])
    for name, state in old.states.items():
        for key, each in state.items():
            each.copy_(new.states[name][key])
