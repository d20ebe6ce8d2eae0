"""What can be done at the moments of a run: a callback is some of eleven empty methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlspec.training.state import TrainingState


class Callback:
    """Override what is needed. Every method is given the run's state.

    `on_step_end` is called after each batch of every phase and only where it is overridden; it has microseconds.
    """

    def on_train_start(self, state: TrainingState) -> None: ...

    def on_epoch_start(self, state: TrainingState) -> None: ...

    def on_step_end(self, state: TrainingState) -> None: ...

    def on_epoch_end(self, state: TrainingState) -> None:
        """The epoch was validated: `state.results` are its results, `state.monitor.is_best` says if it is the best."""

    def on_train_end(self, state: TrainingState) -> None:
        """The training came to its end; not called where it failed or was interrupted."""

    def on_test_start(self, state: TrainingState) -> None: ...

    def on_test_end(self, state: TrainingState) -> None:
        """`state.test_results` are the test's."""

    def on_interrupt(self, state: TrainingState) -> None:
        """The run was asked to end and does, between two steps: the last moment to keep what is wanted later."""

    @property
    def state_key(self) -> str:
        """Under this name a checkpoint has its state."""
        return type(self).__name__

    def state_dict(self, state: TrainingState) -> dict[str, Any]:
        """What a resumed run gives back: tensors that change no more, numbers, texts, lists and mappings."""
        return {}

    def load_state_dict(self, state: TrainingState, saved: Mapping[str, Any]) -> None:
        """`own` is what `state_dict` gave at the checkpoint from which the run goes on; before `on_train_start`."""

    def close(self, state: TrainingState) -> None:
        """Always called when training or a test is over, however it ended; by then `state.status` says how."""


class EarlyStopping(Callback):
    """Stops after `patience` epochs without a better one."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_train_start(self, state: TrainingState) -> None:
        if state.history:  # a run that goes on
            self.on_epoch_end(state)

    def on_epoch_end(self, state: TrainingState) -> None:
        monitor = state.monitor
        if len(state.history) - monitor.epoch >= self.patience:
            state.stop(f"no better {monitor.name} for {self.patience} epochs; the best was epoch {monitor.epoch}")
