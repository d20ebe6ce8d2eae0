"""CPU seconds of two processes that train one network together, next to one process with the same batches.

python benchmarks/ranks.py [WORK ...] [--rounds N] [--steps N]

Both take turns, each a whole run in processes of its own, and count the CPU seconds between two steps, all on the
same core. The ratio is computed within each round. Other programs change CPU seconds far less than seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring import ONE_THREAD, machine, pin, spread, table

ROOT = Path(__file__).parents[1]
FIRST = 3  # steps before the measurement
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
QUIET = ("trainer.checkpoints=false", "trainer.curves=false", "trainer.pictures=false", "trainer.tensorboard=false",
         "trainer.test=none", "trainer.progress=none", "trainer.epochs=1", "imports=[probe]")  # fmt: skip
PROBE = '''
import json, os, time
from pathlib import Path
import torch
from torch import nn
import dlspec

@dlspec.layer
class Probe(nn.Module):
    """Writes the CPU seconds of its process, of all threads, between two steps."""

    calls, start = 0, 0.0

    def forward(self, value):
        if self.training and torch.is_grad_enabled():
            Probe.calls += 1
            if Probe.calls == FIRST:
                Probe.start, Probe.clock = time.process_time(), time.perf_counter()
            if Probe.calls == FIRST + STEPS:
                found = [time.process_time() - Probe.start, time.perf_counter() - Probe.clock]
                Path(f"probe{os.environ.get('RANK', 0)}.json").write_text(json.dumps(found))
        return value
'''


@dataclass(frozen=True)
class Work:
    """A model of conf/, the line of its file before which the probe stands, and its data."""

    model: str
    line: str
    words: Sequence[str]


WORKS = {
    "resnet18 at 32x32, batches of 32": Work(
        "resnet18", "\nlayers:\n",
        ("model.params.small=true", "data=random", "data.shape=[3,32,32]", "trainer.batch_size=32"),
    ),
    "gpt_small, batches of 32": Work(
        "gpt2", "  - transformer: {repeat",
        ("model.params={width: 128, depth: 4, length: 64, dropout: 0.0, bias: false, heads: 4, activation: GELU}",
         "data=random", "data.shape=null", "data.vocab_size=65", "data.length=64", "data.target=input",
         "trainer.batch_size=32"),
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("works", nargs="*", metavar="WORK", help="start of a name; default all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    chosen = [each for each in WORKS if not arguments.works or each.startswith(tuple(arguments.works))]
    print(f"{machine('torch')}, {pin()}\n", flush=True)
    rows = [_measure(name, arguments.rounds, arguments.steps) for name in chosen]
    print(table(["work", "CPU ms a step, one process", "two processes", "ratio", "ratio of seconds"], rows))


def _measure(name: str, rounds: int, steps: int) -> list[str]:
    alone, together = [], []
    for at in range(rounds):
        alone.append(_train(WORKS[name], [], steps))
        together.append(_train(WORKS[name], TORCHRUN, steps))
        print(f"{name}, round {at + 1}: {together[-1][0] / alone[-1][0]:.3f}", file=sys.stderr, flush=True)
    ratios = [[two[at] / one[at] for one, two in zip(alone, together, strict=True)] for at in (0, 1)]
    times = [spread([1000 * cpu / steps for cpu, _ in each]) for each in (alone, together)]
    return [name, *(f"{each:.1f}" for each in times), *(f"{spread(each):.3f}" for each in ratios)]


def _train(work: Work, starter: Sequence[str], steps: int) -> tuple[float, float]:
    """Train in a temporary folder; return the CPU seconds of all processes, and the seconds of the first one."""
    with tempfile.TemporaryDirectory() as folder:
        text = (ROOT / "conf/model" / f"{work.model}.yaml").read_text(encoding="utf-8")
        after = f"{work.line}  - Probe\n" if work.line.endswith("\n") else f"  - Probe\n{work.line}"
        Path(folder, "conf/model").mkdir(parents=True)
        Path(folder, "conf/model/probed.yaml").write_text(text.replace(work.line, after, 1), encoding="utf-8")
        Path(folder, "probe.py").write_text(
            PROBE.replace("FIRST", str(FIRST)).replace("STEPS", str(steps)), encoding="utf-8"
        )
        size = f"data.size={64 * (FIRST + steps)}"
        words = [sys.executable, *starter, "-m", "dlspec", "model=probed", *work.words, *QUIET, size]
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": f"{ROOT}:."}
        subprocess.run(words, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        found = [json.loads(each.read_text()) for each in sorted(Path(folder).glob("probe*.json"))]
    return sum(cpu for cpu, _ in found), found[0][1]


if __name__ == "__main__":
    main()
