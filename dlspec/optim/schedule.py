"""When a learning-rate scheduler is stepped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from dlspec.compat.torch_optim import mark_optimizer_stepped
from dlspec.optim.warmup import Warmup

# A checkpoint's key for the parts of PyTorch's SequentialLR, with which every warm-up was made at first.
_SEQUENTIAL_KEY = "_schedulers"


@dataclass(frozen=True)
class TrainedLength:
    """How much of a run was trained before it was resumed, up to the end of its last finished epoch."""

    epochs: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Schedule:
    """A learning-rate scheduler and how often it is stepped: after each epoch or each optimizer step.

    `ReduceLROnPlateau` needs the monitored result, so it is always stepped after an epoch.
    """

    scheduler: LRScheduler
    interval: Literal["epoch", "step"] = "epoch"
    warmup: Warmup | None = None  # of a scheduler that is stepped after epochs

    @property
    def needs_results(self) -> bool:
        """Whether the schedule depends on the results of the epochs."""
        return isinstance(self.scheduler, ReduceLROnPlateau)

    @property
    def follows_steps(self) -> bool:
        """Whether `after_step` does anything."""
        return (self.warmup is not None and not self.warmup.is_over) or self._is_stepped_after_steps

    @property
    def _is_stepped_after_steps(self) -> bool:
        return self.interval == "step" and not self.needs_results

    def after_step(self) -> None:
        """Step the warm-up after an optimizer step, and the scheduler if its interval is "step"."""
        if self.warmup:
            self.warmup.after_step()
        if self._is_stepped_after_steps:
            self.scheduler.step()

    def after_epoch(self, monitored: float) -> None:
        """Step the scheduler after an epoch, if its interval is "epoch".

        `monitored` is the epoch's monitored result, for `ReduceLROnPlateau`.
        """
        with self.warmup.use_scheduler_lrs() if self.warmup else nullcontext():
            if isinstance(self.scheduler, ReduceLROnPlateau):
                self.scheduler.step(monitored)
            elif self.interval == "epoch":
                self.scheduler.step()

    def advance(self, steps: int, monitored: Sequence[float]) -> None:
        """Step a new scheduler to where a run stands.

        Args:
            steps: the number of optimizer steps that the run has made.
            monitored: the monitored result of each finished epoch.
        """
        mark_optimizer_stepped(self.scheduler.optimizer)
        for _ in range(steps):
            self.after_step()
        for each in monitored:
            self.after_epoch(each)

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state dict, and that of the warm-up if there is one."""
        state = self.scheduler.state_dict()
        return {"scheduler": state, "warmup": self.warmup.state_dict()} if self.warmup else state

    def has_other_warmup(self, state: dict[str, Any]) -> bool:
        """Whether a state is that of a warm-up that was followed by its scheduler, and this one runs beside it."""
        return self.warmup is not None and _SEQUENTIAL_KEY in state

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Load a state dict.

        Raises:
            ValueError: if the state has a key that the scheduler does not have.
        """
        if self.warmup is None:
            self._load_scheduler(state)
            return
        self._load_scheduler(state["scheduler"])
        self.warmup.load_state_dict(state["warmup"])

    def _load_scheduler(self, state: dict[str, Any]) -> None:
        """Load a scheduler's state dict, with its mappings turned into Counters where the scheduler has them.

        A checkpoint stores plain dicts, but MultiStepLR counts its milestones with a Counter.
        """
        unknown = state.keys() - self.scheduler.state_dict().keys()
        if unknown:
            raise ValueError(f"the scheduler has no attribute '{min(unknown)}'")
        counter_names = {name for name, each in vars(self.scheduler).items() if isinstance(each, Counter)}
        converted = {name: Counter(each) if name in counter_names else each for name, each in state.items()}
        self.scheduler.load_state_dict(converted)
