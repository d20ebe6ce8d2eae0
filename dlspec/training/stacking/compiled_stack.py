"""Training steps of all members of a stack in one call of a compiled function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dlspec.data.batches.tensor_tree import combine_tensors, iterate_tensors, map_tensors
from dlspec.optim.update_rules import NoUpdateRule, find_update_rule
from dlspec.training.stacking.dropout_masks import DropoutMasks
from dlspec.training.stacking.stacked_block import StackedBlock
from dlspec.training.stacking.stacked_network import StackedNetwork
from dlspec.training.stacking.stacked_tensors import stack_in_place
from dlspec.training.stacking.training_pass import TrainingPass
from dlspec.training.step.block_function import BlockFunction, BlockResult, BlockSize, FlatFunction
from dlspec.training.step.compiled_blocks import compile_step
from dlspec.training.step.functional_step import FunctionalStep, TensorsByName
from dlspec.training.step.run_tensors import RunTensors


class CompiledStack:
    """Makes the steps of members in one call. If they can't be compiled, `prepare` returns False.

    It is compiled once, for the members that it has at first. Later there may be fewer: the places of the others
    compute, too, with tensors that nobody reads.

    Args:
        members: the passes of the members.
        announce: is given what the user should know.
    """

    def __init__(self, members: Sequence[TrainingPass], announce: Callable[[str], None]) -> None:
        self.places, self._announce = len(members), announce
        self._networks = {id(each.network) for each in members}
        self._batches = members[0].batches
        self._size = BlockSize(1, 1, self._batches.sizes[0])
        self._function: FlatFunction | None = None
        self._has_failed = False
        self._unused: list[Any] = []  # tensors of places without a member
        self._members: Sequence[TrainingPass] = ()
        self._runs: Sequence[RunTensors] = ()
        self._numbers: tuple[Any, Tensor] | None = None
        self._tensors: Sequence[Tensor] = ()
        self._masks: DropoutMasks | None = None
        self._has_masks, self._structure = False, ""  # of the compiled function's arguments

    def has_room_for(self, members: Sequence[TrainingPass]) -> bool:
        """Whether these are some of the members for which the function was or will be compiled."""
        return {id(each.network) for each in members} <= self._networks

    @property
    def batch_size(self) -> int:
        """The number of samples in each member's batch."""
        return self._size.batch_size

    def prepare(self, members: Sequence[TrainingPass], network: StackedNetwork) -> bool:
        """Take the tensors of these members, and compile the function if that is not done.

        Args:
            members: the passes of the members.
            network: their networks as one.

        Returns:
            False if that is impossible: for example before the first step, which creates the optimizers' states.
        """
        try:
            return not self._has_failed and self._prepare(members, network)
        except NoUpdateRule as error:
            self._announce(f"the steps of {self.places} jobs are not compiled: {error}")
            self._has_failed = True
            return False

    def _prepare(self, members: Sequence[TrainingPass], network: StackedNetwork) -> bool:
        trees = self._collect(members)
        if self._function is None:
            self._has_masks = network.draws_numbers
        masks = DropoutMasks(network, self.places, self.batch_size) if self._has_masks else None
        if not trees or not (masks is None or masks.is_complete):
            return False
        tensors, frozen = self._stack(trees)
        self._masks, stacked = masks, (tensors, {**frozen, **(masks.by_name if masks else {})})
        structure = str(map_tensors(_describe_tensor, stacked))
        self._tensors = [*iterate_tensors(stacked), *self._batches.tensors]
        if self._function is None:
            self._function, self._structure = self._compile(stacked), structure
        return self._function is not None and structure == self._structure

    def step(self, rows: Tensor) -> tuple[BlockResult, list[int]]:
        """Make a step of all members. `prepare` must have returned True.

        Args:
            rows: the samples of each member's batch, (places, batch size); those of missing members do not matter.

        Returns:
            The outputs and targets, (places, batch size, ...), and the losses (places, 1) or (places, 1, 1 + terms).
            And the indices of members whose loss is not finite: their step was not made.
        """
        assert self._function is not None
        states = self._masks.draw() if self._masks else ()
        result = self._function(self._make_numbers(), rows, self._tensors)
        failing = find_non_finite(result[1][: len(self._members)])
        if self._masks and failing:
            self._masks.restore(states, failing)
        return result, failing

    def _collect(self, members: Sequence[TrainingPass]) -> list[Any]:
        """Collect the tensors of each member; none if some do not exist yet, or if they differ in shape."""
        self._members = members
        self._runs = [RunTensors(each.network, each.optimizer, each.moving_average) for each in members]
        if any(each.moving_average is not None and not each.moving_average.has_values for each in members):
            return []
        collected = [each.collect() for each in self._runs]
        if self._function is None and not all(is_complete for _, _, is_complete in collected):
            return []
        trees = [(tuple(tensors), frozen) for tensors, frozen, _ in collected]
        structures = {str(map_tensors(_describe_tensor, each)) for each in trees}
        return trees if len(structures) == 1 else []

    def _stack(self, trees: list[Any]) -> tuple[Any, TensorsByName]:
        """Stack the tensors of all members and of places without one."""
        while len(self._unused) < self.places - len(trees):
            self._unused.append(map_tensors(lambda each: each.detach().clone(), trees[0]))
        all_trees = [*trees, *self._unused[: self.places - len(trees)]]
        tensors, frozen = combine_tensors(stack_in_place, all_trees)
        return tensors, frozen

    def _make_numbers(self) -> Tensor:
        """Make the tensor of all numbers of the next step, (places, 1, numbers)."""
        rows = []
        for each, run in zip(self._members, self._runs, strict=True):
            factors = each.backend.criterion.factors
            rows.append([*run.read_numbers(), *(factors if len(factors) > 1 else ())])
        if self._numbers is None or self._numbers[0] != rows:
            padded = [*rows, *([rows[0]] * (self.places - len(rows)))]
            self._numbers = rows, torch.tensor(padded, dtype=torch.float64).unsqueeze(1)
        return self._numbers[1]

    def _compile(self, stacked: Any) -> FlatFunction | None:
        first, run = self._members[0], self._runs[0]
        backend = first.backend
        groups = zip(*(each.optimizer.param_groups for each in self._members), strict=True)
        rules = [find_update_rule(first.optimizer, each) for each in groups]
        indices = {name: index for name, (_, index) in run.find_rules(stacked[0][2]).items()}
        decay = first.moving_average.decay if first.moving_average else 0.0
        step = FunctionalStep(
            first.network, backend.criterion, backend.clipping, backend.precision,
            {name: (rules[index], index) for name, index in indices.items()}, decay,
        )  # fmt: skip
        block = StackedBlock(BlockFunction(step, self._size, run.number_names, self._batches.input_count))
        function = FlatFunction(block, (*stacked, self._batches.tensors))
        rows = torch.zeros(self.places, self.batch_size, dtype=torch.int64)
        if compile_step(
            function, step, self._make_numbers(), rows, f"the training step of {self.places} jobs", self._announce
        ):
            return function
        self._has_failed = True
        return None


def find_non_finite(losses: Tensor) -> list[int]:
    """Find the members whose loss is not finite.

    Args:
        losses: (members,), (members, steps) or (members, steps, 1 + terms).
    """
    totals = losses[..., 0] if losses.dim() > 2 else losses
    is_finite = totals.detach().isfinite()
    return [] if bool(is_finite.all()) else (~is_finite.reshape(len(losses), -1).all(1)).nonzero().flatten().tolist()


def _describe_tensor(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype
