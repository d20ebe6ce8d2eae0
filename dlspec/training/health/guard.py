"""Numbers gone wrong, all that is done about them: they are looked for, explained, left out or gone back from."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any

from dlspec.data.batches.batches import Batch, Batches
from dlspec.errors import TrainingFailed
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.components import Model, TrainingData
from dlspec.training.evaluation.scores import Scores
from dlspec.training.health.anomaly import detecting
from dlspec.training.health.causes import CauseFinder, ForwardMaker, learns
from dlspec.training.health.diagnosis import SMALLER
from dlspec.training.health.finite import (
    Look,
    NotFinite,
    Step,
    TooLate,
    all_finite,
    demand_finite,
    look_later,
    notice,
    rewindable,
)
from dlspec.training.health.on_nan import KINDS
from dlspec.training.state import State

log = logging.getLogger("dlspec")


class Guard:
    """Watches the losses, gradients and weights of a run.

    Where reading a loss makes nobody wait, each is looked at before it changes anything: `looks_at_once`. On a GPU it
    is read when the weights have moved on: then training goes back to the newest snapshot. `policy` is what
    `trainer.on_nan` says of a batch that is not finite.
    """

    def __init__(
        self, state: State, model: Model, data: TrainingData, settings: TrainerSpec, make_forward: ForwardMaker
    ) -> None:
        self._state, self._data, self._settings = state, data, settings
        self._causes = CauseFinder(state, model, data, make_forward)
        self.policy = KINDS[settings.on_nan](state.network, state.optimizer, state.average)
        is_in_time = state.device.type == "cpu" and settings.compile != "step"
        self.looks_at_once = is_in_time or self.policy.is_strict or settings.debug is not None
        self._newest: Snapshot | None = None
        self._suspect = -1  # while training goes up to this step once more, every loss is looked at

    # ---- a step ------------------------------------------------------------------------------------------------------

    @property
    def looks_now(self) -> bool:
        """Whether each loss of the epoch that comes is looked at before it changes anything."""
        return self.looks_at_once or self._suspect >= 0

    def make_look(self) -> Look:
        """What a step shows its loss to."""
        return demand_finite if self.looks_now else look_later(self._state.device)

    def make_late_look(self, look: Look) -> Look:
        """The same for a step that has made its update when its loss is there."""
        return notice if self._state.device.type == "cpu" else look

    def watch_step(self, step: Step) -> Step:
        """The step, with what is needed to find the cause where it raises `NotFinite`."""
        if self._settings.debug == "anomaly":
            step = detecting(step)
        return rewindable(step, self._state.device) if self.looks_now else step

    def leave_out(self, bad: NotFinite, batches: Batches, batch: Batch) -> None:
        """A batch has made no update, as its loss or gradients are not finite: training goes on without, or fails."""
        policy = self.policy
        if not policy.may_go_on(self._state):
            cause = self._causes.find(bad, batches, batch)
            raise TrainingFailed(f"{cause.found}; {policy.gave_up or cause.fix}")
        if policy.tells:
            log.warning("%s; %s", self._causes.find(bad, batches, batch).found, policy.go_on())
        else:
            policy.go_on()

    # ---- a pass ------------------------------------------------------------------------------------------------------

    def demand_finite_pass(self, loss: float, scores: Scores, batches: Batches) -> None:
        """A pass is over: its mean loss has to be a finite number. Raises TooLate or TrainingFailed."""
        state = self._state
        if math.isfinite(loss):
            return
        bad = scores.first_bad_step() or 0
        if state.phase == "train" and learns(state):
            raise TooLate
        state.batch = bad
        order = batches.in_order() if state.phase != "train" else batches.shuffled(self._data.seed, state.epoch)
        cause = self._causes.find(NotFinite(f"loss became {loss}"), batches, next(islice(order, bad, None)))
        raise TrainingFailed(f"{cause.found}; {cause.fix}")

    # ---- the way back ------------------------------------------------------------------------------------------------

    @property
    def wants_snapshot(self) -> bool:
        """Whether training could not go back if a loss was not finite."""
        return not self.looks_at_once and self._newest is None

    def allows_snapshot(self) -> bool:
        """Whether the weights are finite; if they are not that is told."""
        if all_finite(each for each in self._state.network.parameters() if each.requires_grad):
            return True
        log.warning("nothing is kept of step %d: the weights are not finite", self._state.step)
        return False

    def keep_snapshot(self, snapshot: Snapshot, *, is_shared: bool = False) -> None:
        """Remembers it to go back to; `is_shared` says that training goes on with its very tensors."""
        if not self.looks_at_once:
            self._newest = snapshot.copied() if is_shared else snapshot

    def take_snapshot(self) -> Snapshot:
        """The snapshot to go back to, from where on every loss is looked at until the one is found that is bad."""
        state, newest = self._state, self._newest
        told = f"train/loss was not finite in epoch {state.epoch}, at step {state.step} at the latest"
        if newest is None:
            raise TrainingFailed(f"{told}, learning rate {state.lr}; {SMALLER}")
        log.warning("%s: looking at every step from step %d on", told, newest.step)
        self._suspect = state.step
        return newest.copied()

    def end_suspicion(self) -> None:
        """Where training got past the step that it went back from, losses are looked at as before."""
        if 0 <= self._suspect <= self._state.step:
            log.warning("this time the loss stayed finite up to step %d: training goes on", self._state.step)
            self._suspect = -1

    def state_dict(self) -> dict[str, Any]:
        """The policy's state, for a checkpoint."""
        return {"type": self._settings.on_nan, **self.policy.state_dict(self._state.is_between_epochs)}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Takes what the same policy kept; another begins anew."""
        if state.get("type") == self._settings.on_nan:
            self.policy.load_state_dict(state)
