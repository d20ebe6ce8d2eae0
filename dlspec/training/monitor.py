"""Which epoch is best."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from typing import Literal

from dlspec.errors import UserError, suggest

log = logging.getLogger("dlspec")

LESS_IS_BETTER = ("loss", "error", "perplexity")


class Monitor:
    """Watches one result: `value` and `epoch` are the best so far, `is_best` whether the last epoch set them."""

    def __init__(self, name: str, mode: Literal["auto", "min", "max"] = "auto") -> None:
        self.name = name
        self.mode: Literal["min", "max"] = auto_mode(name) if mode == "auto" else mode
        self.value = math.nan
        self.epoch = 0
        self.is_best = False

    def update(self, value: float, epoch: int) -> None:
        """Takes an epoch's result. A later equal one is not better, nor is one that is not a number."""
        better = value < self.value if self.mode == "min" else value > self.value
        self.is_best = better or (math.isnan(self.value) and not math.isnan(value))
        if self.is_best:
            self.value, self.epoch = value, epoch


def auto_mode(name: str) -> Literal["min", "max"]:
    """`min` for losses, errors and perplexity; `max` for everything else."""
    return "min" if any(word in name.lower() for word in LESS_IS_BETTER) else "max"


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
