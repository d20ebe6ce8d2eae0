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
from dlspec.runs.io import append, finite, write_bytes, write_json
from dlspec.runs.layout import EVENTS, METRICS, RESULT, TIMING, events_name
from dlspec.training.callbacks.callback import Callback
from dlspec.training.state import State, outcome

log = logging.getLogger("dlspec")


class _File(Callback):
    """A file that is added to; the first failure is told, later ones are not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned = False
        self._unwritten = b""
        self._write = append

    def _begin(self, content: bytes) -> None:
        """What a resumed run has of before its checkpoint; what lay after it is computed again."""
        if content or os.path.lexists(self.path):
            self._write = write_bytes
            self._add(content)

    def _add(self, content: bytes) -> None:
        self._unwritten += content
        try:
            self._write(self.path, self._unwritten)
            self._unwritten, self._write = b"", append
        except OSError as error:
            self._warn(error)

    def close(self, state: State) -> None:
        if self._unwritten:
            self._add(b"")

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            log.warning("can't write %s: %s", self.path, error.strerror or error)
        self._warned = True


class LogLines(Callback):
    """What the run's log.txt tells of an ordinary run: what trains on what, each epoch, the test."""

    def on_train_start(self, state: State) -> None:
        sizes = [(each.numel(), each.requires_grad) for each in state.network.parameters()]
        count, learning = sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
        told = f"{learning:,} of {count:,}" if learning < count else f"{count:,}"
        log.info("training %s parameters on %s, at most %s steps", told, state.device, state.planned_steps)

    def on_epoch_end(self, state: State) -> None:
        log.info("epoch %d of %d, step %d: %s", state.epoch, state.epochs, state.step, _told(state.results))

    def on_train_end(self, state: State) -> None:
        log.info("the best epoch by %s is %d%s", state.monitor.name, state.monitor.epoch, _reason(state.stop_reason))

    def on_test_end(self, state: State) -> None:
        log.info("test: %s", _told(state.test_results))


def _told(results: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in results.items())


def _reason(stopped: str) -> str:
    return f"; stopped: {stopped}" if stopped else ""


class MetricsFile(_File):
    """`metrics.jsonl`: an epoch's results in a line. No times are in it, so equal runs leave equal bytes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / METRICS)

    def on_train_start(self, state: State) -> None:
        steps = [row["step"] for row in state.timing]
        rows = enumerate(zip(steps, state.history, strict=True), start=1)
        self._begin(b"".join(json_line({"epoch": epoch, "step": step, **results}) for epoch, (step, results) in rows))

    def on_epoch_end(self, state: State) -> None:
        self._add(json_line({"epoch": state.epoch, "step": state.step, **state.results}))


class TimingFile(_File):
    """`timing.jsonl`: an epoch's seconds, and training's samples a second, in a line."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / TIMING)

    def on_train_start(self, state: State) -> None:
        self._begin(b"".join(json_line(row) for row in state.timing))

    def on_epoch_end(self, state: State) -> None:
        self._add(json_line(state.timing[-1]))


class ResultFile(_File):
    """`result.json`: what the run came to, written whenever training or a test ends, however it ended."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / RESULT)

    def close(self, state: State) -> None:
        try:
            write_json(self.path, outcome(state).as_dict())
        except OSError as error:
            self._warn(error)


class TensorBoard(_File):
    """Every result as a scalar over steps, in an event file that TensorBoard reads.

    TensorBoard's own writer would start a thread and, where TensorFlow is installed, import it.
    """

    def __init__(self, folder: Path) -> None:
        name = events_name(int(time.time()), socket.gethostname(), os.getpid())
        super().__init__(folder / name)

    def on_train_start(self, state: State) -> None:
        """Begins a file; a resumed run's takes the place of those before, with what they had up to the checkpoint."""
        seconds = [row["seconds"] for row in state.timing]
        times = [time.time() - sum(seconds[at:]) for at in range(1, len(seconds) + 1)]
        rows = zip(state.history, state.timing, times, strict=True)
        before = [encode_scalars(results, int(row["step"]), at) for results, row, at in rows]
        self._begin(b"".join([encode_header(time.time()), *before]))
        for old in (each for each in self.path.parent.glob(EVENTS) if each != self.path):
            old.unlink(missing_ok=True)

    def on_epoch_end(self, state: State) -> None:
        self._add(encode_scalars(state.results, state.step, time.time()))

    def on_test_end(self, state: State) -> None:
        self._add(encode_scalars(state.test_results, state.step, time.time()))


def json_line(values: Mapping[str, Any]) -> bytes:
    """One line of JSON, its keys in their order, nan and infinities as null."""
    return json.dumps(finite(values), ensure_ascii=False).encode() + b"\n"
