"""The training passes of several runs over their training splits, made in one loop.

A step computes the forward and the backward pass of all members together, and if it is compiled the updates, too.
Everything else, such as the schedule, scores and callbacks, is each member's own. A member leaves the loop between two
steps, with everything as if it had trained alone, and its run goes on by itself from there: when it is interrupted, has
reached its last step, or when its next loss is not finite.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from dlspec.compat.torch_optim import FusedStep, run_fused_steps
from dlspec.data.batches.tensor_tree import combine_tensors, map_tensors
from dlspec.formatting import first_line
from dlspec.training.criterion_interface import total_losses
from dlspec.training.stacking.compiled_stack import CompiledStack, find_non_finite
from dlspec.training.stacking.stacked_loss import StackedLoss
from dlspec.training.stacking.stacked_network import StackedNetwork
from dlspec.training.stacking.training_pass import TrainingPass, make_gather
from dlspec.training.step.block_function import BlockResult

MAX_STEPS_BETWEEN_CALLBACKS = 8  # what follows a step in Python takes longer than a short step

log = logging.getLogger("dlspec")


class StackedPass:
    """The passes of several members.

    Args:
        passes: the pass of each member; all are at the same position.
        network: their networks as one.
        compiled: makes steps in a call; None for steps that are not compiled.
    """

    def __init__(
        self, passes: Sequence[TrainingPass], network: StackedNetwork, compiled: CompiledStack | None = None
    ) -> None:
        self.passes, self._network, self._generators = passes, network, network.generators
        self.errors: dict[int, BaseException] = {}  # by the member's index; its own run raises it when it continues
        self._failing: Sequence[int] = ()  # members whose next loss is not finite; all if the step itself failed
        self._statistics = [buffer for each in network.networks for buffer in each.buffers()]
        self._sizes = passes[0].batches.sizes
        self._starts = list(accumulate(self._sizes, initial=0))
        self._orders = torch.stack([each.order for each in passes])  # (members, samples)
        unused = 0 if compiled is None else max(compiled.places - len(passes), 0)
        self._padded_orders = torch.cat([self._orders, self._orders[:1].expand(unused, -1)])  # (places, samples)
        self._gather = make_gather([each.batches for each in passes])
        self._compute_losses = StackedLoss([each.backend.criterion for each in passes])
        self._compiled, self._is_prepared = compiled, False
        network.find_weights()

    def run(self) -> None:
        """Train until the epoch's end, or until a member has to leave before the next step."""
        state = self.passes[0].state
        with torch.enable_grad():
            while state.batch < len(self._sizes):
                if self.find_leaving() or self.errors:
                    return
                count = self._count_compiled_steps(state.batch)
                if count:
                    self._run_compiled_steps(state.batch, count)
                else:
                    self._run_single_steps(state.batch, self._count_steps(state.batch) if self._compiled is None else 1)

    def find_leaving(self) -> list[int]:
        """Return the indices of the members that have to leave before the next step."""
        return [index for index, each in enumerate(self.passes) if each.must_leave or index in self._failing]

    def _count_steps(self, batch: int) -> int:
        """Return how many steps follow until callbacks have to be called."""
        limit = MAX_STEPS_BETWEEN_CALLBACKS if all(each.accepts_several_steps for each in self.passes) else 1
        rest = len(self._sizes) - batch
        return min(limit, rest, *(each.max_steps - each.state.step for each in self.passes))

    # ---- compiled steps ----------------------------------------------------------------------------------------------

    def _count_compiled_steps(self, batch: int) -> int:
        """Return how many compiled steps follow until callbacks have to be called; 0 if the next is not compiled."""
        if self._compiled is None or self._sizes[batch] != self._compiled.batch_size:
            return 0
        if not self._is_prepared:
            if not self._compiled.prepare(self.passes, self._network):
                return 0
            self._is_prepared = True
            self._network.find_weights()  # they may have moved
        end = batch + self._count_steps(batch)
        return sum(each == self._compiled.batch_size for each in self._sizes[batch:end])

    def _run_compiled_steps(self, batch: int, count: int) -> None:
        """Make several compiled steps, then add them to the scores and call the callbacks."""
        assert self._compiled is not None
        results: list[BlockResult] = []
        for one in range(batch, batch + count):
            rows = self._padded_orders[:, self._starts[one] : self._starts[one + 1]].contiguous()
            result, self._failing = self._compiled.step(rows)
            results.append(result)
            for index, each in enumerate(self.passes):
                if index not in self._failing:
                    each.finish_update(is_averaged=True)
            if self._failing:
                break
        self._finish_steps(batch, results, failed_last=self._failing)

    # ---- other steps -------------------------------------------------------------------------------------------------

    def _run_single_steps(self, batch: int, count: int) -> None:
        """Make several steps, then add them to the scores and call the callbacks."""
        results: list[BlockResult] = []
        for one in range(batch, batch + count):
            result = self._step(one)
            if result is None:
                break
            results.append(result)
            if self.errors:
                break
        self._finish_steps(batch, results)

    def _step(self, batch: int) -> BlockResult | None:
        """Train on one batch of each member, and return the results, with the members in the first dimension.

        If that is impossible, nothing is changed, some members are failing, and None is returned.
        """
        rows = self._orders[:, self._starts[batch] : self._starts[batch + 1]]
        states = self._generators.get_states() if self._network.draws_numbers else []
        before = states, [each.clone() for each in self._statistics]
        try:
            inputs, targets = self._gather(rows)
            outputs = self._network(inputs)
            losses = self._compute_losses(outputs, targets)
            totals = total_losses(losses.stack())
            self._failing = find_non_finite(totals)
            result = outputs.stack_tree(), losses.stack().detach().unsqueeze(1), tuple(each.stack() for each in targets)
            if not self._failing:
                self._network.compute_gradients(totals.sum())
        except Exception as error:  # of a layer or a loss: each member meets it, or not, by itself
            log.debug("jobs of a stack go on one by one: %s", first_line(error) or type(error).__name__)
            self._failing = range(len(self.passes))
        if self._failing:
            self._restore(*before)
            return None
        self._update_weights()
        return result

    def _update_weights(self) -> None:
        """Update the weights of all members by their gradients; an error ends only the run of its member."""
        fused: list[FusedStep] = []
        with torch.no_grad():
            for index, each in enumerate(self.passes):
                try:
                    update = each.prepare_update()
                    if isinstance(update, FusedStep):
                        fused.append(update)
                    else:
                        update()
                except BaseException as error:
                    self.errors[index] = error
            run_fused_steps(fused)
            for index, each in enumerate(self.passes):
                try:
                    each.finish_update(is_averaged=False)
                except BaseException as error:
                    self.errors.setdefault(index, error)

    # ---- after steps -------------------------------------------------------------------------------------------------

    def _finish_steps(self, batch: int, results: Sequence[BlockResult], failed_last: Collection[int] = ()) -> None:
        """Add steps to the scores and call the callbacks.

        Args:
            batch: the batch of the first step.
            results: the results of the steps, with the members in the first dimension.
            failed_last: the members for which the last of these steps was not made.
        """
        if not results:
            return
        outputs, losses, targets = _join_steps(results)
        for index, each in enumerate(self.passes):
            finished = len(results) - (index in failed_last)
            sizes = self._sizes[batch : batch + finished]
            if finished:
                select = partial(_select_samples, member=index, samples=sum(sizes))
                own_outputs, own_targets = map_tensors(select, (outputs, targets))
                with torch.no_grad():
                    each.scores.add_block(own_outputs, losses[index, :finished], own_targets, sizes)
                try:
                    each.finish_batches(sizes)
                except BaseException as error:
                    self.errors.setdefault(index, error)

    def _restore(self, generator_states: Sequence[Tensor], statistics: Sequence[Tensor]) -> None:
        if generator_states:
            self._generators.set_states(generator_states)
        with torch.no_grad():
            for buffer, saved in zip(self._statistics, statistics, strict=True):
                buffer.copy_(saved)


def _select_samples(tensor: Tensor, member: int, samples: int) -> Tensor:
    """Select a member's first samples from (members, samples, ...), or its number from (members,)."""
    return tensor[member, :samples] if tensor.dim() > 1 else tensor[member]


def _join_steps(results: Sequence[BlockResult]) -> BlockResult:
    """Join the outputs and targets of steps to tensors (members, samples, ...), and the losses to (members, steps).

    Of outputs that are a number for each member, the first is kept: no target is predicted from them.
    """
    if len(results) == 1:
        return results[0]
    outputs, targets = combine_tensors(_join_samples, [(output, targets) for output, _, targets in results])
    return outputs, torch.cat([losses for _, losses, _ in results], 1), targets


def _join_samples(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(tensors), 1) if tensors[0].dim() > 1 else tensors[0]
