"""Functions that call a run's callbacks in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.runs.io import sync_folders_once
from dlspec.training.callbacks.callback import Callback, EarlyStopping
from dlspec.training.callbacks.checkpoints import BestWeightsCallback, BestWeightsInMemory
from dlspec.training.state import TrainingState

log = logging.getLogger("dlspec")


def add_required_callbacks(callbacks: Sequence[Callback], settings: TrainerSpec) -> list[Callback]:
    """Add the callbacks that the settings require, unless the list has one of that kind."""
    completed = list(callbacks)
    if settings.test == "best" and not any(isinstance(each, BestWeightsCallback) for each in completed):
        completed.insert(0, BestWeightsInMemory())
    if settings.patience is not None and not any(isinstance(each, EarlyStopping) for each in completed):
        completed.insert(0, EarlyStopping(settings.patience))
    return completed


def call_callbacks(callbacks: Sequence[Callback], name: str, state: TrainingState) -> None:
    """Call a method of each callback.

    Args:
        callbacks: called in this order.
        name: the method's name, such as "on_epoch_end".
        state: the run's state, the method's argument.
    """
    for callback in callbacks:
        getattr(callback, name)(state)


def find_step_listeners(callbacks: Sequence[Callback]) -> list[Callable[[TrainingState], None]]:
    """Find the `on_step_end` methods that are overridden, to call after each batch."""
    return [each.on_step_end for each in _select_step_listeners(callbacks)]


def list_step_listeners(callbacks: Sequence[Callback]) -> list[str]:
    """List the names of the callbacks whose `on_step_end` must be called after each step."""
    return [type(each).__name__ for each in _select_step_listeners(callbacks) if not each.accepts_several_steps]


def _select_step_listeners(callbacks: Sequence[Callback]) -> list[Callback]:
    return [each for each in callbacks if type(each).on_step_end is not Callback.on_step_end]


def close_callbacks(callbacks: Sequence[Callback], state: TrainingState) -> None:
    """Close every callback. If one fails, log a warning and close the others."""
    with sync_folders_once():
        for callback in callbacks:
            try:
                callback.close(state)
            except Exception as error:
                log.warning("%s.close failed: %s", type(callback).__name__, error)


def load_best_weights(callbacks: Sequence[Callback], state: TrainingState) -> None:
    """Load the best epoch's weights, which one of the callbacks keeps, into the network."""
    if state.monitor.epoch == state.epoch:
        return  # the weights of the last epoch are the best ones
    best_weights_callback = next(each for each in callbacks if isinstance(each, BestWeightsCallback))
    weights = best_weights_callback.best_weights()
    if weights is not None:
        state.network.load_state_dict(weights)
