"""Find the best epoch by watching one result."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

from dlspec.errors import UserError, suggest
from dlspec.training.checkpoint.validated_state import Count, ValidatedState

log = logging.getLogger("dlspec")

MonitorMode = Literal["min", "max"]
LOWER_IS_BETTER_WORDS = ("loss", "error", "perplexity")


class _SavedMonitor(ValidatedState):
    name: str
    mode: str
    value: float
    epoch: Count
    is_best: bool
    last_unwatched_epoch: Count = 0


class MetricMonitor:
    """Watches one result, such as `val/loss`, and remembers its best value and epoch.

    `name` is the result's name, `mode` is "min" if lower values are better, else "max".
    """

    def __init__(self, name: str, mode: MonitorMode) -> None:
        self.name = name
        self.mode = mode
        self.value = math.nan  # the best value so far
        self.epoch = 0  # the best epoch so far, counted from 1; 0 before the first
        self.is_best = False  # whether the last epoch is the best so far
        self.last_unwatched_epoch = 0  # above 0 if a resumed run has changed the monitored result

    def update(self, value: float, epoch: int) -> None:
        """Compare an epoch's result with the best so far. Equal values and nan are not better."""
        is_better = value < self.value if self.mode == "min" else value > self.value
        self.is_best = is_better or (math.isnan(self.value) and not math.isnan(value))
        if self.is_best:
            self.value, self.epoch = value, epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the monitored result's name, mode, best value and best epoch."""
        return vars(self)

    def load_state_dict(self, state: Any, epochs: int) -> None:
        """Load the best value. If the resumed run monitors another result, its best epoch is one of the later ones.

        Raises:
            ValueError: if the best epoch is not among the `epochs` finished ones.
        """
        saved = _SavedMonitor.model_validate(state)
        if saved.epoch > epochs:
            raise ValueError(f"the best epoch is {saved.epoch}, but only {epochs} epochs are finished")
        if (saved.name, saved.mode) == (self.name, self.mode):
            self.value, self.epoch, self.is_best = saved.value, saved.epoch, saved.is_best
            self.last_unwatched_epoch = saved.last_unwatched_epoch
        else:
            self.last_unwatched_epoch = epochs
            log.warning("the best epoch by %s is searched for from epoch %d on", self.name, epochs + 1)


def choose_monitor_mode(
    mode_setting: Literal["auto", "min", "max"], name: str, metrics: Mapping[str, object]
) -> MonitorMode:
    """Choose whether lower or higher values of a result are better.

    Args:
        mode_setting: the `trainer.mode` setting; "auto" uses the metric's `higher_is_better` attribute if it has one,
            else the result's name: lower is better if it contains "loss", "error" or "perplexity".
        name: the result's name, such as `val/accuracy`.
        metrics: metrics by the names of their results, without the phase.

    Returns:
        "min" or "max".
    """
    if mode_setting != "auto":
        return mode_setting
    higher_is_better = getattr(metrics.get(name.partition("/")[2]), "higher_is_better", None)
    if higher_is_better is not None:
        return "max" if higher_is_better else "min"
    return "min" if any(word in name.lower() for word in LOWER_IS_BETTER_WORDS) else "max"


def choose_monitored(name: str, results: Collection[str]) -> str:
    """Choose the result to monitor: `name`, or without a validation split the training result of the same name.

    Raises:
        UserError: if an epoch has no result of that name.
    """
    if name in results:
        return name
    substitute = name.replace("val/", "train/", 1)
    if name.startswith("val/") and substitute in results and "val/loss" not in results:
        log.warning("no validation split: monitoring %s instead of %s", substitute, name)
        return substitute
    raise UserError(f"trainer.monitor: epochs have no result '{name}'; {suggest(name, results)}")
