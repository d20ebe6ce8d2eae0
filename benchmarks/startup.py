"""Time of whole processes, from start to exit: `python benchmarks/startup.py [--rounds 7]`.

The commands take turns in a temporary folder, on one core, after one round that only warms the disk cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from measuring import ONE_THREAD, machine, pin, spread, table

PASS, TORCH = "-c pass", "-c import torch"
COMMANDS: Mapping[str, tuple[str, ...]] = {
    PASS: ("-c", "pass"),
    TORCH: ("-c", "import torch"),
    "-m dlspec --help": ("-m", "dlspec", "--help"),
    "-m dlspec validate": ("-m", "dlspec", "validate"),
    "-m dlspec trainer.max_steps=1": ("-m", "dlspec", "trainer.max_steps=1"),
}
Times = dict[str, list[float]]


def main() -> None:
    arguments = _arguments()
    where, about = pin(), machine("torch", "hydra-core", "pydantic")
    times: Times = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds + 1):
            for name, words in COMMANDS.items():
                seconds = run(words, Path(folder))
                if number:
                    times[name].append(seconds)
    print(f"{about}; {where}; median of {arguments.rounds} rounds (quartiles), milliseconds\n")
    print(table(["python ...", "whole process", "more than `pass`", "more than `import torch`"], _rows(times)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def run(words: tuple[str, ...], folder: Path) -> float:
    """Return the seconds of a Python process with these arguments. Exits if the process fails."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=folder, env=_environment(), capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return seconds


def _environment() -> dict[str, str]:
    """An environment in which any folder imports the dlspec of this checkout."""
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _rows(times: Times) -> list[list[str]]:
    return [
        [f"`{name}`", _show(each), _more(each, times[PASS]), _more(each, times[TORCH])] for name, each in times.items()
    ]


def _show(seconds: list[float]) -> str:
    return f"{spread([1000 * each for each in seconds]):.0f}"


def _more(seconds: list[float], base: list[float]) -> str:
    """Format the difference within each round, so that whatever slows a whole round cancels out."""
    return _show([each - other for each, other in zip(seconds, base, strict=True)])


if __name__ == "__main__":
    main()
