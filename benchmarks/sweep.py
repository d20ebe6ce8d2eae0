"""Whole sweeps, from the shell's call to the prompt: `python benchmarks/sweep.py [--rounds 3] [--jobs 16 64]`.

An MLP on the digits, 20 epochs, learning rates times seeds, everything that a run writes by default. The contenders
take turns: Hydra's basic launcher, joblib's where hydra-joblib-launcher is installed, with --slow a process for each
job, and the pool.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from itertools import product
from pathlib import Path
from statistics import median

from measuring import ONE_THREAD, machine, spread, table

RATES = (1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 3e-2, 5e-2)
SPEC = ("model=mlp", "data=digits", "trainer.epochs=20", "trainer.batch_size=128")
BASIC, EACH, POOL = "basic", "a process each", "pool"
Contender = Callable[[int, Path], None]


def main() -> None:
    arguments = _arguments()
    contenders = _contenders(arguments.slow)
    print(f"{machine('torch', 'hydra-core')}; seconds, median of {arguments.rounds} rounds (quartiles)\n")
    rows = []
    for jobs in arguments.jobs:
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(arguments.rounds):
            for name, run in contenders.items():
                seconds[name].append(_timed(run, jobs))
        rows.append([str(jobs), *(f"{spread(each):.1f}" for each in seconds.values()), _ratio(seconds)])
    print(table(["jobs", *contenders, f"{BASIC} / {POOL}"], rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, nargs="+", default=[16, 64], help="squares of up to 8")
    parser.add_argument("--slow", action="store_true", help="a process for each job, too")
    return parser.parse_args()


def _contenders(slow: bool) -> Mapping[str, Contender]:
    found: dict[str, Contender] = {BASIC: _launcher("hydra/launcher=basic", "hydra/sweeper=basic")}
    try:
        metadata.version("hydra-joblib-launcher")
        found["joblib, 2"] = _launcher("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    except metadata.PackageNotFoundError:
        pass
    return found | ({EACH: _each} if slow else {}) | {POOL: _launcher("hydra/launcher=pool")}


def _launcher(*words: str) -> Contender:
    def run(jobs: int, folder: Path) -> None:
        rates, seeds = _grid(jobs)
        over = (f"optimizer.lr={','.join(map(str, rates))}", f"seed=range({seeds})")
        _call(folder, "-m", *SPEC, *over, "trainer.progress=none", "hydra.sweep.dir=sweep", *words)

    return run


def _each(jobs: int, folder: Path) -> None:
    rates, seeds = _grid(jobs)
    for number, (rate, seed) in enumerate(product(rates, range(seeds))):
        _call(folder, *SPEC, f"optimizer.lr={rate}", f"seed={seed}", f"hydra.run.dir=sweep/{number}")


def _grid(jobs: int) -> tuple[tuple[float, ...], int]:
    side = round(jobs**0.5)
    return RATES[:side], side


def _call(folder: Path, *words: str) -> None:
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "dlspec", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")


def _timed(run: Contender, jobs: int) -> float:
    """Seconds of a whole sweep; that every job has its results is this benchmark's business too."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run(jobs, Path(folder))
        seconds = time.perf_counter() - started
        done = len(list(Path(folder).glob("sweep/*/result.json")))
    if done != jobs:
        raise SystemExit(f"{done} of {jobs} jobs have a result")
    return seconds


def _ratio(seconds: Mapping[str, list[float]]) -> str:
    """Taken round by round: what slows a whole round down falls out of it."""
    ratios = [basic / pool for basic, pool in zip(seconds[BASIC], seconds[POOL], strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
