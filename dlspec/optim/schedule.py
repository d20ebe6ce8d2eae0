"""When a learning-rate scheduler is stepped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

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

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Attributes in their own types: MultiStepLR counts its milestones with a Counter."""
        unknown = state.keys() - self.scheduler.state_dict().keys()
        if unknown:
            raise ValueError(f"the scheduler has no {min(unknown)}")
        counter_names = {name for name, each in vars(self.scheduler).items() if isinstance(each, Counter)}
        converted = {name: Counter(each) if name in counter_names else each for name, each in state.items()}
        self.scheduler.load_state_dict(converted)
