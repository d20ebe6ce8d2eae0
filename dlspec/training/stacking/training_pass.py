"""A run's pass over its training split, as a stack sees it, and the batches of several runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.optim.schedule import Schedule
from dlspec.optim.weight_averages import MovingAverage
from dlspec.training.evaluation.scores import Scores
from dlspec.training.runtime.interruption import Interruption
from dlspec.training.stacking.member_values import MemberValues
from dlspec.training.state import TrainingState
from dlspec.training.step.compute_backend import ComputeBackend


@dataclass(frozen=True)
class TrainingPass:
    """A run's pass over its training split, from the batch at which its state stands."""

    state: TrainingState
    backend: ComputeBackend
    schedule: Schedule | None
    scores: Scores
    batches: BatchLoader
    order: Tensor  # the indices of the samples of the whole epoch
    listeners: Sequence[Callable[[TrainingState], None]]  # called after each step
    accepts_several_steps: bool  # whether the listeners may be called once for several steps
    interruption: Interruption
    max_steps: int

    @property
    def network(self) -> nn.Module:
        """The network that is trained."""
        return self.state.network

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer that trains it."""
        assert self.state.optimizer is not None  # else nothing is trained
        return self.state.optimizer

    @property
    def moving_average(self) -> MovingAverage | None:
        """The average of the weights that each step updates."""
        average = self.state.average
        return average if isinstance(average, MovingAverage) else None

    @property
    def compiles_steps(self) -> bool:
        """Whether the settings ask for compiled steps."""
        return self.backend.settings.compile == "step"

    @property
    def must_leave(self) -> bool:
        """Whether the run has to go on by itself before the next step."""
        return self.interruption.signal != 0 or self.state.step >= self.max_steps

    @property
    def remaining_steps(self) -> int:
        """The number of steps that the run still plans to make."""
        return max(self.state.planned_steps - self.state.step, 0)

    @property
    def position(self) -> tuple[Any, ...]:
        """What has to be equal for passes in one loop: the batches, and the next one."""
        shapes = tuple((each.dtype, each.shape[1:]) for each in self.batches.tensors)
        return self.state.batch, tuple(self.batches.sizes), shapes

    def prepare_update(self) -> Callable[[], None]:
        """Clip the gradients, and return the function that updates the weights by them."""
        if self.backend.clipping.is_enabled:
            self.backend.clipping.clip(list(self.network.parameters()))
        return self.backend.find_update(self.optimizer)

    def finish_update(self, *, is_averaged: bool) -> None:
        """Count an update of the weights, and update the schedule and the average.

        Args:
            is_averaged: whether the average has been updated already.
        """
        self.state.step += 1
        if is_averaged and self.moving_average is not None:
            self.moving_average.count_updates(1)
        elif self.state.average:
            self.state.average.after_step()
        if self.schedule:
            self.schedule.after_step()

    def finish_batches(self, sizes: Sequence[int]) -> None:
        """Count finished batches of these sizes, and call the listeners."""
        self.state.batch += len(sizes)
        self.state.samples += sum(sizes)
        for listener in self.listeners:
            listener(self.state)


Gather = Callable[[Tensor], tuple[list[MemberValues], list[MemberValues]]]


def make_gather(loaders: Sequence[BatchLoader]) -> Gather:
    """Make the function that gathers the batches of all members: their inputs and their targets.

    If all members have the same data in memory, which is usual, each tensor is gathered once.

    Args:
        loaders: the batches of each member's training split.

    Returns:
        A function of the indices of the samples, (members, batch size).
    """
    columns = list(zip(*(each.tensors for each in loaders), strict=True))
    is_shared = [len({each.data_ptr() for each in column}) == 1 for column in columns]
    inputs = loaders[0].input_count

    def gather(rows: Tensor) -> tuple[list[MemberValues], list[MemberValues]]:
        together = rows.flatten()
        values = [
            MemberValues(column[0].index_select(0, together).unflatten(0, rows.shape))
            if shared
            else MemberValues(each=[each.index_select(0, own) for each, own in zip(column, rows.unbind(), strict=True)])
            for column, shared in zip(columns, is_shared, strict=True)
        ]
        return values[:inputs], values[inputs:]

    return gather
