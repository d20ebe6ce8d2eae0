"""Train with dlspec as from the command line: progress bar, metrics, log, metrics.jsonl, TensorBoard, checkpoints."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from terminal import terminal
from turns import Turns
from works import Task, job

from dlspec.jobs.job import Job
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.training.callbacks.callback import Callback
from dlspec.training.callbacks.checkpoints import CheckpointSaver
from dlspec.training.state import TrainingState
from dlspec.training.tuning.settings_tuner import TUNED_SETTINGS

WRITTEN = ("metrics.jsonl", "timing.jsonl", "log.txt", "spec.yaml", "events.*", "checkpoints/step-*.safetensors")


def train(task: Task, turns: Turns, mode: Sequence[str]) -> None:
    """Train a whole run with the overrides of a mode. Raises UserError if this version does not support them."""
    made = job(task.overrides(*mode))
    turns.note = _tuned(made)
    with tempfile.TemporaryDirectory() as folder, terminal():
        use = made.trainer.set_callbacks
        made.trainer.set_callbacks = lambda callbacks: use([*callbacks, _Turns(turns, Path(folder), callbacks)])  # type: ignore[method-assign]
        made.run(Path(folder))


def _tuned(made: Job) -> str:
    """List the settings that tuning changed from their defaults."""
    found, default = made.prepared.resolved["trainer"], TrainerSpec().model_dump()
    return ", ".join(f"{key}={found[key]}" for key in TUNED_SETTINGS if found[key] != default[key])


class _Turns(Callback):
    """The last callback: when it starts an epoch, all others have drawn, written and saved the previous one."""

    def __init__(self, turns: Turns, folder: Path, callbacks: Sequence[Callback]) -> None:
        self.turns, self.folder = turns, folder
        self.checkpoints = next(each for each in callbacks if isinstance(each, CheckpointSaver))

    def on_epoch_start(self, state: TrainingState) -> None:
        waited = self.turns.next(state.history[-1]["train/loss"] if state.history else math.nan)
        if waited:
            _check_files(self.folder)
        # Checkpoints are due after some seconds of training, and waiting for other contenders is not training.
        self.checkpoints._next_save_time += waited
        self.checkpoints._next_save_time_after_epoch += waited


def _check_files(folder: Path) -> None:
    """Check that everything that was switched on has written its files."""
    if missing := [name for name in WRITTEN if not any(folder.glob(name))]:
        raise SystemExit(f"the run did not write {', '.join(missing)}")
