"""One pass over a split, the same code for training, validation and test. It never waits for the device.

Steps only queue work on the device. Losses and outputs are read once an epoch or in large chunks (see
`evaluation/scores`), and batches are gathered from tensors that contain the whole split.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from dlspec.compat.torch_layers import set_training_mode
from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.data.batches.prefetching import Batch
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.optim.frozen_parameters import FrozenParameters
from dlspec.training.callbacks.callback import Callback
from dlspec.training.callbacks.callback_list import call_callbacks, find_step_listeners
from dlspec.training.distributed import ProcessGroup
from dlspec.training.evaluation.scores import Scores
from dlspec.training.health.nan_checks import NotFinite
from dlspec.training.health.nan_guard import NanGuard
from dlspec.training.runtime.interruption import Interrupted, Interruption
from dlspec.training.state import Phase, TrainingState
from dlspec.training.step.block_step import BlockStep, RowBlock
from dlspec.training.step.step_factory import PassSteps
from dlspec.training.step.step_functions import Step


@dataclass(frozen=True)
class BatchLoop:
    """Runs a step on each batch of a split, and collects losses and metrics."""

    state: TrainingState
    scores: Scores
    guard: NanGuard
    freezing: FrozenParameters
    settings: TrainerSpec
    interruption: Interruption
    group: ProcessGroup

    def run(
        self,
        phase: Phase,
        batches: BatchLoader,
        make_steps: Callable[[], PassSteps],
        callbacks: Sequence[Callback],
        train_in_stack: Callable[[], None] | None = None,
    ) -> dict[str, float]:
        """Run one pass over a split.

        Args:
            phase: "train", "val" or "test".
            batches: the split's batches, for their number and sizes.
            make_steps: makes the steps, which compute a batch's output and loss, and in training update the weights.
            callbacks: their `on_step_end` is called after each batch or block.
            train_in_stack: runs the first batches together with those of other runs, and updates the state; None runs
                all of them here.

        Returns:
            The mean loss and the metrics by name, such as `val/loss`; empty for an empty split.

        Raises:
            Interrupted: after a signal that asked the run to end.
            TrainingFailed: if a loss is not finite and `trainer.on_nan` does not allow that.
        """
        is_training = phase == "train"
        self._start_pass(phase, batches)
        network = self.state.network if is_training else self.state.evaluated_network
        set_training_mode(network, is_training)
        if is_training:
            self.freezing.freeze_running_statistics(network)
        if train_in_stack is not None:
            train_in_stack()
        with nullcontext() if is_training else self.group.disable_gradients():
            if self.state.batch < len(batches) and self.state.step < self._max_steps:
                self._run_steps(batches, make_steps(), callbacks)
        results = {f"{phase}/{name}": value for name, value in self.scores.results().items()}
        self.guard.require_finite_epoch_loss(results.get(f"{phase}/loss", 0.0), self.scores, batches)
        return results

    @property
    def _max_steps(self) -> int:
        """The step at which training ends, within an epoch; evaluation counts no steps."""
        limit = self.settings.max_steps if self.state.phase == "train" else None
        return limit or sys.maxsize

    def _updates_together(self, is_training: bool) -> bool:
        """Whether the steps add up gradients over processes, and decide together with that."""
        has_trained = any(each.requires_grad for each in self.state.network.parameters())
        return is_training and self.state.optimizer is not None and has_trained

    def _start_pass(self, phase: Phase, batches: BatchLoader) -> None:
        """Reset counters and scores, or restore them if a resumed run is in the middle of the training split."""
        state, resumed_epoch = self.state, self.state.current if phase == "train" else None
        state.phase, state.batches, state.phase_started = phase, len(batches), time.perf_counter()
        state.batch_size = max(batches.sizes, default=0)
        state.batch, state.samples = (resumed_epoch.batch, resumed_epoch.samples) if resumed_epoch else (0, 0)
        self.scores.reset()
        if resumed_epoch is not None and resumed_epoch.scores is not None:
            self.scores.load_state_dict(resumed_epoch.scores, state.device)
            state.phase_started -= resumed_epoch.seconds
            resumed_epoch.scores = None

    def _run_steps(self, batches: BatchLoader, steps: PassSteps, callbacks: Sequence[Callback]) -> None:
        state, is_training = self.state, self.state.phase == "train"
        interruption = self.group.share_interruption(self.interruption)
        accumulate = self.settings.accumulate if is_training else 1
        listeners, max_steps = find_step_listeners(callbacks), self._max_steps
        is_evaluated_together = self.group.is_parallel and not self._updates_together(is_training)
        for each in steps.iterate_batches():
            if state.step >= max_steps:
                break
            if not isinstance(each, RowBlock):
                self._run_batch(each, batches, steps.step)
            elif steps.block_step is not None:
                self._run_block(each, batches, steps.block_step)
            if is_evaluated_together:
                self.group.decide_together()
            if accumulate > 1:
                state.is_update_complete = state.batch % accumulate == 0 or state.batch == len(batches)
            for listener in listeners:
                listener(state)
            if interruption.signal and state.is_update_complete:
                call_callbacks(callbacks, "on_interrupt", state)
                raise Interrupted(interruption.signal)

    def _run_batch(self, batch: Batch, batches: BatchLoader, step: Step) -> None:
        state, (inputs, targets) = self.state, batch
        num_own = batches.own_sizes[state.batch]
        try:
            output, loss = step(inputs, targets)  # only queues work: nothing here or below waits for the device
        except NotFinite as not_finite:
            self.guard.skip_or_fail(not_finite, batches, batch)
        else:
            if num_own:  # else the batch has no samples for this process
                self.scores.add(output, loss, targets, num_own)
        state.samples += batches.sizes[state.batch]
        state.batch += 1

    def _run_block(self, block: RowBlock, batches: BatchLoader, block_step: BlockStep) -> None:
        state = self.state
        sizes = batches.sizes[state.batch : state.batch + block.batches]
        self.scores.add_block(*block_step(block), sizes)
        state.batch += block.batches
        state.samples += sum(sizes)
