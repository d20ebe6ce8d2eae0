"""The training passes of several runs over their training splits, made in one loop.

A step computes the forward and the backward pass of all members together. Everything else, such as clipping, the
update, the schedule, scores and callbacks, is each member's own. A member leaves the loop between two steps, with
everything as if it had trained alone, and its run goes on by itself from there: when it is interrupted, has reached
its last step, or when its next loss is not finite.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.formatting import first_line
from dlspec.training.criterion_interface import CriterionProtocol, total_loss
from dlspec.training.evaluation.scores import Scores
from dlspec.training.runtime.interruption import Interruption
from dlspec.training.stacking.member_values import MemberValues
from dlspec.training.stacking.stacked_network import StackedNetwork
from dlspec.training.state import TrainingState
from dlspec.training.step.step_functions import GradientClipping, detach_output

log = logging.getLogger("dlspec")


@dataclass(frozen=True)
class TrainingPass:
    """A run's pass over its training split, from the batch at which its state stands."""

    state: TrainingState
    criterion: CriterionProtocol
    clipping: GradientClipping
    update: Callable[[], None]  # makes the optimizer's step
    after_update: Callable[[], None]
    scores: Scores
    batches: BatchLoader
    order: Tensor  # the indices of the samples of the whole epoch
    listeners: Sequence[Callable[[TrainingState], None]]  # called after each step
    interruption: Interruption
    max_steps: int

    @property
    def network(self) -> nn.Module:
        """The network that is trained."""
        return self.state.network

    @property
    def must_leave(self) -> bool:
        """Whether the run has to go on by itself before the next step."""
        return self.interruption.signal != 0 or self.state.step >= self.max_steps

    @property
    def position(self) -> tuple[Any, ...]:
        """What has to be equal for passes in one loop: the batches, and the next one."""
        shapes = tuple((each.dtype, each.shape[1:]) for each in self.batches.tensors)
        return self.state.batch, tuple(self.batches.sizes), shapes


class StackedPass:
    """The passes of several members.

    Args:
        passes: the pass of each member; all are at the same position.
        network: their networks as one.
    """

    def __init__(self, passes: Sequence[TrainingPass], network: StackedNetwork) -> None:
        self.passes, self._network, self._generators = passes, network, network.generators
        self.errors: dict[int, BaseException] = {}  # of callbacks, by the member's index
        self._failing: Sequence[int] = ()  # members whose next loss is not finite; all if the step itself failed
        self._statistics = [buffer for each in network.networks for buffer in each.buffers()]
        self._gather = _make_gather([each.batches for each in passes])

    def run(self) -> None:
        """Train until the epoch's end, or until a member has to leave before the next step."""
        first = self.passes[0]
        sizes = first.batches.sizes
        rows = [torch.split(each.order, sizes) for each in self.passes]
        with torch.enable_grad():
            for batch in range(first.state.batch, len(sizes)):
                if any(each.must_leave for each in self.passes) or self.errors:
                    return
                if not self._step([each[batch] for each in rows], sizes[batch]):
                    return

    def find_leaving(self) -> list[int]:
        """Return the indices of the members that have to leave before the next step."""
        return [index for index, each in enumerate(self.passes) if each.must_leave or index in self._failing]

    def _step(self, rows: Sequence[Tensor], size: int) -> bool:
        """Train on one batch of each member; return False, with nothing changed, if that is impossible."""
        states = self._generators.get_states() if self._network.draws_numbers else []
        before = states, [each.clone() for each in self._statistics]
        try:
            results = self._compute_losses(rows)
            totals = torch.stack([total_loss(loss) for _, loss, _ in results])
            self._failing = _find_non_finite(totals)
            if not self._failing:
                self._network.compute_gradients(totals.sum())
        except Exception as error:  # of a layer or a loss: each member meets it, or not, by itself
            log.debug("jobs of a stack go on one by one: %s", first_line(error) or type(error).__name__)
            self._failing = range(len(self.passes))
        if self._failing:
            self._restore(*before)
            return False
        for index, (each, (output, loss, targets)) in enumerate(zip(self.passes, results, strict=True)):
            self._finish_step(index, each, detach_output(output), loss.detach(), targets, size)
        return True

    def _compute_losses(self, rows: Sequence[Tensor]) -> list[tuple[Any, Tensor, tuple[Tensor, ...]]]:
        """Compute output, loss and targets of each member."""
        inputs, targets = self._gather(rows)
        outputs = self._network(inputs)
        return [
            (output, each.criterion(output, own), own)
            for each, output, own in zip(self.passes, outputs, targets, strict=True)
        ]

    def _finish_step(
        self, index: int, member: TrainingPass, output: Any, loss: Tensor, targets: tuple[Tensor, ...], size: int
    ) -> None:
        """Update a member's weights, and tell its scores and callbacks."""
        state = member.state
        if member.clipping.is_enabled:
            member.clipping.clip(list(member.network.parameters()))
        member.update()
        member.after_update()
        with torch.no_grad():
            member.scores.add(output, loss, targets, size)
        state.batch += 1
        state.samples += size
        try:
            for listener in member.listeners:
                listener(state)
        except BaseException as error:
            self.errors[index] = error

    def _restore(self, generator_states: Sequence[Tensor], statistics: Sequence[Tensor]) -> None:
        if generator_states:
            self._generators.set_states(generator_states)
        with torch.no_grad():
            for buffer, saved in zip(self._statistics, statistics, strict=True):
                buffer.copy_(saved)


def _find_non_finite(totals: Tensor) -> list[int]:
    """Find the members whose loss is not finite."""
    is_finite = totals.detach().isfinite()
    return [] if bool(is_finite.all()) else (~is_finite).nonzero().flatten().tolist()


Gather = Callable[[Sequence[Tensor]], tuple[list[MemberValues], list[tuple[Tensor, ...]]]]


def _make_gather(loaders: Sequence[BatchLoader]) -> Gather:
    """Make the function that gathers the batches of all members: their inputs by tensor, their targets by member.

    If all members have the same data in memory, which is usual, each tensor is gathered once.
    """
    columns = list(zip(*(each.tensors for each in loaders), strict=True))
    is_shared = [len({each.data_ptr() for each in column}) == 1 for column in columns]
    inputs = loaders[0].input_count

    def gather(rows: Sequence[Tensor]) -> tuple[list[MemberValues], list[tuple[Tensor, ...]]]:
        together = torch.cat(list(rows))
        shape = (len(rows), len(rows[0]))
        values = [
            MemberValues(column[0].index_select(0, together).unflatten(0, shape))
            if shared
            else MemberValues(each=[each.index_select(0, own) for each, own in zip(column, rows, strict=True)])
            for column, shared in zip(columns, is_shared, strict=True)
        ]
        targets = list(zip(*(each.split() for each in values[inputs:]), strict=True))
        return values[:inputs], targets or [()] * len(rows)

    return gather
