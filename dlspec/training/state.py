"""The state of a run: its progress and results."""

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
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.checkpoint.nested_state import EpochResults
from dlspec.training.checkpoint.validated_state import Count, Seconds, ValidatedState
from dlspec.training.evaluation.prediction_view import PredictionView
from dlspec.training.metric_monitor import MetricMonitor
from dlspec.training.runtime.randomness import RandomStates

Phase = Literal["train", "val", "test"]


class _TimingRow(ValidatedState):
    epoch: Count
    step: Count
    seconds: Seconds
    train_seconds: Seconds
    samples: Count
    samples_per_second: Seconds


class _SavedProgress(ValidatedState):
    epoch: Count
    step: Count
    results: dict[str, float]
    history: list[dict[str, float]]
    timing: list[_TimingRow]


@dataclass
class EpochProgress:
    """The progress of the current epoch. A resumed run continues the epoch in which it was interrupted."""

    lr: float | None  # learning rate at the start of the epoch
    # Before the run was resumed: the epoch's seconds, and the batches and samples that were trained on.
    seconds: float = 0.0
    batch: int = 0
    samples: int = 0
    # The results of the training split and the state of the random generators after it, None until it is finished.
    # A run that is resumed in validation starts validation again with these generators.
    results: dict[str, float] | None = None
    # The state of `Scores` over the batches before the run was resumed, until it is loaded.
    scores: Mapping[str, Any] | None = field(default=None, repr=False)
    generators: RandomStates | None = field(default=None, repr=False)
    # When the epoch started, by `time.perf_counter`, moved back by `seconds`.
    started: float = 0.0

    def start(self) -> None:
        """Start the clock, or continue it after the seconds before the run was resumed."""
        self.started = time.perf_counter() - self.seconds

    def elapsed_seconds(self) -> float:
        """Return the seconds spent on the epoch so far."""
        return round(time.perf_counter() - self.started, 6)


@dataclass
class TrainingState:
    """The state of a run, which callbacks receive: the network, its progress, and the results so far."""

    network: nn.Module
    optimizer: Optimizer | None  # None for a network without parameters
    device: torch.device
    monitor: MetricMonitor
    epochs: int  # planned number of epochs
    epoch: int = 0  # the current epoch, from 1; 0 before the first
    step: int = 0  # optimizer steps of the whole run so far
    # The current pass over a split: finished batches, all batches, the largest batch's size, finished samples.
    phase: Phase = "train"
    batch: int = 0
    batches: int = 0
    batch_size: int = 0
    samples: int = 0
    planned_steps: int = 0  # optimizer steps of the whole run
    phase_started: float = 0.0  # when the current pass started, by `time.perf_counter`
    results: dict[str, float] = field(default_factory=dict)  # of the last finished epoch
    history: list[dict[str, float]] = field(default_factory=list)  # results of all finished epochs
    timing: list[dict[str, float]] = field(default_factory=list)  # rows of timing.jsonl, one per epoch
    test_results: dict[str, float] = field(default_factory=dict)
    status: JobState = JobState.RUNNING
    stop_reason: str = ""  # why training stops before the last epoch
    error: str = ""  # why the run failed
    # Return the mean loss of the last steps. It waits for the device, so do not call it at every step.
    running_loss: Callable[[], float] = lambda: math.nan
    # Take a snapshot of the whole run for a checkpoint, between two steps.
    snapshot: Callable[[], Snapshot | None] = lambda: None
    # Whether a test follows training.
    will_test: bool = False
    # Whether the test is still to be done, so that the run is not finished when training is.
    has_test_pending: bool = False
    # Return predictions for the test split, or without a test for the validation split; None if it is empty.
    view: Callable[[], PredictionView | None] = lambda: None
    # The progress of the current epoch, None between two epochs.
    current: EpochProgress | None = None
    # The runs that share the time of this process, this one too: more than one in a stack.
    sharing_runs: int = 1
    # Whether the run was resumed from a checkpoint.
    is_restored: bool = False
    # Whether a checkpoint can be saved now. False between the batches of one update (gradient accumulation).
    is_update_complete: bool = True
    # Whether a second signal asked the run to end, so that nothing more is saved.
    must_exit_now: bool = False
    # The average of the weights during training. After training the network has the averaged weights, and this is None.
    average: WeightAverage | None = None

    @property
    def is_between_epochs(self) -> bool:
        """Whether the run is between two epochs, or before the first or after the last one."""
        return self.current is None

    @property
    def trained_epochs(self) -> int:
        """The number of epochs whose training is finished; the validation of the last one may not be."""
        return len(self.history) + (self.current is not None and self.current.results is not None)

    @property
    def evaluated_network(self) -> nn.Module:
        """The network to validate and save: the one with averaged weights, if there is an average."""
        return self.average.network if self.average else self.network

    @property
    def reported_status(self) -> JobState:
        """The status to write into the run's folder: the run is not finished before its test is done."""
        return JobState.RUNNING if self.status is JobState.FINISHED and self.has_test_pending else self.status

    @property
    def lr(self) -> float | None:
        """The learning rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"]) if self.optimizer else None

    def count_planned_steps(self, steps_per_epoch: int) -> int:
        """Count the optimizer steps of the whole run: those of the finished epochs, and those of the others."""
        finished = int(self.timing[-1]["step"]) if self.timing else 0
        return finished + (self.epochs - len(self.timing)) * steps_per_epoch

    def stop(self, reason: str) -> None:
        """Stop training after this epoch. `reason` is printed; the first reason given is kept."""
        self.stop_reason = self.stop_reason or reason

    def start_epoch(self) -> EpochProgress:
        """Start the next epoch, or continue the epoch in which the run was interrupted."""
        if self.current is None:
            self.epoch += 1
            self.current = EpochProgress(self.lr)
        self.current.start()
        return self.current

    def time_training(self, epoch: EpochProgress) -> dict[str, float]:
        """Make the epoch's row of timing.jsonl after training.

        The device has finished by then, because the loss was read, so the seconds include all of its work.
        """
        seconds = epoch.elapsed_seconds()
        speed = round(epoch.samples / seconds, 2) if seconds else 0.0
        row = {"epoch": self.epoch, "step": self.step, "seconds": seconds, "train_seconds": seconds}
        return row | {"samples": epoch.samples, "samples_per_second": speed}

    def record_epoch(self, epoch: EpochProgress, results: Mapping[str, float], timing: Mapping[str, float]) -> None:
        """Record a finished epoch in the history and the monitor.

        Args:
            epoch: the epoch's progress.
            results: training and validation results by name.
            timing: the epoch's row of timing.jsonl from `time_training`; its `seconds` are updated.
        """
        self.timing.append({**timing, "seconds": epoch.elapsed_seconds()})
        self.results = {**results, **({} if epoch.lr is None else {"lr": epoch.lr})}
        self.history.append(self.results)
        self.monitor.update(results[self.monitor.name], self.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the progress and results of the run for a checkpoint."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "results": self.results,
            "history": EpochResults(self.history),
            "timing": EpochResults(self.timing),
        }

    def load_state_dict(self, state: Any, /) -> None:
        """Load progress and results. `current` must have been loaded before.

        Raises:
            ValueError: if the number of finished epochs does not match the recorded results.
        """
        progress = _SavedProgress.model_validate(state)
        finished = progress.epoch - (0 if self.current is None else 1)
        if not len(progress.history) == len(progress.timing) == finished:
            raise ValueError(f"{finished} epochs are finished, but {len(progress.history)} have results")
        for name, value in progress.model_dump().items():
            setattr(self, name, value)


def make_job_result(state: TrainingState) -> JobResult:
    """Summarize the results of a run, at any time during or after it."""
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
