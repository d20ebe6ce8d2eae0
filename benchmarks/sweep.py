"""Time of whole sweeps, from start to exit: `python benchmarks/sweep.py [--rounds 3] [--jobs 16 64]`.

Two MLPs on the digits, 20 epochs; with --mnist FOLDER also 16 jobs of the article's CNN, one epoch of 10,000 images.
The jobs are learning rates times seeds, and write all files that a run writes, without pictures. The contenders take
turns: Hydra's basic launcher, composing each job from scratch as Hydra does; the basic launcher with dlspec's
composition; joblib's launcher, if it is installed; the pool; stacks of jobs; and in --slow rounds, one process per job.
On Linux, the CPU time of all processes is reported too, because other programs disturb it less.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from itertools import product
from pathlib import Path
from statistics import median

from measuring import ONE_THREAD, machine, spread, table

RATES = (1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 3e-2, 5e-2)
DIGITS = ("model=mlp", "data=digits", "trainer.epochs=20", "trainer.pictures=false")
MLPS = {  # the one of conf/, and a smaller one with more steps
    "MLP 64-128-128-10, batch 128": (*DIGITS, "trainer.batch_size=128"),
    "MLP 64-128-10, batch 32": (
        *DIGITS,
        "trainer.batch_size=32",
        "model.layers=[Flatten,{Linear:128},ReLU,{Linear:10}]",
    ),
}
MNIST = ("model=cnn", "data=mnist", "data.limit=10000", "trainer.epochs=1", "trainer.pictures=false")
STOCK, BASIC, JOBLIB, POOL, EACH = "basic, as Hydra composes", "basic", "joblib, 2", "pool", "one process per job"
STACKED = "vectorized"
LAUNCHERS = {
    STOCK: ("hydra/launcher=basic", "hydra/sweeper=basic"),
    BASIC: ("hydra/launcher=basic", "hydra/sweeper=basic"),
    JOBLIB: ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    POOL: ("hydra/launcher=pool",),
    STACKED: ("hydra/launcher=vectorized",),
}
RATIOS = ((STOCK, POOL), (BASIC, POOL), (STOCK, STACKED), (POOL, STACKED))
CPU_TIMES = (BASIC, POOL, STACKED)
DLSPEC = ("-m", "dlspec")
# Composes files and choices separately for each job, as Hydra's loader does.
COMPOSING = """
import sys
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from dlspec.cli.main import main
from dlspec.config.composition import DlspecConfigLoader
DlspecConfigLoader._compose_chosen = ConfigLoaderImpl.load_configuration
DlspecConfigLoader.compose_job = DlspecConfigLoader._compose_whole_job
sys.exit(main())
"""
SUBREAPER = 36
"""Linux's PR_SET_CHILD_SUBREAPER: this process adopts orphaned children, waits for them and counts their CPU time."""


@dataclass(frozen=True)
class Cost:
    """Wall-clock seconds, and CPU seconds of all processes together."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Sweep:
    """A spec and the number of jobs to run with it."""

    name: str
    spec: Sequence[str]
    jobs: int

    @property
    def rates(self) -> Sequence[float]:
        return RATES[: round(self.jobs**0.5)]

    @property
    def seeds(self) -> int:
        return round(self.jobs**0.5)


def main() -> None:
    arguments = _arguments()
    sweeps = [Sweep(name, spec, jobs) for name, spec in MLPS.items() for jobs in arguments.jobs]
    if arguments.mnist is not None:
        path = f"data.path='{Path(arguments.mnist).resolve()}'"
        sweeps.append(Sweep("article CNN, 10,000 MNIST images", (*MNIST, path), 16))
    print(f"{machine('torch', 'hydra-core')}; seconds, median of {arguments.rounds} rounds (quartiles)\n")
    names = [*_contenders(), *([EACH] if arguments.slow else [])]
    rows = [_row(each, names, arguments.rounds, arguments.slow) for each in sweeps]
    ratios = [f"{name} / {other}" for name, other in RATIOS]
    print(table(["sweep", "jobs", *names, *ratios, *(f"CPU: {name}" for name in CPU_TIMES)], rows))
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, nargs="+", default=[16, 64], help="squares of up to 8")
    parser.add_argument("--slow", type=int, default=0, help="number of rounds with one process for each of 16 jobs")
    parser.add_argument("--mnist", help="folder with MNIST's four IDX files")
    return parser.parse_args()


def _contenders() -> list[str]:
    names = list(LAUNCHERS)
    with suppress(metadata.PackageNotFoundError):
        metadata.version("hydra-joblib-launcher")
        return names
    names.remove(JOBLIB)
    return names


def _row(sweep: Sweep, names: Sequence[str], rounds: int, slow: int) -> list[str]:
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            if name != EACH or (number < slow and sweep.jobs <= 16):
                costs[name].append(_measured(name, sweep))
                took = f"{costs[name][-1].wall:.1f} s"
                print(f"{sweep.name}, {sweep.jobs} jobs, {name}: {took}", file=sys.stderr, flush=True)
    shown = [f"{spread([each.wall for each in found]):.1f}" if found else "" for found in costs.values()]
    ratios = [_ratio(costs[name], costs[other]) for name, other in RATIOS]
    cpu = [f"{median(each.cpu for each in costs[name]):.1f}" for name in CPU_TIMES]
    return [sweep.name, str(sweep.jobs), *shown, *ratios, *cpu]


def _measured(name: str, sweep: Sweep) -> Cost:
    """Run a whole sweep and return its cost, after checking that every job has a result."""
    with tempfile.TemporaryDirectory() as folder:
        started, used = time.perf_counter(), _cpu_seconds()
        if name == EACH:
            _each(sweep, Path(folder))
        else:
            _launched(name, sweep, Path(folder))
        wall = time.perf_counter() - started
        _await_orphans()
        done = len(list(Path(folder).glob("sweep/*/result.json")))
        if done != sweep.jobs:
            raise SystemExit(f"{done} of {sweep.jobs} jobs have a result")
    return Cost(wall, _cpu_seconds() - used)


def _launched(name: str, sweep: Sweep, folder: Path) -> None:
    over = (f"optimizer.lr={','.join(map(str, sweep.rates))}", f"seed=range({sweep.seeds})")
    program = ("-c", COMPOSING) if name == STOCK else DLSPEC
    words = ("-m", *sweep.spec, *over, "trainer.progress=none", "hydra.sweep.dir=sweep", *LAUNCHERS[name])
    _call(folder, *program, *words)


def _each(sweep: Sweep, folder: Path) -> None:
    for number, (rate, seed) in enumerate(product(sweep.rates, range(sweep.seeds))):
        _call(folder, *DLSPEC, *sweep.spec, f"optimizer.lr={rate}", f"seed={seed}", f"hydra.run.dir=sweep/{number}")


def _call(folder: Path, *words: str) -> None:
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _await_orphans() -> None:
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _ratio(others: Sequence[Cost], pool: Sequence[Cost]) -> str:
    """Format the ratio within each round, so that whatever slows a whole round cancels out."""
    ratios = [other.wall / own.wall for other, own in zip(others, pool, strict=True)]
    return f"{spread(ratios):.2f}"


if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    main()
