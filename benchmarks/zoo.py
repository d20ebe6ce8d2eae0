"""Train every model of conf/model/ with the command in its header, and print its first and last loss.

python benchmarks/zoo.py [MODEL ...]

Exits with an error if a loss did not fall. The printed table is the one in docs/models.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring import machine, table

ROOT = Path(__file__).parents[1]
MODELS = {path.stem: path for path in sorted((ROOT / "conf" / "model").glob("*.yaml"))}
START = "python -m dlspec "


@dataclass(frozen=True)
class Trained:
    """The mean losses of the first and the last epoch, and the seconds of the whole run."""

    first: float
    last: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", choices=[[], *MODELS], metavar="MODEL")
    models = parser.parse_args().models or list(MODELS)
    print(f"{machine('torch')}\n", flush=True)
    results = {name: _trained(name) for name in models}
    header = ["model", "`python -m dlspec ...`", "loss in the first epoch", "in the last", "seconds"]
    print(table(header, [_row(name, each) for name, each in results.items()]))
    _check(results)


def header(path: Path) -> list[str]:
    """Return the comment lines at the top of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    return [line.removeprefix("#").strip() for line in lines[:end]]


def command(name: str) -> str:
    """Return what follows `python -m dlspec` in a model's header. A `\\` at the end of a line continues it."""
    text = re.sub(r" *\\\n *", " ", "\n".join(header(MODELS[name])))
    (found,) = re.findall(rf"^{START}(.*)$", text, flags=re.M)
    return str(found)


def _trained(name: str) -> Trained:
    """Train one model in a temporary folder. If its run fails, the benchmark stops."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "dlspec", *shlex.split(command(name)), "hydra.run.dir=run"]
        started = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(words, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        losses = _losses(Path(folder, "run", "metrics.jsonl"))
    print(f"{name}: {losses[0]:.3g} -> {losses[-1]:.3g} in {seconds:.0f} s", file=sys.stderr, flush=True)
    return Trained(losses[0], losses[-1], seconds)


def _losses(metrics: Path) -> Sequence[float]:
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return [row["train/loss"] for row in rows if "train/loss" in row]


def _row(name: str, each: Trained) -> list[str]:
    return [f"`{name}`", f"`{command(name)}`", f"{each.first:.3g}", f"{each.last:.3g}", f"{each.seconds:.0f}"]


def _check(results: Mapping[str, Trained]) -> None:
    risen = [name for name, each in results.items() if not each.last < each.first]
    if risen:
        sys.exit(f"the loss did not fall: {', '.join(risen)}")


if __name__ == "__main__":
    main()
