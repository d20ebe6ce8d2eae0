"""Decide whether compiled steps run in blocks, how many steps a call makes, and say so in the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.optim.update_rules import NoUpdateRule
from dlspec.optim.weight_averages import MovingAverage
from dlspec.training.components import Optimization
from dlspec.training.health.nan_guard import NanGuard
from dlspec.training.state import TrainingState
from dlspec.training.step.block_function import BlockSize
from dlspec.training.step.block_step import (
    MAX_SHORT_OUTPUTS,
    MAX_SHORT_PRODUCTS,
    BlockStep,
    choose_steps_per_call,
    count_whole_batches,
)
from dlspec.training.step.compiled_blocks import CompiledBlocks
from dlspec.training.step.compute_backend import ComputeBackend
from dlspec.training.step.functional_step import FunctionalStep

log = logging.getLogger("dlspec")


class BlockFactory:
    """Makes the block step of each epoch; the compiled function is kept.

    Args:
        state: the run's state.
        backend: computes the steps.
        optimization: the optimizer and its schedule.
        guard: checks the losses.
    """

    def __init__(
        self, state: TrainingState, backend: ComputeBackend, optimization: Optimization, guard: NanGuard
    ) -> None:
        self._state, self._backend, self._optimization, self._guard = state, backend, optimization, guard
        self._blocks: CompiledBlocks | None = None
        self._is_chosen = False
        # Whether the steps are not compiled at all: recurrent layers would be unrolled, operation by operation.
        self.runs_eagerly = any(isinstance(each, nn.RNNBase | nn.RNNCellBase) for each in backend.network.modules())

    def make_block_step(self, batches: BatchLoader, step_listeners: Sequence[str]) -> BlockStep | None:
        """Make the block step of an epoch; None if the steps do not run in blocks.

        Args:
            batches: the batches of the training split.
            step_listeners: the names of the callbacks that must be called after each step.
        """
        optimizer, settings = self._optimization.optimizer, self._backend.settings
        if settings.compile != "step" or optimizer is None or self._guard.checks_before_update:
            return None
        if not self._is_chosen:
            self._is_chosen, self._blocks = True, self._make_blocks(optimizer, batches, step_listeners)
        if self._blocks is None:
            return None
        self._blocks.start_epoch()
        check = self._guard.make_late_loss_check(self._guard.make_loss_check())
        return BlockStep(self._blocks, self._state, self._optimization.schedule, check, settings.max_steps)

    def _make_blocks(
        self, optimizer: Optimizer, batches: BatchLoader, step_listeners: Sequence[str]
    ) -> CompiledBlocks | None:
        if self.runs_eagerly:
            log.warning("trainer.compile: steps with recurrent layers run eagerly, which is faster")
            return None
        if not batches.gathers_by_index:
            log.info("trainer.compile: each step is a call, because its batch is gathered before it")
            return None
        backend, average = self._backend, self._state.average
        size = self._choose_size(batches, step_listeners)
        step = FunctionalStep(backend.network, backend.criterion, backend.clipping, backend.precision, {})
        moving = average if isinstance(average, MovingAverage) else None
        try:
            blocks = CompiledBlocks(step, optimizer, moving, batches, size)
        except NoUpdateRule as error:
            log.info("trainer.compile: each step is a call, because %s", error)
            return None
        self._describe(batches, size, step_listeners)
        return blocks

    def _choose_size(self, batches: BatchLoader, step_listeners: Sequence[str]) -> BlockSize:
        settings = self._backend.settings
        batch_size, steps = settings.initial_batch_size, settings.steps_per_call
        if steps == "auto":
            num_updates = count_whole_batches(batches, batch_size) // settings.accumulate
            steps = choose_steps_per_call(num_updates, settings.accumulate, is_short=self._has_short_steps(batch_size))
        return BlockSize(1 if step_listeners else steps, settings.accumulate, batch_size)

    def _has_short_steps(self, batch_size: int) -> bool:
        num_weights = sum(each.numel() for each in self._backend.network.parameters())
        outputs = batch_size * self._backend.max_layer_outputs
        return batch_size * num_weights <= MAX_SHORT_PRODUCTS and outputs <= MAX_SHORT_OUTPUTS

    def _describe(self, batches: BatchLoader, size: BlockSize, step_listeners: Sequence[str]) -> None:
        """Log how many steps a call makes, and how many batches of an epoch run outside of a call."""
        reason = f", because {', '.join(step_listeners)} is called after each step" if step_listeners else ""
        log.info("trainer.steps_per_call: a call of the compiled step makes %d step(s)%s", size.steps, reason)
        num_others = len(batches) - count_whole_batches(batches, size.batch_size) // size.batches * size.batches
        if num_others:
            log.info("%d of the %d batches of an epoch run one by one, without compiling", num_others, len(batches))
