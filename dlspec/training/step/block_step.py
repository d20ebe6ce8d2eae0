"""Blocks as the training loop sees them: which batches of an epoch form a block, and what follows its updates."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from torch import Tensor

from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.data.batches.prefetching import Batch
from dlspec.optim.schedule import Schedule
from dlspec.training.criterion_interface import total_losses
from dlspec.training.state import TrainingState
from dlspec.training.step.block_function import BlockResult
from dlspec.training.step.compiled_blocks import CompiledBlocks, StepNumbers

MAX_AUTO_STEPS = 12  # in one call: more are hardly faster, and compiling takes longer for each of them
# The cost of a step outside of a block, in calls: its Python takes as long as about eight calls.
CALLS_PER_EAGER_STEP = 8
# Longer steps gain nothing from sharing a call. Both were chosen so that a step takes about a millisecond on one core.
MAX_SHORT_PRODUCTS = 2**22  # batch size times weights
MAX_SHORT_OUTPUTS = 2**17  # batch size times the values of the largest layer's output


@dataclass(frozen=True)
class RowBlock:
    """Several batches for one call of the compiled function."""

    rows: Tensor  # the samples of all batches, (samples,)
    batches: int


@dataclass(frozen=True)
class BlockStep:
    """Makes the steps of a block, steps the schedule after each of them, and counts them."""

    blocks: CompiledBlocks
    state: TrainingState
    schedule: Schedule | None
    check_loss: Callable[[Tensor], None]  # called after the updates
    max_steps: int | None

    def can_run(self) -> bool:
        """Return whether the next steps of the epoch can be a block."""
        state, size = self.state, self.blocks.size
        return (
            state.batch % size.accumulate == 0
            and state.step + size.steps <= (self.max_steps or sys.maxsize)
            and self.blocks.can_run(is_first_update=state.batch == 0)
        )

    def __call__(self, block: RowBlock) -> BlockResult:
        """Make the steps of a block. `can_run` must have returned True."""
        result = self.blocks(block.rows, self._step_schedule())
        losses = result[1]
        self.check_loss(total_losses(losses).sum())
        self.state.step += self.blocks.size.steps
        return result

    @cached_property
    def _constant_numbers(self) -> Sequence[StepNumbers]:
        return [self.blocks.read_numbers()] * self.blocks.size.steps

    def _step_schedule(self) -> Sequence[StepNumbers]:
        """Step the schedule as after each step of the block, and return the optimizer's numbers at each step."""
        steps, numbers = self.blocks.size.steps, list[StepNumbers]()
        if self.schedule is None or not self.schedule.follows_steps:
            return self._constant_numbers
        for _ in range(steps):
            numbers.append(self.blocks.read_numbers())
            self.schedule.after_step()
        return numbers


def iterate_blocks(
    batches: BatchLoader, order: Tensor, state: TrainingState, block_step: BlockStep
) -> Iterator[Batch | RowBlock]:
    """Yield the rest of an epoch from `state.batch` on, which the loop advances: blocks, and batches between them.

    Args:
        batches: the batches of the training split.
        order: the samples of the epoch.
        state: the run's state.
        block_step: tells whether the next steps can be a block.
    """
    size, rows = block_step.blocks.size, order.to(batches.tensors[0].device)
    starts = [0, *accumulate(batches.sizes)]
    num_whole = count_whole_batches(batches, size.batch_size)
    while state.batch < len(batches):
        last = state.batch + size.batches
        if last <= num_whole and block_step.can_run():
            yield RowBlock(rows[starts[state.batch] : starts[last]], size.batches)
        else:
            yield batches.gather(rows[starts[state.batch] : starts[state.batch + 1]])


def count_whole_batches(batches: BatchLoader, batch_size: int) -> int:
    """Count the batches of an epoch before the last one, if that has another size."""
    return len(batches) - bool(batches.sizes and batches.sizes[-1] != batch_size)


def choose_steps_per_call(updates: int, accumulate: int, *, is_short: bool) -> int:
    """Choose how many steps a call makes, so that few steps of an epoch remain outside of a call.

    Args:
        updates: the number of updates of an epoch with whole batches.
        accumulate: the number of batches of an update.
        is_short: whether a step is so short that it pays to make several in a call.
    """

    def count_cost(steps: int) -> int:
        return updates // steps + CALLS_PER_EAGER_STEP * (updates % steps)

    return min(range(1, max(MAX_AUTO_STEPS // accumulate, 1) + 1), key=count_cost) if is_short else 1
