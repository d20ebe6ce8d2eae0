"""Handle losses, gradients and weights that are not finite: detect, explain, skip or roll back."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any

from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.data.batches.prefetching import Batch
from dlspec.errors import TrainingFailed
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.components import Model, TrainingData
from dlspec.training.distributed import FailedElsewhere, ProcessGroup
from dlspec.training.evaluation.scores import Scores
from dlspec.training.health.anomaly_detection import detect_anomalies
from dlspec.training.health.nan_cause_finder import ForwardMaker, NanCauseFinder, has_trainable_weights
from dlspec.training.health.nan_checks import (
    LossCheck,
    NotFinite,
    NotFiniteAfterUpdate,
    NotFiniteElsewhere,
    Step,
    are_all_finite,
    check_after_update,
    make_deferred_check,
    require_finite_loss,
    restore_generator_after_errors,
)
from dlspec.training.health.nan_diagnosis import SMALLER_STEPS_FIX
from dlspec.training.health.on_nan import NAN_POLICIES
from dlspec.training.state import TrainingState

log = logging.getLogger("dlspec")


class NanGuard:
    """Checks the losses, gradients and weights of a run.

    Where reading a loss costs nothing, each loss is checked before the update (`always_checks_before_update`). On a GPU
    it is read some steps later; then training rolls back to the newest snapshot and checks every step from there.
    `policy`, chosen by `trainer.on_nan`, decides what to do with a batch that is not finite.

    Args:
        state: the state of the run.
        model: the network, the criterion and the names of inputs.
        data: the splits, their seed and their batches.
        settings: the `trainer` section.
        make_forward: wraps a `forward` so that it computes in the run's precision.
        group: the processes that train together, which must find a bad loss in the same step.
    """

    def __init__(
        self,
        state: TrainingState,
        model: Model,
        data: TrainingData,
        settings: TrainerSpec,
        make_forward: ForwardMaker,
        group: ProcessGroup | None = None,
    ) -> None:
        self._state, self._data, self._settings = state, data, settings
        self._group = group = group or ProcessGroup()
        self._cause_finder = NanCauseFinder(state, model, data, make_forward, computes_again=not group.is_sharded)
        self.policy = NAN_POLICIES[settings.on_nan](state.network, state.optimizer, state.average)
        reads_loss_before_update = state.device.type == "cpu" and settings.compile != "step"
        self.always_checks_before_update = (
            reads_loss_before_update or self.policy.is_strict or settings.debug is not None or group.is_parallel
        )
        self._newest_snapshot: Snapshot | None = None
        self._recheck_until = -1  # check every loss until training reaches this step again; -1 for never

    # ---- a step ------------------------------------------------------------------------------------------------------

    @property
    def checks_before_update(self) -> bool:
        """Whether each loss of the next epoch is checked before its update."""
        return self.always_checks_before_update or self._recheck_until >= 0

    def make_loss_check(self) -> LossCheck:
        """Make the check that a training step calls with its loss."""
        return require_finite_loss if self.checks_before_update else make_deferred_check(self._state.device)

    def make_late_loss_check(self, check_loss: LossCheck) -> LossCheck:
        """Make the check for a compiled step, which returns its loss only after the update."""
        return check_after_update if self._state.device.type == "cpu" else check_loss

    def watch_step(self, step: Step) -> Step:
        """Wrap a step so that the cause can be found if it raises `NotFinite`."""
        if self._settings.debug == "anomaly":
            step = detect_anomalies(step)
        return restore_generator_after_errors(step, self._state.device) if self.checks_before_update else step

    def skip_or_fail(self, error: NotFinite, batches: BatchLoader, batch: Batch) -> None:
        """Handle a batch that made no update because its loss or gradients are not finite.

        Args:
            error: what the step raised.
            batches: the batches of the split.
            batch: the batch that failed.

        Raises:
            TrainingFailed: the policy does not allow to continue.
        """
        policy = self.policy
        if not policy.can_continue(self._state):
            if isinstance(error, NotFiniteElsewhere):
                raise FailedElsewhere(str(error))
            cause = self._cause_finder.find(error, batches, batch)
            raise TrainingFailed(f"{cause.found}; {policy.failure_reason or cause.fix}")
        if policy.reports_next:
            is_elsewhere = isinstance(error, NotFiniteElsewhere)
            found = str(error) if is_elsewhere else self._cause_finder.find(error, batches, batch).found
            log.warning("%s; %s", found, policy.recover())
        else:
            policy.recover()

    # ---- a pass ------------------------------------------------------------------------------------------------------

    def require_finite_epoch_loss(self, loss: float, scores: Scores, batches: BatchLoader) -> None:
        """Check the mean loss after a pass over a split.

        Args:
            loss: the mean loss.
            scores: the scores of the pass, with the loss of each step.
            batches: the batches of the split.

        Raises:
            NotFiniteAfterUpdate: a training loss is not finite, and the weights have been updated since.
            TrainingFailed: the loss of an evaluation is not finite.
        """
        state = self._state
        if math.isfinite(loss):
            return
        bad_step = scores.find_non_finite_step() or 0
        if state.phase == "train" and has_trainable_weights(state):
            raise NotFiniteAfterUpdate
        state.batch = bad_step
        order = (
            batches.iterate_in_order()
            if state.phase != "train"
            else batches.iterate_shuffled(self._data.seed, state.epoch)
        )
        cause = self._cause_finder.find(NotFinite(f"loss became {loss}"), batches, next(islice(order, bad_step, None)))
        raise TrainingFailed(f"{cause.found}; {cause.fix}")

    # ---- rolling back ------------------------------------------------------------------------------------------------

    @property
    def needs_snapshot(self) -> bool:
        """Whether a snapshot must be stored now, so that training can roll back."""
        return not self.always_checks_before_update and self._newest_snapshot is None

    def has_finite_weights(self) -> bool:
        """Whether the weights are finite, so that a snapshot is useful; log a warning if they are not."""
        is_finite = are_all_finite(each for each in self._state.network.parameters() if each.requires_grad)
        if not self._group.is_true_on_any_part(not is_finite):
            return True
        log.warning("no snapshot at step %d: the weights are not finite", self._state.step)
        return False

    def store_snapshot(self, snapshot: Snapshot, *, is_shared: bool = False) -> None:
        """Store a snapshot for `roll_back`. `is_shared`: training updates its tensors in place, so copy them."""
        if not self.always_checks_before_update:
            self._newest_snapshot = snapshot.copy_tensors() if is_shared else snapshot

    def roll_back(self) -> Snapshot:
        """Return the snapshot to roll back to. From there every loss is checked until the bad step is found.

        Raises:
            TrainingFailed: no snapshot was stored.
        """
        state, newest = self._state, self._newest_snapshot
        description = f"train/loss was not finite in epoch {state.epoch}, at step {state.step} at the latest"
        if newest is None:
            raise TrainingFailed(f"{description}, learning rate {state.lr}; {SMALLER_STEPS_FIX}")
        log.warning("%s: rolling back to step %d and checking every step", description, newest.step)
        self._recheck_until = state.step
        return newest.copy_tensors()

    def end_checks_after_rollback(self) -> None:
        """Return to the usual checks after training has passed the step from which it rolled back."""
        if 0 <= self._recheck_until <= self._state.step:
            log.warning("the loss stayed finite up to step %d this time: training continues", self._state.step)
            self._recheck_until = -1

    def state_dict(self) -> dict[str, Any]:
        """Return the policy's state, for a checkpoint."""
        return {"type": self._settings.on_nan, **self.policy.state_dict(self._state.is_between_epochs)}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Load the policy's state. If the run used another policy, start without state."""
        if state.get("type") == self._settings.on_nan:
            self.policy.load_state_dict(state)
