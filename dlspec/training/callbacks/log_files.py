"""What a run leaves on disk as it goes: a line of results per epoch, their times, TensorBoard's events, the outcome.

No file is held open between epochs, so there is nothing to lose or to clean up. A full disk, a folder that vanishes or
can't be written to is told once and does not end the run; what could not be written waits for the next time.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlspec.compat.tensorboard import encode_header, encode_scalars
from dlspec.runs.file_names import EVENTS_PATTERN, METRICS_FILE, RESULT_FILE, TIMING_FILE, format_events_name
from dlspec.runs.io import append_bytes, replace_non_finite, write_bytes, write_json
from dlspec.training.callbacks.callback import Callback
from dlspec.training.state import TrainingState, make_job_result

log = logging.getLogger("dlspec")


class _AppendedFile(Callback):
    """A file that is added to; the first failure is told, later ones are not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned = False
        self._unwritten = b""
        self._write = append_bytes

    def _restart_file(self, content: bytes) -> None:
        """What a resumed run has of before its checkpoint; what lay after it is computed again."""
        if content or os.path.lexists(self.path):
            self._write = write_bytes
            self._append(content)

    def _append(self, content: bytes) -> None:
        self._unwritten += content
        try:
            self._write(self.path, self._unwritten)
            self._unwritten, self._write = b"", append_bytes
        except OSError as error:
            self._warn_once(error)

    def close(self, state: TrainingState) -> None:
        if self._unwritten:
            self._append(b"")

    def _warn_once(self, error: OSError) -> None:
        if not self._warned:
            log.warning("can't write %s: %s", self.path, error.strerror or error)
        self._warned = True


class TextLog(Callback):
    """What the run's log.txt tells of an ordinary run: what trains on what, each epoch, the test."""

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
        log.info("epoch %d of %d, step %d: %s", state.epoch, state.epochs, state.step, _format_results(state.results))

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
    """`metrics.jsonl`: an epoch's results in a line. No times are in it, so equal runs leave equal bytes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / METRICS_FILE)

    def on_train_start(self, state: TrainingState) -> None:
        steps = [row["step"] for row in state.timing]
        rows = enumerate(zip(steps, state.history, strict=True), start=1)
        self._restart_file(
            b"".join(encode_json_line({"epoch": epoch, "step": step, **results}) for epoch, (step, results) in rows)
        )

    def on_epoch_end(self, state: TrainingState) -> None:
        self._append(encode_json_line({"epoch": state.epoch, "step": state.step, **state.results}))


class TimingFile(_AppendedFile):
    """`timing.jsonl`: an epoch's seconds, and training's samples a second, in a line."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / TIMING_FILE)

    def on_train_start(self, state: TrainingState) -> None:
        self._restart_file(b"".join(encode_json_line(row) for row in state.timing))

    def on_epoch_end(self, state: TrainingState) -> None:
        self._append(encode_json_line(state.timing[-1]))


class ResultFile(_AppendedFile):
    """`result.json`: what the run came to, written whenever training or a test ends, however it ended."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / RESULT_FILE)

    def close(self, state: TrainingState) -> None:
        try:
            write_json(self.path, make_job_result(state).as_dict())
        except OSError as error:
            self._warn_once(error)


class TensorBoard(_AppendedFile):
    """Every result as a scalar over steps, in an event file that TensorBoard reads.

    TensorBoard's own writer would start a thread and, where TensorFlow is installed, import it.
    """

    def __init__(self, folder: Path) -> None:
        name = format_events_name(int(time.time()), socket.gethostname(), os.getpid())
        super().__init__(folder / name)

    def on_train_start(self, state: TrainingState) -> None:
        """Begins a file; a resumed run's takes the place of those before, with what they had up to the checkpoint."""
        seconds = [row["seconds"] for row in state.timing]
        times = [time.time() - sum(seconds[index:]) for index in range(1, len(seconds) + 1)]
        rows = zip(state.history, state.timing, times, strict=True)
        before = [encode_scalars(results, int(row["step"]), index) for results, row, index in rows]
        self._restart_file(b"".join([encode_header(time.time()), *before]))
        for old in (each for each in self.path.parent.glob(EVENTS_PATTERN) if each != self.path):
            old.unlink(missing_ok=True)

    def on_epoch_end(self, state: TrainingState) -> None:
        self._append(encode_scalars(state.results, state.step, time.time()))

    def on_test_end(self, state: TrainingState) -> None:
        self._append(encode_scalars(state.test_results, state.step, time.time()))


def encode_json_line(values: Mapping[str, Any]) -> bytes:
    """One line of JSON, its keys in their order, nan and infinities as null."""
    return json.dumps(replace_non_finite(values), ensure_ascii=False).encode() + b"\n"
