"""What checkpoints cost: samples a second with `trainer.checkpoint_steps=200` beside those without.

python benchmarks/checkpoints.py [--data FOLDER_OF_MNIST] [--rounds 15] [--pin]

Both train one epoch of the same network on the same samples, in turn within one process, with one thread, and must end
at the same loss. The seconds are those of the training steps; another thread writes the files meanwhile. The ratio in
CPU time counts that thread's work, too: what checkpoints would cost where no other core is free. `--pin` has all on one
core. Freed memory is kept: as glibc starts, chance decides whether a step's tensors are mapped anew every time.
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

from dlspec.app import sweep
from dlspec.app.compose import compose, start_hydra
from dlspec.app.running import make_job, preparation
from dlspec.training import standard
from dlspec.training.callbacks import Callback
from dlspec.training.checkpoints import Checkpoints
from dlspec.training.state import State

STEPS = 200


@dataclass(frozen=True)
class Case:
    """A network, and how many samples its epoch has at batch 32."""

    name: str
    overrides: Sequence[str]
    samples: int


CASES = (
    Case("article CNN, 0.2 M parameters", ["model=cnn"], 20_000),
    Case("MLP, 10 M parameters", ["model=mlp", "model.params.width=2784"], 12_960),
)


@dataclass(frozen=True)
class Epoch:
    """Seconds of the steps, and of the CPU: of everything, for copying, for writing; the loss; how many checkpoints."""

    seconds: float
    cpu: float
    saving: float
    writing: float
    loss: float
    written: int


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="folder with MNIST's four IDX files; without it, noise")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pin", action="store_true", help="one core for everything")
    parser.add_argument("--case", type=int, choices=range(len(CASES)), help="one of the networks alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sweep.register()
    standard.Checkpoints = _Counted  # type: ignore[misc]
    where, data = pin() if arguments.pin else "two cores", "MNIST" if arguments.data else "noise of MNIST's shape"
    print(f"{machine('torch')}; {where}, one thread; {data}; median of {arguments.rounds} rounds (its 95 % interval)\n")
    header = ["samples/s at batch 32", "without", f"every {STEPS} steps", "ratio", "in CPU time", "CPU ms: copying",
              "writing", f"{STEPS} steps", "checkpoints more"]  # fmt: skip
    cases = CASES if arguments.case is None else [CASES[arguments.case]]
    print(table(header, [_row(each, arguments.data, arguments.rounds) for each in cases]))


def _row(case: Case, data: str | None, rounds: int) -> list[str]:
    """Both in turn, each round begun by the other one, after a short round that is not counted."""
    _epoch(case, data, None, limit=20)
    pairs: list[dict[int | None, Epoch]] = []
    for number in range(rounds):
        order = (None, STEPS) if number % 2 else (STEPS, None)
        pairs.append({steps: _epoch(case, data, steps) for steps in order})
        if len({each.loss for each in pairs[-1].values()}) > 1:
            raise SystemExit(f"both must end at the same loss: {pairs[-1]}")
    without, saved = ([pair[steps] for pair in pairs] for steps in (None, STEPS))
    both = list(zip(without, saved, strict=True))
    return [
        case.name,
        *(f"{median_interval([case.samples / one.seconds for one in each]):,.0f}" for each in (without, saved)),
        f"{median_interval([one.seconds / other.seconds for one, other in both]):.3f}",
        f"{median_interval([one.cpu / other.cpu for one, other in both]):.3f}",
        f"{1000 * median([each.saving / each.written for each in saved]):.1f}",
        f"{1000 * median([each.writing / each.written for each in saved]):.1f}",
        f"{1000 * median([each.cpu / case.samples * 32 * STEPS for each in without]):,.0f}",
        str(saved[0].written - without[0].written),
    ]


class _Clock(Callback):
    """The last of the callbacks: the CPU seconds of an epoch."""

    def __init__(self) -> None:
        self.started = self.seconds = 0.0

    def on_train_start(self, state: State) -> None:
        self.started = time.process_time()

    def on_epoch_end(self, state: State) -> None:
        self.seconds = time.process_time() - self.started


class _Counted(Checkpoints):
    """Checkpoints that are counted, and the CPU seconds of both threads for them."""

    written, saving, writing = 0, 0.0, 0.0

    def _save(self, state: State) -> None:
        _Counted.writing += self._writer.seconds
        started = time.thread_time()
        super()._save(state)
        _Counted.saving += time.thread_time() - started
        _Counted.written += 1

    def close(self, state: State) -> None:
        super().close(state)
        _Counted.writing *= _Counted.written / max(_Counted.written - 1, 1)  # the last one's is not known yet


def _epoch(case: Case, data: str | None, steps: int | None, limit: int | None = None) -> Epoch:
    job, clock = make_job(preparation(compose(_overrides(case, data, steps, limit), start_hydra(None)))), _Clock()
    use = job.trainer.use
    job.trainer.use = lambda callbacks: use([*callbacks, clock])  # type: ignore[method-assign]
    _Counted.written, _Counted.saving, _Counted.writing = 0, 0.0, 0.0
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        outcome = job.run(Path(folder))
    [row] = job.trainer.state.timing
    loss, counted = outcome.results["train/loss"], _Counted
    return Epoch(row["train_seconds"], clock.seconds, counted.saving, counted.writing, loss, counted.written)


def _overrides(case: Case, data: str | None, steps: int | None, limit: int | None) -> list[str]:
    mnist = ["data=mnist", f"data.path='{Path(data).resolve()}'", f"data.limit={case.samples}"] if data else []
    noise = ["data=random", "data.shape=[1,28,28]", "data.num_classes=10", f"data.size={case.samples}", "data.test=0"]
    trainer = ["epochs=1", "batch_size=32", "device=cpu", "progress=none", "monitor=train/loss", "test=none"]
    trainer += [
        "curves=false",
        "allocator=keep",
        f"checkpoint_steps={steps or 'null'}",
        f"limit_batches={limit or 'null'}",
    ]
    return [*case.overrides, *(mnist or noise), "data.validation=0", *(f"trainer.{each}" for each in trainer)]


if __name__ == "__main__":
    main()
