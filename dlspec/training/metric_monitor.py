"""Which epoch is best."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

from dlspec.errors import UserError, suggest
from dlspec.training.checkpoint.checked_state import CheckedState, Count

log = logging.getLogger("dlspec")

MonitorMode = Literal["min", "max"]
LOWER_IS_BETTER_WORDS = ("loss", "error", "perplexity")


class _SavedMonitor(CheckedState):
    name: str
    mode: str
    value: float
    epoch: Count
    is_best: bool


class MetricMonitor:
    """Watches one result: `value` and `epoch` are the best so far, `is_best` whether the last epoch set them."""

    def __init__(self, name: str, mode: MonitorMode) -> None:
        self.name = name
        self.mode = mode
        self.value = math.nan
        self.epoch = 0
        self.is_best = False

    def update(self, value: float, epoch: int) -> None:
        """Takes an epoch's result. A later equal one is not better, nor is one that is not a number."""
        is_better = value < self.value if self.mode == "min" else value > self.value
        self.is_best = is_better or (math.isnan(self.value) and not math.isnan(value))
        if self.is_best:
            self.value, self.epoch = value, epoch

    def state_dict(self) -> dict[str, Any]:
        """What is watched, and its best value so far."""
        return vars(self)

    def load_state_dict(self, state: Any, epochs: int) -> None:
        """Takes the best of so many epochs, unless another result is watched from here on."""
        saved = _SavedMonitor.model_validate(state)
        if saved.epoch > epochs:
            raise ValueError(f"epoch {saved.epoch} is the best of {epochs}")
        if (saved.name, saved.mode) == (self.name, self.mode):
            self.value, self.epoch, self.is_best = saved.value, saved.epoch, saved.is_best


def choose_monitor_mode(
    mode_setting: Literal["auto", "min", "max"], name: str, metrics: Mapping[str, object]
) -> MonitorMode:
    """Whether less or more of a result is better: as asked, else as its metric says, else by its name.

    `metrics` are by their results' names; torchmetrics' have `higher_is_better`.
    """
    if mode_setting != "auto":
        return mode_setting
    higher_is_better = getattr(metrics.get(name.partition("/")[2]), "higher_is_better", None)
    if higher_is_better is not None:
        return "max" if higher_is_better else "min"
    return "min" if any(word in name.lower() for word in LOWER_IS_BETTER_WORDS) else "max"


def choose_monitored(name: str, results: Collection[str]) -> str:
    """The result to watch: `name`, or where there is no validation split what training has in its place.

    Raises UserError where no epoch gives a result of that name.
    """
    if name in results:
        return name
    substitute = name.replace("val/", "train/", 1)
    if name.startswith("val/") and substitute in results and "val/loss" not in results:
        log.warning("there is no validation split: %s is monitored in place of %s", substitute, name)
        return substitute
    raise UserError(f"trainer.monitor: an epoch gives no result '{name}'; {suggest(name, results)}")
