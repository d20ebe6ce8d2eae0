"""When a learning-rate scheduler is stepped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


@dataclass(frozen=True)
class Schedule:
    """A scheduler and its interval. `ReduceLROnPlateau` is given the monitored result, so it steps after an epoch."""

    scheduler: LRScheduler
    interval: Literal["epoch", "step"] = "epoch"

    def after_step(self) -> None:
        if self.interval == "step" and not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()

    def after_epoch(self, monitored: float) -> None:
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(monitored)
        elif self.interval == "epoch":
            self.scheduler.step()
