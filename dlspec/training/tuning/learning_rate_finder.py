"""`trainer.tune: lr`: the learning-rate range test (Smith, arXiv:1506.01186), as in Lightning and fastai.

The rate rises exponentially from step to step while the loss is recorded. A good rate is where the loss falls most
steeply; at higher ones it rises again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from dlspec.data.batches.prefetching import Batch
from dlspec.formatting import format_number
from dlspec.training.criterion_interface import total_loss
from dlspec.training.health.nan_checks import NotFinite
from dlspec.training.trainer import Trainer
from dlspec.training.tuning.trial_training import prepare_training

FIRST_RATE, LAST_RATE = 1e-7, 10.0
NUM_STEPS = 160
SMOOTHING = 0.95  # of the loss, an exponential moving average over about 20 steps
DIVERGENCE_FACTOR = 4.0  # times the lowest loss: training diverges
# The first losses are averages of few steps, and the last ones those of a training that diverges.
NUM_IGNORED_FIRST, NUM_IGNORED_LAST = 10, 3
MIN_FALL = 0.05  # of the loss, relative to its start; less may be chance


@dataclass(frozen=True)
class FoundLearningRate:
    """The result of the test."""

    rate: float | None  # None if the loss did not fall
    rates: Sequence[float]  # of each step
    losses: Sequence[float]  # smoothed, after each step
    explanation: str  # one line


def find_learning_rate(trainer: Trainer) -> FoundLearningRate:
    """Train with rates that rise from 1e-7 to 10, and choose the one at which the loss falls most steeply.

    It trains the network and uses the generators, so the trainer can't be used afterwards.
    """
    with trainer.backend.apply_settings(trainer.settings.initial_batch_size):
        rates, losses = _record_losses(trainer)
    smoothed = smooth_losses(losses)
    rate = choose_rate(rates, smoothed)
    tried = f"{len(losses)} batches with rates from {format_number(FIRST_RATE)}"
    if rate is None:
        found = f"found no rate at which the loss falls in {tried}; optimizer.lr stays as it is"
    else:
        found = f"chose {format_number(rate)}, where the loss fell most steeply in {tried}"
    return FoundLearningRate(rate, rates[: len(losses)], smoothed, f"trainer.tune: lr {found}")


def _record_losses(trainer: Trainer) -> tuple[list[float], list[float]]:
    """Train with rising rates, and return the rates and the loss of each step until training diverges."""
    rates = np.geomspace(FIRST_RATE, LAST_RATE, NUM_STEPS).tolist()
    if trainer.state.optimizer is None:
        return rates, []
    groups, default = trainer.state.optimizer.param_groups, trainer.state.optimizer.defaults["lr"]
    tested_groups = [each for each in groups if float(each["lr"]) == float(default)] or groups
    step, losses, lowest = trainer.backend.make_trial_step(trainer.state.optimizer), list[float](), math.inf
    for rate, (inputs, targets) in zip(rates, _iterate_batches(trainer), strict=False):
        _set_rates(tested_groups, rate)
        try:
            loss = total_loss(step(inputs, targets)[1]).item()
        except NotFinite:
            break
        if not math.isfinite(loss):
            break
        losses.append(loss)
        smoothed = smooth_losses(losses)[-1]
        lowest = min(lowest, smoothed)
        if len(losses) > NUM_IGNORED_FIRST and smoothed > DIVERGENCE_FACTOR * lowest > 0:
            break
    return rates, losses


def _set_rates(groups: Sequence[Mapping[str, Any]], rate: float) -> None:
    for group in groups:
        group["lr"] = rate  # type: ignore[index]  # groups are dicts


def _iterate_batches(trainer: Trainer) -> Iterator[Batch]:
    """Yield the batches of the training split, epoch after epoch, as the run will get them."""
    train = prepare_training(trainer)
    for epoch in count(1) if len(train) else ():
        yield from train.iterate_shuffled(trainer.data.seed, epoch)


def smooth_losses(losses: Sequence[float]) -> list[float]:
    """Smooth losses with an exponential moving average that is corrected for its start at zero."""
    average, smoothed = 0.0, []
    for step, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed.append(average / (1 - SMOOTHING**step))
    return smoothed


def choose_rate(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """Choose the rate at which the smoothed loss falls most steeply.

    Args:
        rates: the rates, rising exponentially.
        losses: the smoothed loss after the step with each rate; there may be fewer than rates.

    Returns:
        The rate; None if the loss does not fall.
    """
    considered = np.asarray(losses[NUM_IGNORED_FIRST : max(len(losses) - NUM_IGNORED_LAST, 0)])
    if len(considered) < 2 or considered[0] - considered.min() < MIN_FALL * abs(considered[0]):
        return None
    return float(rates[NUM_IGNORED_FIRST + int(np.gradient(considered).argmin())])
