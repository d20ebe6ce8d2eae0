"""Quick runs to cut and to resume, and what ends a run or does something else while it trains."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from dlspec.training.callbacks.callback import Callback
from dlspec.training.state import TrainingState
from helpers.command_line import PROGRAM, QUIET, make_environment

MODELS = {
    "dropout": """
layers:
  - Flatten
  - Linear: 16
  - ReLU
  - Dropout: 0.5
  - Linear: 10
""",
    "norm": """
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
  - BatchNorm2d
  - ReLU
  - Flatten
  - Linear: 10
""",
}

SHORT_RUN = ("trainer.epochs=3", "trainer.limit_batches=12", "trainer.batch_size=16", *QUIET)


def read_run_files(work: Path, name: str) -> tuple[bytes, bytes]:
    folder = work / name
    return (folder / "metrics.jsonl").read_bytes(), (folder / "checkpoints/last.safetensors").read_bytes()


class StopAfterBatches(Callback):
    """Asks for the end after a number of batches, whatever is going on then."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_step_end(self, state: TrainingState) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGTERM)


class CallAfterBatches(Callback):
    """Does something after a number of batches of a phase."""

    def __init__(self, phase: str, batches: int, action: Callable[[], object]) -> None:
        self.phase, self.left, self.action = phase, batches, action

    def on_step_end(self, state: TrainingState) -> None:
        self.left -= state.phase == self.phase
        if not self.left:
            self.left = -1
            self.action()


def make_signal_sender(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def start_dlspec(work: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*PROGRAM, *arguments], cwd=work, env=make_environment(), stderr=subprocess.PIPE, text=True)
