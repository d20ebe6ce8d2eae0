"""A run's callbacks, called one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.training.callbacks.callback import Callback, EarlyStopping
from dlspec.training.callbacks.checkpoints import BestWeightsCallback, BestWeightsInMemory
from dlspec.training.state import TrainingState

log = logging.getLogger("dlspec")


def add_required_callbacks(callbacks: Sequence[Callback], settings: TrainerSpec) -> list[Callback]:
    """The callbacks, and those that the settings ask for where none of them does it already."""
    completed = list(callbacks)
    if settings.test == "best" and not any(isinstance(each, BestWeightsCallback) for each in completed):
        completed.insert(0, BestWeightsInMemory())
    if settings.patience is not None and not any(isinstance(each, EarlyStopping) for each in completed):
        completed.insert(0, EarlyStopping(settings.patience))
    return completed


def call_callbacks(callbacks: Sequence[Callback], name: str, state: TrainingState) -> None:
    """Calls the method of that name of each."""
    for callback in callbacks:
        getattr(callback, name)(state)


def find_step_listeners(callbacks: Sequence[Callback]) -> list[Callable[[TrainingState], None]]:
    """What is to be called after each batch: the methods that are overridden."""
    return [each.on_step_end for each in callbacks if type(each).on_step_end is not Callback.on_step_end]


def close_callbacks(callbacks: Sequence[Callback], state: TrainingState) -> None:
    """Closes every callback: one that fails at it is told and keeps no other from being closed."""
    for callback in callbacks:
        try:
            callback.close(state)
        except Exception as error:
            log.warning("%s could not be closed: %s", type(callback).__name__, error)


def load_best_weights(callbacks: Sequence[Callback], state: TrainingState) -> None:
    """Gives the network the best epoch's weights, which one of the callbacks keeps."""
    if state.monitor.epoch == state.epoch:
        return  # the weights of the last epoch are the best ones
    best_weights_callback = next(each for each in callbacks if isinstance(each, BestWeightsCallback))
    weights = best_weights_callback.best_weights()
    if weights is not None:
        state.network.load_state_dict(weights)
