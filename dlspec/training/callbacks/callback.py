"""The base class of callbacks: methods that the trainer calls at certain points of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlspec.training.state import TrainingState


class Callback:
    """Base class of callbacks: override the methods that you need. Each one receives the run's state.

    `on_step_end` is called after each batch, so it should take only microseconds.
    """

    # Whether `on_step_end` may be called once for several steps that a compiled function makes in one call. If it is
    # False for a callback with that method, each call makes one step.
    accepts_several_steps = False

    def on_train_start(self, state: TrainingState) -> None:
        """Called before the first epoch, or before the epoch from which a run is resumed.

        It is called again if training goes back to a snapshot after a non-finite loss.
        """

    def on_epoch_start(self, state: TrainingState) -> None:
        """Called before each epoch of training and validation."""

    def on_step_end(self, state: TrainingState) -> None:
        """Called after each batch of training, validation and test. `state.phase` is the phase."""

    def on_epoch_end(self, state: TrainingState) -> None:
        """Called after training and validation of an epoch.

        `state.results` contains its results, `state.monitor.is_best` whether it is the best so far.
        """

    def on_train_end(self, state: TrainingState) -> None:
        """Called after training; not if it failed or was interrupted."""

    def on_test_start(self, state: TrainingState) -> None:
        """Called before the test."""

    def on_test_end(self, state: TrainingState) -> None:
        """Called after the test. `state.test_results` contains its results."""

    def on_interrupt(self, state: TrainingState) -> None:
        """Called between two steps when a signal ends the run, to save what is needed for resuming."""

    @property
    def state_key(self) -> str:
        """The name of this callback's state in a checkpoint."""
        return type(self).__name__

    def state_dict(self, state: TrainingState) -> dict[str, Any]:
        """Return the state to save in a checkpoint: tensors, numbers, strings, lists and mappings.

        The tensors must not be changed later, as a checkpoint is written in the background.
        """
        return {}

    def load_state_dict(self, state: TrainingState, saved: Mapping[str, Any]) -> None:
        """Load the state that `state_dict` returned. Called before `on_train_start` of a resumed run."""

    def close(self, state: TrainingState) -> None:
        """Called after training and after the test, also if they failed. `state.status` tells how they ended."""


class EarlyStopping(Callback):
    """Stops training after `patience` epochs without improvement of the monitored result."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_train_start(self, state: TrainingState) -> None:
        if state.history:  # a resumed run
            self.on_epoch_end(state)

    def on_epoch_end(self, state: TrainingState) -> None:
        monitor = state.monitor
        if len(state.history) - max(monitor.epoch, monitor.last_unwatched_epoch) >= self.patience:
            state.stop(f"{monitor.name} has not improved for {self.patience} epochs; the best epoch is {monitor.epoch}")
