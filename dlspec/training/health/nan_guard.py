"""Numbers gone wrong, all that is done about them: they are looked for, explained, left out or gone back from."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any

from dlspec.data.batches.batch_loader import Batch, BatchLoader
from dlspec.errors import TrainingFailed
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.components import Model, TrainingData
from dlspec.training.evaluation.scores import Scores
from dlspec.training.health.anomaly_detection import detect_anomalies
from dlspec.training.health.cause_finder import CauseFinder, ForwardMaker, is_training_weights
from dlspec.training.health.nan_checks import (
    LossCheck,
    NotFinite,
    NotFiniteTooLate,
    Step,
    are_all_finite,
    check_after_update,
    make_deferred_check,
    make_rewindable,
    require_finite_loss,
)
from dlspec.training.health.nan_diagnosis import SMALLER_STEPS_FIX
from dlspec.training.health.on_nan import NAN_POLICIES
from dlspec.training.state import TrainingState

log = logging.getLogger("dlspec")


class NanGuard:
    """Watches the losses, gradients and weights of a run.

    Where reading a loss makes nobody wait, each is looked at before it changes anything: `always_checks_before_update`. On a GPU it
    is read when the weights have moved on: then training goes back to the newest snapshot. `policy` is what
    `trainer.on_nan` says of a batch that is not finite.
    """

    def __init__(
        self, state: TrainingState, model: Model, data: TrainingData, settings: TrainerSpec, make_forward: ForwardMaker
    ) -> None:
        self._state, self._data, self._settings = state, data, settings
        self._cause_finder = CauseFinder(state, model, data, make_forward)
        self.policy = NAN_POLICIES[settings.on_nan](state.network, state.optimizer, state.average)
        reads_loss_before_update = state.device.type == "cpu" and settings.compile != "step"
        self.always_checks_before_update = (
            reads_loss_before_update or self.policy.is_strict or settings.debug is not None
        )
        self._newest_snapshot: Snapshot | None = None
        self._recheck_until = -1  # while training goes up to this step once more, every loss is looked at

    # ---- a step ------------------------------------------------------------------------------------------------------

    @property
    def checks_before_update(self) -> bool:
        """Whether each loss of the epoch that comes is looked at before it changes anything."""
        return self.always_checks_before_update or self._recheck_until >= 0

    def make_loss_check(self) -> LossCheck:
        """What a step shows its loss to."""
        return require_finite_loss if self.checks_before_update else make_deferred_check(self._state.device)

    def make_late_loss_check(self, check_loss: LossCheck) -> LossCheck:
        """The same for a step that has made its update when its loss is there."""
        return check_after_update if self._state.device.type == "cpu" else check_loss

    def watch_step(self, step: Step) -> Step:
        """The step, with what is needed to find the cause where it raises `NotFinite`."""
        if self._settings.debug == "anomaly":
            step = detect_anomalies(step)
        return make_rewindable(step, self._state.device) if self.checks_before_update else step

    def skip_or_fail(self, error: NotFinite, batches: BatchLoader, batch: Batch) -> None:
        """A batch has made no update, as its loss or gradients are not finite: training goes on without, or fails."""
        policy = self.policy
        if not policy.can_continue(self._state):
            cause = self._cause_finder.find(error, batches, batch)
            raise TrainingFailed(f"{cause.found}; {policy.failure_reason or cause.fix}")
        if policy.reports_next:
            log.warning("%s; %s", self._cause_finder.find(error, batches, batch).found, policy.recover())
        else:
            policy.recover()

    # ---- a pass ------------------------------------------------------------------------------------------------------

    def require_finite_pass(self, loss: float, scores: Scores, batches: BatchLoader) -> None:
        """A pass is over: its mean loss has to be a finite number. Raises NotFiniteTooLate or TrainingFailed."""
        state = self._state
        if math.isfinite(loss):
            return
        bad_step = scores.find_non_finite_step() or 0
        if state.phase == "train" and is_training_weights(state):
            raise NotFiniteTooLate
        state.batch = bad_step
        order = (
            batches.iterate_in_order()
            if state.phase != "train"
            else batches.iterate_shuffled(self._data.seed, state.epoch)
        )
        cause = self._cause_finder.find(NotFinite(f"loss became {loss}"), batches, next(islice(order, bad_step, None)))
        raise TrainingFailed(f"{cause.found}; {cause.fix}")

    # ---- the way back ------------------------------------------------------------------------------------------------

    @property
    def needs_snapshot(self) -> bool:
        """Whether training could not go back if a loss was not finite."""
        return not self.always_checks_before_update and self._newest_snapshot is None

    def can_snapshot(self) -> bool:
        """Whether the weights are finite; if they are not that is told."""
        if are_all_finite(each for each in self._state.network.parameters() if each.requires_grad):
            return True
        log.warning("nothing is kept of step %d: the weights are not finite", self._state.step)
        return False

    def store_snapshot(self, snapshot: Snapshot, *, is_shared: bool = False) -> None:
        """Remembers it to go back to; `is_shared` says that training goes on with its very tensors."""
        if not self.always_checks_before_update:
            self._newest_snapshot = snapshot.copy_tensors() if is_shared else snapshot

    def roll_back(self) -> Snapshot:
        """The snapshot to go back to, from where on every loss is looked at until the one is found that is bad."""
        state, newest = self._state, self._newest_snapshot
        description = f"train/loss was not finite in epoch {state.epoch}, at step {state.step} at the latest"
        if newest is None:
            raise TrainingFailed(f"{description}, learning rate {state.lr}; {SMALLER_STEPS_FIX}")
        log.warning("%s: looking at every step from step %d on", description, newest.step)
        self._recheck_until = state.step
        return newest.copy_tensors()

    def finish_recheck(self) -> None:
        """Where training got past the step that it went back from, losses are looked at as before."""
        if 0 <= self._recheck_until <= self._state.step:
            log.warning("this time the loss stayed finite up to step %d: training goes on", self._state.step)
            self._recheck_until = -1

    def state_dict(self) -> dict[str, Any]:
        """The policy's state, for a checkpoint."""
        return {"type": self._settings.on_nan, **self.policy.state_dict(self._state.is_between_epochs)}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Takes what the same policy kept; another begins anew."""
        if state.get("type") == self._settings.on_nan:
            self.policy.load_state_dict(state)
