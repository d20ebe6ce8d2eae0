"""Write `status.json`: the progress of a run, to be read while it is running or after it was killed."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dlspec.runs.file_names import STATUS_FILE
from dlspec.runs.io import write_json, write_json_unsynced
from dlspec.runs.job_state import JobState
from dlspec.runs.json_values import read_line
from dlspec.runs.run_status import RunStatus, resume_command
from dlspec.training.callbacks.callback import Callback
from dlspec.training.state import TrainingState

log = logging.getLogger("dlspec")

SECONDS_BETWEEN_STATUS_WRITES = 2.0
SECONDS_BEFORE_TEST_IS_SHOWN = 0.2  # most tests are shorter, and write the final status then
MAX_TIME_FRACTION = 0.005  # of the time may be spent on writing: less frequent on a slow disk


class StatusFile(Callback):
    """Writes `status.json` about every two seconds, without reading anything from the device."""

    accepts_several_steps = True

    def __init__(self, folder: Path) -> None:
        self.path = folder / STATUS_FILE
        self._resume_command = resume_command(folder.absolute())
        self._started = self._training_started = time.monotonic()
        self._first_step = 0
        self._due = 0.0
        self._warned = False

    def on_train_start(self, state: TrainingState) -> None:
        self._training_started, self._first_step = time.monotonic(), state.step
        self._write_status(state, JobState.RUNNING, write_json_unsynced)

    def on_step_end(self, state: TrainingState) -> None:
        if time.monotonic() >= self._due:
            self._write_status(state, JobState.RUNNING, write_json_unsynced)

    def on_test_start(self, state: TrainingState) -> None:
        self._due = min(self._due, time.monotonic() + SECONDS_BEFORE_TEST_IS_SHOWN)

    def close(self, state: TrainingState) -> None:
        if state.reported_status is not JobState.RUNNING:  # else the test follows
            self._write_status(state, state.reported_status, write_json)

    def _write_status(self, state: TrainingState, status: JobState, write: Callable[[Path, Any], None]) -> None:
        now = time.monotonic()
        try:
            write(self.path, asdict(self._make_status(state, status, now)))
        except OSError as error:
            if not self._warned:
                log.warning("can't write %s: %s", self.path, error.strerror or error)
            self._warned = True
        written = time.monotonic()
        cost = (written - now) * state.sharing_runs
        self._due = written + max(SECONDS_BETWEEN_STATUS_WRITES, cost / MAX_TIME_FRACTION)

    def _make_status(self, state: TrainingState, status: JobState, now: float) -> RunStatus:
        """Make the status without waiting for the device: no running loss, only results of finished epochs."""
        monitor, is_running = state.monitor, status is JobState.RUNNING
        return RunStatus(
            status=status,
            phase=state.phase,
            epoch=state.epoch,
            epochs=state.epochs,
            batch=state.batch,
            batches=state.batches,
            step=state.step,
            planned_steps=state.planned_steps,
            samples_per_second=_samples_per_second(state) if is_running else None,
            seconds=round(now - self._started, 3),
            seconds_left=self._estimate_seconds_left(state, now) if is_running else None,
            monitor=monitor.name,
            monitored=monitor.value,
            best_epoch=monitor.epoch,
            reason=read_line(state.error or state.stop_reason),
            renewed=datetime.now(UTC).isoformat(timespec="seconds"),
            pid=os.getpid(),
            host=socket.gethostname(),
            resume=self._resume_command,
        )

    def _estimate_seconds_left(self, state: TrainingState, now: float) -> float | None:
        """Estimate the rest of training from this process's steps; None before the first step and in the test."""
        done = state.step - self._first_step
        if done <= 0 or state.phase == "test":
            return None
        return round((now - self._training_started) * max(state.planned_steps - state.step, 0) / done, 3)


def _samples_per_second(state: TrainingState) -> float | None:
    """Compute the samples per second of the current pass. On a GPU, queued batches count as done."""
    seconds = time.perf_counter() - state.phase_started
    return round(state.samples / seconds, 2) if state.samples and seconds > 0 else None
