"""Callbacks that write a run's log files: results per epoch, timing, TensorBoard events, the final result.

Opening a file takes as long as a step of a small network, so the lines of short epochs are written together, ten times
a second; runs that train as one stack share these ten. A killed run loses the lines since the last time at most; they
are computed again when it is resumed. If a file can't be written (a full disk, a deleted folder), a warning is logged
once, the run continues, and the data is written at the next attempt.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dlspec.compat.tensorboard import encode_header, encode_scalars
from dlspec.runs.file_names import EVENTS_PATTERN, METRICS_FILE, RESULT_FILE, TIMING_FILE, format_events_name
from dlspec.runs.io import append_bytes, encode_json, write_bytes_unsynced, write_json
from dlspec.runs.job_state import JobState
from dlspec.runs.log_file import CAN_WAIT, flush_log_files
from dlspec.training.callbacks.callback import Callback
from dlspec.training.state import TrainingState, make_job_result

log = logging.getLogger("dlspec")


SECONDS_BETWEEN_WRITES = 0.1  # of one run


def _find_next_write(state: TrainingState) -> float:
    """Return when a file of the run is written next, by the monotonic clock."""
    return time.monotonic() + SECONDS_BETWEEN_WRITES * state.sharing_runs


class _RunFile(Callback):
    """A file in the run's folder. Only the first failure to write is logged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned = False

    def _warn_once(self, error: OSError) -> None:
        if not self._warned:
            log.warning("can't write %s: %s", self.path, error.strerror or error)
        self._warned = True


class _AppendedFile(_RunFile):
    """A file to append to, at most every `SECONDS_BETWEEN_WRITES` for each of the runs of a stack."""

    accepts_several_steps = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._waiting: list[Callable[[], bytes]] = []  # encode lines: several together take less time than one by one
        self._unwritten = b""
        self._write = append_bytes
        self._due = -math.inf

    def _restart_file(self, state: TrainingState, content: bytes) -> None:
        """Replace the file by its content up to the checkpoint from which the run is resumed.

        What was written after the checkpoint is computed again. Without content, an existing file is emptied, and a
        missing one is not created yet. As for appended lines, nothing waits for the disk: the next resume writes all
        lines up to the checkpoint again.
        """
        self._waiting, self._unwritten = [], b""
        if content or os.path.lexists(self.path):
            self._write, self._unwritten = write_bytes_unsynced, content
            self._write_lines(state)

    def _append(self, state: TrainingState, encode: Callable[[], bytes]) -> None:
        self._waiting.append(encode)
        self.on_step_end(state)

    def _write_lines(self, state: TrainingState) -> None:
        self._unwritten += b"".join(encode() for encode in self._waiting)
        self._waiting = []
        try:
            self._write(self.path, self._unwritten)
            self._unwritten, self._write = b"", append_bytes
        except OSError as error:
            self._warn_once(error)
        self._due = _find_next_write(state)

    def on_step_end(self, state: TrainingState) -> None:
        if self._waiting and time.monotonic() >= self._due:
            self._write_lines(state)

    def on_train_end(self, state: TrainingState) -> None:
        self.close(state)

    def close(self, state: TrainingState) -> None:
        if self._waiting or self._unwritten:
            self._write_lines(state)


class TextLog(Callback):
    """Logs the course of a run to its log.txt: number of parameters and device, each epoch's results, the test.

    The lines of short epochs are written together.
    """

    accepts_several_steps = True

    def __init__(self) -> None:
        self._due = -math.inf
        self._has_waiting_lines = False

    def on_train_start(self, state: TrainingState) -> None:
        sizes = [(each.numel(), each.requires_grad) for each in state.network.parameters()]
        num_parameters, num_trainable = (
            sum(size for size, _ in sizes),
            sum(size for size, is_trainable in sizes if is_trainable),
        )
        parameter_counts = (
            f"{num_trainable:,} of {num_parameters:,}" if num_trainable < num_parameters else f"{num_parameters:,}"
        )
        log.info("training %s parameters on %s, at most %s steps", parameter_counts, state.device, state.planned_steps)

    def on_epoch_end(self, state: TrainingState) -> None:
        log.info(
            "epoch %d of %d, step %d: %s",
            state.epoch,
            state.epochs,
            state.step,
            _format_results(state.results),
            extra=CAN_WAIT,
        )
        self._has_waiting_lines = True
        self.on_step_end(state)

    def on_step_end(self, state: TrainingState) -> None:
        if self._has_waiting_lines and time.monotonic() >= self._due:
            flush_log_files()
            self._has_waiting_lines, self._due = False, _find_next_write(state)

    def on_train_end(self, state: TrainingState) -> None:
        log.info(
            "the best epoch by %s is %d%s",
            state.monitor.name,
            state.monitor.epoch,
            _format_stop_reason(state.stop_reason),
        )

    def on_test_end(self, state: TrainingState) -> None:
        log.info("test: %s", _format_results(state.test_results))


def _format_results(results: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in results.items())


def _format_stop_reason(stop_reason: str) -> str:
    return f"; stopped: {stop_reason}" if stop_reason else ""


class MetricsFile(_AppendedFile):
    """Writes `metrics.jsonl`: a line of results per epoch. It contains no times, so equal runs write equal files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / METRICS_FILE)

    def on_train_start(self, state: TrainingState) -> None:
        steps = [row["step"] for row in state.timing]
        rows = enumerate(zip(steps, state.history, strict=True), start=1)
        lines = [encode_json_line({"epoch": epoch, "step": step, **results}) for epoch, (step, results) in rows]
        self._restart_file(state, b"".join(lines))

    def on_epoch_end(self, state: TrainingState) -> None:
        self._append(state, partial(encode_json_line, {"epoch": state.epoch, "step": state.step, **state.results}))


class TimingFile(_AppendedFile):
    """Writes `timing.jsonl`: per epoch a line with its seconds and the training samples per second."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / TIMING_FILE)

    def on_train_start(self, state: TrainingState) -> None:
        self._restart_file(state, b"".join(encode_json_line(row) for row in state.timing))

    def on_epoch_end(self, state: TrainingState) -> None:
        self._append(state, partial(encode_json_line, state.timing[-1]))


class ResultFile(_RunFile):
    """Writes `result.json`, the result of the run, when training or the test ends, also if it failed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / RESULT_FILE)

    def close(self, state: TrainingState) -> None:
        result = make_job_result(state)
        if result.status is JobState.RUNNING:  # the test follows
            return
        try:
            write_json(self.path, result.as_dict())
        except OSError as error:
            self._warn_once(error)


class TensorBoard(_AppendedFile):
    """Writes every result as a scalar over steps to a TensorBoard event file.

    TensorBoard's own writer is not used: it starts a thread and imports TensorFlow if it is installed.
    """

    def __init__(self, folder: Path) -> None:
        name = format_events_name(int(time.time()), socket.gethostname(), os.getpid())
        super().__init__(folder / name)

    def on_train_start(self, state: TrainingState) -> None:
        """Start an event file with the results up to the checkpoint, and delete the event files before the resume."""
        seconds = [row["seconds"] for row in state.timing]
        times = [time.time() - sum(seconds[index:]) for index in range(1, len(seconds) + 1)]
        rows = zip(state.history, state.timing, times, strict=True)
        before = [encode_scalars(results, int(row["step"]), index) for results, row, index in rows]
        self._restart_file(state, b"".join([encode_header(time.time()), *before]))
        for old in (each for each in self.path.parent.glob(EVENTS_PATTERN) if each != self.path):
            old.unlink(missing_ok=True)

    def on_epoch_end(self, state: TrainingState) -> None:
        self._append(state, partial(encode_scalars, state.results, state.step, time.time()))

    def on_test_end(self, state: TrainingState) -> None:
        self._append(state, partial(encode_scalars, state.test_results, state.step, time.time()))


def encode_json_line(values: Mapping[str, Any]) -> bytes:
    """Encode a mapping as one line of JSON, with its keys in order; nan and infinities become null."""
    return encode_json(values) + b"\n"
