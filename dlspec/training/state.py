"""How far a run has come, and what it came to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

from dlspec.optim.averaging import Average
from dlspec.runs.job_result import JobResult
from dlspec.runs.job_state import JobState
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.evaluation.looking import View
from dlspec.training.monitor import Monitor

Phase = Literal["train", "val", "test"]


@dataclass
class State:
    """All that callbacks see of a run: what is trained, where it stands, what came out so far.

    `epoch` counts from 1 and is 0 before the first; `step` counts optimizer steps over the whole run, `batch` the
    batches of the pass that runs, out of `batches` of at most `batch_size`, and `samples` their samples;
    `phase_started` is when it began, on `time.perf_counter`.
    """

    network: nn.Module
    optimizer: Optimizer | None
    device: torch.device
    monitor: Monitor
    epochs: int
    epoch: int = 0
    step: int = 0
    phase: Phase = "train"
    batch: int = 0
    batches: int = 0
    batch_size: int = 0
    samples: int = 0
    planned_steps: int = 0
    phase_started: float = 0.0
    results: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    timing: list[dict[str, float]] = field(default_factory=list)
    test_results: dict[str, float] = field(default_factory=dict)
    status: JobState = JobState.RUNNING
    stop_reason: str = ""
    error: str = ""
    running_loss: Callable[[], float] = lambda: math.nan
    # The mean loss of the last steps. Reading it waits for the device: not for every step.
    snapshot: Callable[[], Snapshot | None] = lambda: None
    # The whole run at this moment, between two steps, for a checkpoint.
    is_tested: bool = False
    # Whether a test follows the training.
    awaits_test: bool = False
    # Whether the run is not over when its training is.
    view: Callable[[], View | None] = lambda: None
    # What the network says of the test split, or without a test of the validation split; None where that is empty.
    is_between_epochs: bool = True
    is_whole: bool = True
    # Whether the run can be kept now: not among the batches of one update.
    ends_at_once: bool = False
    # Whether the run was asked twice to end: nothing more is kept.
    average: Average | None = None
    # The average of the weights while they are trained; when the training is over the network itself has it.

    @property
    def evaluated(self) -> nn.Module:
        """What is validated and kept: the network, or the average of its weights."""
        return self.average.network if self.average else self.network

    @property
    def told_status(self) -> JobState:
        """How far the run is for those who read its folder: a run that was killed before its test is not finished."""
        return JobState.RUNNING if self.status is JobState.FINISHED and self.awaits_test else self.status

    @property
    def lr(self) -> float | None:
        """The first group's learning rate."""
        return float(self.optimizer.param_groups[0]["lr"]) if self.optimizer else None

    def stop(self, reason: str) -> None:
        """Asks for the training to end after this epoch; `reason` is told to the user."""
        self.stop_reason = self.stop_reason or reason


def outcome(state: State) -> JobResult:
    """What the run came to so far; it can be asked at any moment."""
    monitor = state.monitor
    seconds = sum(row["seconds"] for row in state.timing)
    trained = sum(row["train_seconds"] for row in state.timing)
    samples = sum(row["samples"] for row in state.timing)
    return JobResult(
        status=state.told_status,
        epochs=len(state.history),
        steps=state.step,
        best_epoch=monitor.epoch,
        monitor=monitor.name,
        monitored=monitor.value,
        mode=monitor.mode,
        results=dict(state.results),
        best=dict(state.history[monitor.epoch - 1]) if monitor.epoch else {},
        test=dict(state.test_results),
        parameters=sum(each.numel() for each in state.network.parameters()),
        stop_reason=state.stop_reason,
        error=state.error,
        timing={"seconds": seconds, "samples_per_second": samples / trained if trained else 0.0},
    )
