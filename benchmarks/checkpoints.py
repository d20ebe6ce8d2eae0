"""The cost of a checkpoint every 200 steps: compares the steps during a checkpoint with those before and after.

python benchmarks/checkpoints.py [--data FOLDER_OF_MNIST] [--epochs 20] [--pin]

One run with one thread is divided into pieces of 200 steps. At the start of every second piece, a checkpoint of the
whole run is written, as with `trainer.checkpoint_steps`. Neighboring pieces are compared, so that other programs on the
machine have little effect. CPU time includes the writing thread: it is what checkpoints would cost if no other core
were free.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from measuring import machine, median_interval, pin, table

from dlspec.config.composition import compose, start_hydra
from dlspec.jobs.composed_spec import make_preparation
from dlspec.jobs.job_setup import make_job
from dlspec.sweeps.hydra.plugins import register
from dlspec.training.callbacks import default_callbacks
from dlspec.training.callbacks.callback import Callback
from dlspec.training.callbacks.checkpoints import CheckpointSaver
from dlspec.training.state import TrainingState

STEPS, BATCH, PIECES = 200, 32, 8


@dataclass(frozen=True)
class Case:
    """A network. It trains `share` times the number of epochs given on the command line, each of `PIECES` pieces."""

    name: str
    overrides: Sequence[str]
    share: float


CASES = (
    Case("article CNN, 0.2 M parameters", ["model=cnn"], 1),
    Case("MLP, 10 M parameters", ["model=mlp", "model.params.width=2784"], 0.15),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="folder with MNIST's four IDX files; without it, noise")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pin", action="store_true", help="pin everything to one core")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    register()
    default_callbacks.CheckpointSaver = _Measured  # type: ignore[misc]
    where, data = pin() if arguments.pin else "not pinned", "MNIST" if arguments.data else "noise of MNIST's shape"
    print(f"{machine('torch')}; {where}, one thread; {data}; medians (their 95 % interval)\n", flush=True)
    header = [f"{STEPS} steps at batch {BATCH}", "CPU ms", "CPU ms more to copy", "to write", "speed with checkpoints",
              "in CPU time", "pieces"]  # fmt: skip
    print(table(header, [_row(each, arguments.data, arguments.epochs) for each in CASES]))


def _row(case: Case, data: str | None, epochs: int) -> list[str]:
    pieces = _Pieces()
    _Measured.copying, _Measured.writing = [], []
    job = make_job(
        make_preparation(compose(_overrides(case, data, max(2, round(epochs * case.share))), start_hydra(None)))
    )
    use = job.trainer.set_callbacks
    job.trainer.set_callbacks = lambda callbacks: use([pieces, *callbacks])  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        job.run(Path(folder))
    wall, cpu = pieces.ratios(0), pieces.ratios(1)
    without = [epoch[at][1] for epoch in pieces.epochs for at in range(1, PIECES, 2)]
    costs = (median(each[1:]) for each in (_Measured.copying, _Measured.writing))
    return [
        case.name,
        f"{1000 * median(without):,.0f}",
        *(f"{1000 * each:.1f}" for each in costs),
        f"{median_interval(wall):.3f}",
        f"{median_interval(cpu):.3f}",
        str(len(wall)),
    ]


class _Pieces(Callback):
    """The first callback: records the seconds and CPU seconds of each piece, by epoch."""

    def __init__(self) -> None:
        self.epochs: list[list[tuple[float, float]]] = []
        self._last = (0.0, 0.0)

    def on_epoch_start(self, state: TrainingState) -> None:
        self.epochs.append([])
        self._last = _now()

    def on_step_end(self, state: TrainingState) -> None:
        if state.phase == "train" and state.step % STEPS == 0:
            now = _now()
            self.epochs[-1].append((now[0] - self._last[0], now[1] - self._last[1]))
            self._last = now

    def ratios(self, kind: int) -> list[float]:
        """Return the speed of each piece with a checkpoint, relative to its neighbors."""
        found = []
        for pieces in self.epochs:
            for at in range(2, PIECES, 2):
                around = (pieces[at - 1][kind] + pieces[(at + 1)][kind]) / 2
                found.append(around / pieces[at][kind])
        return found


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


class _Measured(CheckpointSaver):
    """Checkpoints by steps alone, and the CPU seconds of both threads for each."""

    copying: list[float] = []
    writing: list[float] = []

    def on_epoch_end(self, state: TrainingState) -> None: ...

    def _save(self, state: TrainingState) -> None:
        _Measured.writing.append(self._writer.seconds)
        started = time.thread_time()
        super()._save(state)
        _Measured.copying.append(time.thread_time() - started)


def _overrides(case: Case, data: str | None, epochs: int) -> list[str]:
    samples = BATCH * STEPS * PIECES
    mnist = ["data=mnist", f"data.path='{Path(data).resolve()}'", f"data.limit={samples}"] if data else []
    noise = ["data=random", "data.shape=[1,28,28]", "data.num_classes=10", f"data.size={samples}", "data.test=0"]
    trainer = [f"epochs={epochs}", f"batch_size={BATCH}", "device=cpu", "progress=none", "monitor=train/loss"]
    trainer += ["test=none", "curves=false", f"checkpoint_steps={2 * STEPS}", "allocator=keep"]
    return [*case.overrides, *(mnist or noise), "data.validation=0", *(f"trainer.{each}" for each in trainer)]


if __name__ == "__main__":
    main()
