"""Runs of several processes that torchrun starts: `torchrun rank_runs.py FILE` trains every run that a file lists."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.command_line import make_environment
from helpers.paths import ROOT

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
Run = tuple[str, Sequence[str]]  # the folder, and the words of the command line


def run_ranks(
    work: Path, world_size: int, *words: str, flags: Sequence[str] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node N -m dlspec WORDS` in a folder."""
    return subprocess.run(
        [*TORCHRUN, str(world_size), *flags, "-m", "dlspec", *words],
        cwd=work, env={**make_environment(), **variables}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def train_together(work: Path, world_size: int, runs: Mapping[str, Sequence[str]]) -> None:
    """Train runs one after the other in the same processes, each in the folder of its name."""
    (work / "runs.json").write_text(json.dumps({name: list(words) for name, words in runs.items()}))
    environment = {**make_environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(
        [*TORCHRUN, str(world_size), __file__, "runs.json"],
        cwd=work, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _train_all(file: str) -> None:
    from dlspec.config.composition import start_hydra
    from dlspec.jobs.composed_spec import compose_or_raise, make_preparation
    from dlspec.jobs.job_setup import make_job
    from dlspec.jobs.ranks import join_ranks
    from dlspec.sweeps.hydra.plugins import register

    register()
    with join_ranks() as group:
        for name, words in json.loads(Path(file).read_text()).items():
            before = (getattr(group, "calls", 0), getattr(group, "bytes_sent", 0))
            job = make_job(make_preparation(compose_or_raise(words, start_hydra(None))))
            if group.is_writer:
                Path(name).mkdir()
                job.run(Path(name))
            else:
                job.take_part()
            calls, sent = getattr(group, "calls", 0) - before[0], getattr(group, "bytes_sent", 0) - before[1]
            if group.is_writer:
                Path(name, "calls.json").write_text(json.dumps([calls, sent]))


if __name__ == "__main__":
    _train_all(sys.argv[1])
