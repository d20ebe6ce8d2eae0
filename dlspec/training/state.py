"""How far a run has come, and what it came to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from dlspec.optim.weight_averages import WeightAverage
from dlspec.runs.job_result import JobResult
from dlspec.runs.job_state import JobState
from dlspec.training.checkpoint.checked_state import CheckedState, Count, Seconds
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.checkpoint.nested_state import ResultRows
from dlspec.training.evaluation.prediction_view import PredictionView
from dlspec.training.metric_monitor import MetricMonitor

Phase = Literal["train", "val", "test"]


class _TimingRow(CheckedState):
    epoch: Count
    step: Count
    seconds: Seconds
    train_seconds: Seconds
    samples: Count
    samples_per_second: Seconds


class _SavedProgress(CheckedState):
    epoch: Count
    step: Count
    results: dict[str, float]
    history: list[dict[str, float]]
    timing: list[_TimingRow]


@dataclass
class EpochProgress:
    """The epoch that is going on, or the one in whose middle a resumed run goes on.

    `lr` is the learning rate at its beginning, `started` is on `time.perf_counter`; `seconds` of it passed, and `batch`
    batches of `samples` samples were trained on, before the run was resumed. When the training split is done `results`
    are its results, and `generators` stand as they did then: validation begins anew. `scores` are those of the batches
    before the run was resumed, until they are taken up.
    """

    lr: float | None
    seconds: float = 0.0
    batch: int = 0
    samples: int = 0
    results: dict[str, float] | None = None
    scores: Mapping[str, Any] | None = field(default=None, repr=False)
    generators: dict[str, Any] | None = field(default=None, repr=False)
    started: float = 0.0

    def start(self) -> None:
        """It begins, or goes on, now."""
        self.started = time.perf_counter() - self.seconds

    def elapsed_seconds(self) -> float:
        """The seconds that it took so far."""
        return round(time.perf_counter() - self.started, 6)


@dataclass
class TrainingState:
    """All that callbacks see of a run: what is trained, where it stands, what came out so far.

    `epoch` counts from 1 and is 0 before the first; `step` counts optimizer steps over the whole run, `batch` the
    batches of the pass that runs, out of `batches` of at most `batch_size`, and `samples` their samples;
    `phase_started` is when it began, on `time.perf_counter`. `current` is the epoch that is going on, None between two.
    `is_restored` says that the run goes on from a checkpoint.
    """

    network: nn.Module
    optimizer: Optimizer | None
    device: torch.device
    monitor: MetricMonitor
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
    will_test: bool = False
    # Whether a test follows the training.
    has_test_pending: bool = False
    # Whether the run is not over when its training is.
    view: Callable[[], PredictionView | None] = lambda: None
    # What the network says of the test split, or without a test of the validation split; None where that is empty.
    current: EpochProgress | None = None
    is_restored: bool = False
    is_update_complete: bool = True
    # Whether the run can be kept now: not among the batches of one update.
    must_exit_now: bool = False
    # Whether the run was asked twice to end: nothing more is kept.
    average: WeightAverage | None = None
    # The average of the weights while they are trained; when the training is over the network itself has it.

    @property
    def is_between_epochs(self) -> bool:
        """Whether no epoch is going on."""
        return self.current is None

    @property
    def evaluated_network(self) -> nn.Module:
        """What is validated and kept: the network, or the average of its weights."""
        return self.average.network if self.average else self.network

    @property
    def reported_status(self) -> JobState:
        """How far the run is for those who read its folder: a run that was killed before its test is not finished."""
        return JobState.RUNNING if self.status is JobState.FINISHED and self.has_test_pending else self.status

    @property
    def lr(self) -> float | None:
        """The first group's learning rate."""
        return float(self.optimizer.param_groups[0]["lr"]) if self.optimizer else None

    def stop(self, reason: str) -> None:
        """Asks for the training to end after this epoch; `reason` is told to the user."""
        self.stop_reason = self.stop_reason or reason

    def start_epoch(self) -> EpochProgress:
        """The next epoch begins, or the one goes on in whose middle the run was resumed."""
        if self.current is None:
            self.epoch += 1
            self.current = EpochProgress(self.lr)
        self.current.start()
        return self.current

    def time_training(self, epoch: EpochProgress) -> dict[str, float]:
        """The epoch's row of timing.jsonl. Reading the loss made the device finish, so the seconds are real."""
        seconds = epoch.elapsed_seconds()
        speed = round(epoch.samples / seconds, 2) if seconds else 0.0
        row = {"epoch": self.epoch, "step": self.step, "seconds": seconds, "train_seconds": seconds}
        return row | {"samples": epoch.samples, "samples_per_second": speed}

    def record_epoch(self, epoch: EpochProgress, results: Mapping[str, float], timing: Mapping[str, float]) -> None:
        """The epoch was trained and validated: its results, and its row of timing.jsonl when it was trained."""
        self.timing.append({**timing, "seconds": epoch.elapsed_seconds()})
        self.results = {**results, **({} if epoch.lr is None else {"lr": epoch.lr})}
        self.history.append(self.results)
        self.monitor.update(results[self.monitor.name], self.epoch)

    def state_dict(self) -> dict[str, Any]:
        """How far the run has come, for a checkpoint."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "results": self.results,
            "history": ResultRows(self.history),
            "timing": ResultRows(self.timing),
        }

    def load_state_dict(self, state: Any, /) -> None:
        """Goes on from there; whether that is within an epoch, `current` says already."""
        progress = _SavedProgress.model_validate(state)
        finished = progress.epoch - (0 if self.current is None else 1)
        if not len(progress.history) == len(progress.timing) == finished:
            raise ValueError(f"{finished} epochs are finished, and {len(progress.history)} have results")
        for name, value in progress.model_dump().items():
            setattr(self, name, value)


def make_job_result(state: TrainingState) -> JobResult:
    """What the run came to so far; it can be asked at any moment."""
    monitor = state.monitor
    seconds = sum(row["seconds"] for row in state.timing)
    train_seconds = sum(row["train_seconds"] for row in state.timing)
    samples = sum(row["samples"] for row in state.timing)
    return JobResult(
        status=state.reported_status,
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
        timing={"seconds": seconds, "samples_per_second": samples / train_seconds if train_seconds else 0.0},
    )
