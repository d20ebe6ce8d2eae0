"""dlspec as the command line runs it: bar on a terminal, metrics, log, metrics.jsonl, TensorBoard, checkpoints."""

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
    """A whole run with the overrides of a mode. Raises UserError where this version refuses them."""
    made = job(task.overrides(*mode))
    turns.note = _tuned(made)
    with tempfile.TemporaryDirectory() as folder, terminal():
        use = made.trainer.set_callbacks
        made.trainer.set_callbacks = lambda callbacks: use([*callbacks, _Turns(turns, Path(folder), callbacks)])  # type: ignore[method-assign]
        made.run(Path(folder))


def _tuned(made: Job) -> str:
    """The settings that differ from what they are by default, of those that tuning may change."""
    found, default = made.prepared.resolved["trainer"], TrainerSpec().model_dump()
    return ", ".join(f"{key}={found[key]}" for key in TUNED_SETTINGS if found[key] != default[key])


class _Turns(Callback):
    """The last of the callbacks: when an epoch begins all others have drawn, written and saved the one before."""

    def __init__(self, turns: Turns, folder: Path, callbacks: Sequence[Callback]) -> None:
        self.turns, self.folder = turns, folder
        self.checkpoints = next(each for each in callbacks if isinstance(each, CheckpointSaver))

    def on_epoch_start(self, state: TrainingState) -> None:
        waited = self.turns.next(state.history[-1]["train/loss"] if state.history else math.nan)
        if waited:
            _check_files(self.folder)
        # Checkpoints after epochs are so many a second of training: waiting is none.
        self.checkpoints._due += waited
        self.checkpoints._due_after_epoch_end += waited


def _check_files(folder: Path) -> None:
    """What was to be switched on left its files."""
    if missing := [name for name in WRITTEN if not any(folder.glob(name))]:
        raise SystemExit(f"the run left no {', '.join(missing)}")
