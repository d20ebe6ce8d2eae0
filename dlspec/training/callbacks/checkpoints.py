"""What is kept of a run while it goes on: the best weights, and checkpoints on disk that it can go on from."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.errors import TrainingFailed
from dlspec.runs.file_names import BEST_FILE, LAST_FILE
from dlspec.runs.job_state import JobState
from dlspec.training.callbacks.callback import Callback
from dlspec.training.checkpoint.checkpoint_files import delete_old_checkpoints, write_checkpoint
from dlspec.training.checkpoint.tensor_file import write_tensors
from dlspec.training.state import TrainingState

MIN_SECONDS_BETWEEN_WRITES = 5.0
MAX_TIME_FRACTION = 0.01
"""So much of the time may go into checkpoints after epochs: of a large run, or a long history, they are rarer."""

Weights = dict[str, Tensor]


class BestWeightsCallback(Callback):
    """A callback that has the best epoch's weights ready for the final test.

    What one of them kept another goes on with: a run may be resumed with `trainer.checkpoints=false`.
    """

    @property
    def state_key(self) -> str:
        return "best"

    def best_weights(self) -> Weights | None:
        """The state dict of the best epoch so far, on the CPU; None before the first."""
        raise NotImplementedError


class BestWeightsInMemory(BestWeightsCallback):
    """Keeps a copy of the best epoch's weights in memory."""

    def __init__(self) -> None:
        self._weights: Weights | None = None

    def on_epoch_end(self, state: TrainingState) -> None:
        if state.monitor.is_best:
            self._weights = copy_weights(state.evaluated_network)

    def best_weights(self) -> Weights | None:
        return self._weights

    def state_dict(self, state: TrainingState) -> dict[str, Any]:
        return {"best": self._weights, "is_now": False, "position": {}}

    def load_state_dict(self, state: TrainingState, saved: Mapping[str, Any]) -> None:
        self._weights = copy_weights(state.evaluated_network) if saved["is_now"] else saved["best"]


class CheckpointSaver(BestWeightsCallback):
    """Keeps the run so that it can go on from where it was, and its best and last weights.

    `folder/step-000000400.safetensors` holds the whole run; the newest `keep` stay. They are written after an epoch,
    but at most once in `seconds` (an epoch of a small network takes less than a file and its sync), every `steps` steps
    and every `minutes` minutes, when the run is asked to end, and when training is over. A thread writes them: a step
    waits no longer than the copying takes, and while one is being written no other begins. Where one can't be written
    the run ends with TrainingFailed, and those that are there stay. `best.safetensors` is the best epoch's weights
    alone, `last.safetensors` those of the end of a run that did not fail; `metadata` is written beside them. The folder
    that `folder` lies in must be there.
    """

    def __init__(
        self,
        folder: Path,
        metadata: Mapping[str, str] | None = None,
        *,
        keep: int = 2,
        steps: int | None = None,
        minutes: float | None = None,
        seconds: float = MIN_SECONDS_BETWEEN_WRITES,
    ) -> None:
        self.folder = folder
        self._metadata = dict(metadata or {})
        self._max_kept, self._steps_between_saves = keep, steps
        self._seconds_between_saves, self._min_seconds_after_epoch = (minutes or math.inf) * 60, seconds
        self._writer = BackgroundWriter()
        self._next_save_time = self._next_save_time_after_epoch = -math.inf
        self._last_saved = (-1, False)  # the newest checkpoint's step, and whether an epoch ended there
        self._best: Weights | None = None
        self._best_position: dict[str, str] = {}
        self._has_new_best = False

    def best_weights(self) -> Weights | None:
        return self._best

    def state_dict(self, state: TrainingState) -> dict[str, Any]:
        is_now = state.monitor.epoch == state.epoch and state.is_between_epochs
        return {"best": None if is_now else self._best, "is_now": is_now, "position": self._best_position}

    def load_state_dict(self, state: TrainingState, saved: Mapping[str, Any]) -> None:
        self._best = copy_weights(state.evaluated_network) if saved["is_now"] else saved["best"]
        self._best_position = {str(name): str(each) for name, each in saved["position"].items()}
        self._has_new_best = self._best is not None
        self._last_saved = (state.step, False)  # saved once more at the end: the file may be another version's

    def on_train_start(self, state: TrainingState) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
            with TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise TrainingFailed(f"can't write in {self.folder}: {error.strerror or error}") from None
        self._next_save_time = time.monotonic() + self._seconds_between_saves

    def on_step_end(self, state: TrainingState) -> None:
        self._writer.raise_error()
        if state.phase == "test" or not state.is_update_complete or state.step == self._last_saved[0]:
            return
        is_save_step = self._steps_between_saves is not None and state.step % self._steps_between_saves == 0
        if is_save_step or self._next_save_time < time.monotonic():
            self._start_saving(state)

    def on_epoch_end(self, state: TrainingState) -> None:
        if state.monitor.is_best:
            self._best, self._best_position = copy_weights(state.evaluated_network), _describe_position(state)
            self._has_new_best = True
        if self._next_save_time_after_epoch < time.monotonic():
            self._start_saving(state)

    def on_train_end(self, state: TrainingState) -> None:
        self._save_and_wait(state)
        self._write_last_weights(state)

    def on_interrupt(self, state: TrainingState) -> None:
        if state.phase != "test":  # then training is over and kept
            self._save_and_wait(state)

    def _save_and_wait(self, state: TrainingState) -> None:
        """Waits until the run is kept as it is now."""
        self._writer.wait()
        self._writer.raise_error()
        if self._last_saved != (state.step, True) or not state.is_between_epochs:
            self._start_saving(state)
        self._writer.run_and_wait(self._take_best_write())

    def _start_saving(self, state: TrainingState) -> None:
        """Copies the run and lets the thread write it, unless that is writing."""
        if self._writer.is_busy:
            return
        started = time.monotonic()
        snapshot = state.snapshot()
        if snapshot is None:
            return
        write_best = self._take_best_write()

        def write() -> None:
            write_best()
            write_checkpoint(self.folder, snapshot, self._metadata)
            delete_old_checkpoints(self.folder, self._max_kept)

        now = time.monotonic()
        self._last_saved = (state.step, state.is_between_epochs)
        self._next_save_time = now + self._seconds_between_saves
        self._next_save_time_after_epoch = now + max(
            self._min_seconds_after_epoch, (now - started + self._writer.seconds) / MAX_TIME_FRACTION
        )
        self._writer.start(write)

    def _take_best_write(self) -> Callable[[], None]:
        """Writes the best weights, where they are not written yet."""
        best, position = self._best, {"format": "pt", **self._metadata, **self._best_position}
        if best is None or not self._has_new_best:
            return lambda: None
        self._has_new_best = False
        return lambda: write_tensors(self.folder / BEST_FILE, best, position)

    def _write_last_weights(self, state: TrainingState) -> None:
        weights, position = (
            copy_weights(state.evaluated_network),
            {"format": "pt", **self._metadata, **_describe_position(state)},
        )
        self._writer.run_and_wait(lambda: write_tensors(self.folder / LAST_FILE, weights, position))

    def close(self, state: TrainingState) -> None:
        if state.must_exit_now:
            return
        self._writer.wait()
        if self._writer.has_failed:
            return
        self._writer.run_and_wait(self._take_best_write())
        if state.status is JobState.INTERRUPTED and state.phase != "test" and state.history:
            self._write_last_weights(state)


class BackgroundWriter:
    """Does one thing at a time in a thread of its own; what goes wrong there is raised by `raise_error`.

    The thread does not keep the process from ending: a file that it has not finished is not there.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self.has_failed = False
        self.seconds = 0.0  # of the CPU, for the last that was done

    @property
    def is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, action: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=self._run, args=(action,), name="checkpoint", daemon=True)
        self._thread.start()

    def run_and_wait(self, action: Callable[[], None]) -> None:
        """Does it in this thread, when the other is done; raises TrainingFailed where that or this goes wrong."""
        self.wait()
        self.raise_error()
        self._run(action)
        self.raise_error()

    def _run(self, action: Callable[[], None]) -> None:
        started = time.thread_time()
        try:
            action()
            self.seconds = time.thread_time() - started
        except Exception as error:
            self._error, self.has_failed = error, True

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def raise_error(self) -> None:
        if self._error is None:
            return
        error, self._error = self._error, None
        reason, where = f"{type(error).__name__}: {error}", ""
        if isinstance(error, OSError):
            reason, where = error.strerror or str(error), f" {error.filename}" if error.filename else ""
        raise TrainingFailed(
            f"can't write the checkpoint{where}: {reason}; the checkpoints before it are whole, and the run can be "
            "resumed from them"
        ) from error


def copy_weights(network: nn.Module) -> Weights:
    """The state dict as tensors of their own on the CPU; tied weights become equal copies, which any reader loads."""
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
        if isinstance(value, Tensor)
    }


def _describe_position(state: TrainingState) -> dict[str, str]:
    """Where the run stood, in strings: safetensors keeps nothing else."""
    return {
        "epoch": str(state.epoch),
        "step": str(state.step),
        "monitor": state.monitor.name,
        "results": json.dumps(state.results),
    }
