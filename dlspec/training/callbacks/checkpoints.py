"""Callbacks that keep the best weights, and that save checkpoints from which a run can be resumed."""

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

from dlspec.compat.torch_dtensor import is_sharded
from dlspec.errors import TrainingFailed
from dlspec.runs.file_names import BEST_FILE, LAST_FILE
from dlspec.runs.io import sync_folders_once
from dlspec.runs.job_state import JobState
from dlspec.training.callbacks.callback import Callback
from dlspec.training.checkpoint.checkpoint_files import Snapshot, delete_old_checkpoints, write_checkpoint
from dlspec.training.checkpoint.tensor_file import write_tensors
from dlspec.training.distributed import ProcessGroup
from dlspec.training.state import TrainingState

MIN_SECONDS_BETWEEN_WRITES = 5.0
MAX_TIME_FRACTION = 0.01  # of the run's time, spent on checkpoints after epochs: large checkpoints are saved less often
SECONDS_OF_SMALL_WRITE = 0.005  # assumed for the first checkpoint of each run of a stack: they are saved together

Weights = dict[str, Tensor]


class BestWeightsCallback(Callback):
    """Base class of callbacks that keep the best epoch's weights for the final test.

    All subclasses share one checkpoint format, so that a run can be resumed with `trainer.checkpoints=false`.
    """

    @property
    def state_key(self) -> str:
        return "best"

    def best_weights(self) -> Weights | None:
        """Return the state dict of the best epoch so far, on the CPU; None before the first epoch."""
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
    """Saves checkpoints to resume the run from, and the best and the last weights.

    A checkpoint, such as `step-000000400.safetensors`, contains the whole run. It is saved after an epoch, every
    `steps` steps, every `minutes` minutes, when a signal ends the run, and after training. A thread writes the files:
    training waits only for the copy of the tensors, and no checkpoint is started while another is being written. If
    one can't be written, the run ends with TrainingFailed, and earlier checkpoints are kept. `best.safetensors` has
    only the weights of the best epoch, `last.safetensors` those at the end of a run that did not fail.

    Args:
        folder: where to save the files. It is created, but its parent folder must exist.
        metadata: strings to write into each file.
        keep: how many of the newest checkpoints to keep.
        steps: save a checkpoint every this many steps; None for never.
        minutes: save a checkpoint every this many minutes; None for never.
        seconds: minimum time between checkpoints after epochs, as an epoch of a small network takes less time than
            writing a file.
        saves_first_epoch: whether the first epoch is saved however soon it ends. A sweep has many short jobs, for which
            the checkpoint at the end is enough.
        group: the processes that train together. The first one has this callback and decides when to save; the others
            have a `CheckpointParticipant`.
    """

    accepts_several_steps = True

    def __init__(
        self,
        folder: Path,
        metadata: Mapping[str, str] | None = None,
        *,
        keep: int = 2,
        steps: int | None = None,
        minutes: float | None = None,
        seconds: float = MIN_SECONDS_BETWEEN_WRITES,
        saves_first_epoch: bool = True,
        group: ProcessGroup | None = None,
    ) -> None:
        self.folder, self._group = folder, group or ProcessGroup()
        self._metadata = dict(metadata or {})
        self._max_kept, self._steps_between_saves = keep, steps
        self._seconds_between_saves, self._min_seconds_after_epoch = (minutes or math.inf) * 60, seconds
        self._writer = BackgroundWriter()
        self._next_save_time = -math.inf
        self._next_save_time_after_epoch = -math.inf
        self._saves_first_epoch = saves_first_epoch
        self._last_step = 0  # at the last call of on_step_end
        self._last_saved = (-1, False)  # step of the newest checkpoint, and whether it is at the end of an epoch
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
        self._last_saved = (
            state.step,
            False,
        )  # False: save again at the end, as another version may have written the file

    def on_train_start(self, state: TrainingState) -> None:
        self._last_step = state.step
        try:
            self.folder.mkdir(exist_ok=True)
            with TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise TrainingFailed(f"can't write in {self.folder}: {error.strerror or error}") from None
        now = time.monotonic()
        self._next_save_time = now + self._seconds_between_saves
        if not self._saves_first_epoch:
            cost = SECONDS_OF_SMALL_WRITE * (state.sharing_runs - 1)
            self._next_save_time_after_epoch = now + max(self._min_seconds_after_epoch, cost / MAX_TIME_FRACTION)
        self._group.wants_to_save = lambda: self._wants_to_save(state)

    def on_step_end(self, state: TrainingState) -> None:
        self._writer.raise_error()
        if state.phase == "test" or not state.is_update_complete:
            return
        if self._group.decisions.saves if self._group.is_parallel else self._is_due(state.step):
            self._start_saving(state)

    def _is_due(self, step: int) -> bool:
        if step == self._last_saved[0]:
            return False
        is_save_step = self._has_passed_save_step(step)
        return is_save_step or self._next_save_time < time.monotonic()

    def _wants_to_save(self, state: TrainingState) -> bool:
        """Whether a checkpoint is to be saved after the step that several processes compute now."""
        step, interval = state.step + (state.phase == "train"), self._steps_between_saves
        if self._writer.is_busy or state.phase == "test" or step == self._last_saved[0]:
            return False
        is_save_step = interval is not None and step % interval == 0
        return is_save_step or self._next_save_time < time.monotonic()

    def _has_passed_save_step(self, step: int) -> bool:
        """Return whether a checkpoint was due since the last call: there may be several steps in between."""
        interval, before, self._last_step = self._steps_between_saves, self._last_step, step
        return interval is not None and step // interval > before // interval

    def on_epoch_end(self, state: TrainingState) -> None:
        if state.monitor.is_best:
            self._best, self._best_position = copy_weights(state.evaluated_network), _describe_position(state)
            self._has_new_best = True
        is_due = self._next_save_time_after_epoch < time.monotonic() and not self._writer.is_busy
        if self._group.broadcast(is_due):
            self._start_saving(state)

    def on_train_end(self, state: TrainingState) -> None:
        self._save_and_wait(state)
        self._write_last_weights(state)

    def on_interrupt(self, state: TrainingState) -> None:
        if state.phase != "test":  # before the test, everything was saved at the end of training
            self._save_and_wait(state)

    def _save_and_wait(self, state: TrainingState) -> None:
        """Save the current state of the run, and wait until it is written."""
        self._writer.wait()
        self._writer.raise_error()
        if self._group.broadcast(self._last_saved != (state.step, True) or not state.is_between_epochs):
            self._start_saving(state)
        self._writer.run_and_wait(self._make_best_weights_write())

    def _start_saving(self, state: TrainingState) -> None:
        """Copy the run's state and let the thread write it, unless the thread is busy."""
        if self._writer.is_busy:
            return
        started = time.monotonic()
        snapshot = state.snapshot()
        if snapshot is None:
            return
        write_best = self._make_best_weights_write()

        def write() -> None:
            with sync_folders_once():  # a resumed run writes the best weights again, from the checkpoint
                write_best()
                self._write_checkpoint(snapshot)
            self._delete_old_checkpoints()

        now = time.monotonic()
        self._last_saved = (state.step, state.is_between_epochs)
        self._next_save_time = now + self._seconds_between_saves
        cost = (now - started + self._writer.seconds) * state.sharing_runs
        self._next_save_time_after_epoch = now + max(self._min_seconds_after_epoch, cost / MAX_TIME_FRACTION)
        self._start_writing(write)

    def _make_best_weights_write(self) -> Callable[[], None]:
        """Return a function that writes the best weights if they are not written yet."""
        best, position = self._best, {"format": "pt", **self._metadata, **self._best_position}
        if best is None or not self._has_new_best:
            return lambda: None
        self._has_new_best = False
        return lambda: self._write_weights(self.folder / BEST_FILE, best, position)

    def _write_last_weights(self, state: TrainingState) -> None:
        weights = _collect_weights(state.evaluated_network)
        position = {"format": "pt", **self._metadata, **_describe_position(state)}
        self._writer.run_and_wait(lambda: self._write_weights(self.folder / LAST_FILE, weights, position))

    def _start_writing(self, write: Callable[[], None]) -> None:
        self._writer.start(write)

    def _write_checkpoint(self, snapshot: Snapshot) -> None:
        write_checkpoint(self.folder, snapshot, self._metadata)

    def _delete_old_checkpoints(self) -> None:
        delete_old_checkpoints(self.folder, self._max_kept)

    def _write_weights(self, path: Path, weights: Weights, texts: Mapping[str, str]) -> None:
        write_tensors(path, weights, texts)

    def close(self, state: TrainingState) -> None:
        if state.must_exit_now:
            return
        self._writer.wait()
        if self._writer.has_failed:
            return
        self._writer.run_and_wait(self._make_best_weights_write())
        if state.status is JobState.INTERRUPTED and state.phase != "test" and state.history:
            self._write_last_weights(state)


class CheckpointParticipant(Callback):
    """Takes part in the checkpoints that the first process saves, which contain a state of each process."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group

    def on_step_end(self, state: TrainingState) -> None:
        if state.phase != "test" and state.is_update_complete and self._group.decisions.saves:
            state.snapshot()

    def on_epoch_end(self, state: TrainingState) -> None:
        if self._group.broadcast(False):
            state.snapshot()

    def on_train_end(self, state: TrainingState) -> None:
        self.on_epoch_end(state)

    def on_interrupt(self, state: TrainingState) -> None:
        if state.phase != "test":
            self.on_epoch_end(state)


class BackgroundWriter:
    """Runs one action at a time in a background thread. `raise_error` raises what failed there.

    The process may exit while the thread is running. An unfinished file then does not appear in the folder.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self.has_failed = False
        self.seconds = 0.0  # CPU time of the last action

    @property
    def is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, action: Callable[[], None]) -> None:
        """Run an action in the background. The previous one must have finished."""
        self._thread = threading.Thread(target=self._run, args=(action,), name="checkpoint", daemon=True)
        self._thread.start()

    def run_and_wait(self, action: Callable[[], None]) -> None:
        """Run an action in this thread, after the background thread has finished.

        Raises:
            TrainingFailed: if either of them fails.
        """
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
        """Wait until the background thread has finished."""
        if self._thread is not None:
            self._thread.join()

    def raise_error(self) -> None:
        """Raise TrainingFailed if an action has failed since the last call."""
        if self._error is None:
            return
        error, self._error = self._error, None
        if isinstance(error, TrainingFailed):
            raise error
        reason, where = f"{type(error).__name__}: {error}", ""
        if isinstance(error, OSError):
            reason, where = error.strerror or str(error), f" {error.filename}" if error.filename else ""
        raise TrainingFailed(
            f"can't write the checkpoint{where}: {reason}; earlier checkpoints are complete, and the run can be "
            "resumed from them"
        ) from error


def copy_weights(network: nn.Module) -> Weights:
    """Copy the state dict to the CPU, or this process's part of it to the same device.

    Tied weights become separate copies, as safetensors files need.
    """
    return {
        name: value.clone() if is_sharded(value) else value.to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in _list_weights(network)
    }


def _collect_weights(network: nn.Module) -> Weights:
    """Return the state dict on the CPU, or this process's part of it. What is there already is not copied."""
    return {name: value if is_sharded(value) else value.cpu() for name, value in _list_weights(network)}


def _list_weights(network: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, value.detach()) for name, value in network.state_dict().items() if isinstance(value, Tensor)]


def _describe_position(state: TrainingState) -> dict[str, str]:
    """Describe the run's position and results as strings, the only metadata that safetensors supports."""
    return {
        "epoch": str(state.epoch),
        "step": str(state.step),
        "monitor": state.monitor.name,
        "results": json.dumps(state.results),
    }
