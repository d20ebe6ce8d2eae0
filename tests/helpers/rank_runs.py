"""Runs of several processes: `torchrun rank_runs.py FILE` trains every run that a file lists.

`python rank_runs.py FILE N` does the same without torchrun: one process imports everything, and forks the others.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from dlspec.cli.commands.resume import resume_run
from dlspec.compat.torchmetrics import import_torchmetrics, skip_plot_imports
from dlspec.config.composition import start_hydra
from dlspec.jobs.composed_spec import compose_or_raise, make_preparation
from dlspec.jobs.job import Job
from dlspec.jobs.job_setup import make_job
from dlspec.jobs.ranks import join_ranks
from dlspec.sweeps.hydra.plugins import register
from dlspec.training.distributed import find_process_group
from dlspec.training.runtime.interruption import Interrupted
from helpers.command_line import make_environment
from helpers.interrupted_runs import StopAfterBatches
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


def list_rank_lines(text: str) -> list[str]:
    """The lines that name a process."""
    return [each for each in text.splitlines() if re.match(r"rank \d", each)]


@contextmanager
def mount_small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """Mount a disk in memory, inside the `with` block, and return a function that gives it another size."""
    folder.mkdir()

    def mount(*options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")

    mount(f"size={size}")
    try:
        yield lambda size: mount("remount", f"size={size}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def kill_when_saved(
    work: Path, folder: str, words: Sequence[str], chance: random.Random, max_seconds: float
) -> subprocess.CompletedProcess[str]:
    """Start a run of two processes, and kill one of them or both at some moment after its next checkpoint.

    Args:
        work: where torchrun starts.
        folder: the run's folder.
        words: the words of the command line.
        chance: decides when and whom to kill.
        max_seconds: the longest time between the checkpoint and the kill.
    """

    def list_checkpoints() -> set[Path]:
        return set((work / folder / "checkpoints").glob("step-*.safetensors"))

    before = list_checkpoints()
    process = subprocess.Popen(
        [*TORCHRUN, "2", "-m", "dlspec", *words], cwd=work, env=make_environment(), stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    while process.poll() is None and not list_checkpoints() - before:
        time.sleep(0.01)
    time.sleep(chance.uniform(0, max_seconds))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2, "the run is too short"
    for child in children if chance.random() < 0.5 else [chance.choice(children)]:
        os.kill(int(child), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, stderr=errors)


def train_together(
    work: Path,
    world_size: int,
    runs: Mapping[str, Sequence[str]],
    stops: Mapping[str, int] | None = None,
    changes: Mapping[str, Sequence[str]] | None = None,
    *,
    by_torchrun: bool = False,
) -> None:
    """Train runs one after the other in the same processes, each in the folder of its name.

    Those in `stops` get a signal after so many batches, are copied to `NAME_stopped`, and resumed, some with changes.
    """
    stops, changes = stops or {}, changes or {}
    entries = {name: [list(words), stops.get(name, 0), list(changes.get(name, ()))] for name, words in runs.items()}
    (work / "runs.json").write_text(json.dumps(entries))
    environment = {**make_environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    script = [__file__, "runs.json"]
    start = [*TORCHRUN, str(world_size), *script] if by_torchrun else [sys.executable, *script, str(world_size)]
    done = subprocess.run(
        start, cwd=work, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _fork_ranks(world_size: int) -> None:
    """Fork a process for each rank, and return only there. The first process ends when all of them have ended."""
    import_torchmetrics()
    for name in ("dlspec.jobs.sharded_setup", "dlspec.training.callbacks.sharded_checkpoints"):
        import_module(name)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    shared = {"WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for rank in range(world_size):
        if not os.fork():
            os.environ.update({name: str(each) for name, each in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()})
            return
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(world_size)]
    sys.exit(f"the processes ended with {codes}" if any(codes) else 0)


def _train_all(file: str) -> None:
    register()
    with join_ranks():
        for name, (words, stop, changes) in json.loads(Path(file).read_text()).items():
            job = make_job(make_preparation(compose_or_raise(words, start_hydra(None))))
            group: Any = job.trainer.group
            before = group.calls, group.bytes_sent
            _stop_after(job, stop if group.rank == 1 else 0)
            with suppress(Interrupted):
                _train(job, Path(name))
            if group.is_writer:
                Path(name, "calls.json").write_text(json.dumps([group.calls - before[0], group.bytes_sent - before[1]]))
            if stop:
                if group.is_writer:
                    shutil.copytree(name, f"{name}_stopped")
                resume_run([f"run={name}", *changes], None, find_process_group())


def _train(job: Job, folder: Path) -> None:
    if job.trainer.group.is_writer:
        folder.mkdir()
        job.run(folder)
    else:
        job.take_part()


def _stop_after(job: Job, batches: int) -> None:
    set_callbacks = job.trainer.set_callbacks
    job.trainer.set_callbacks = lambda callbacks: set_callbacks([*callbacks, StopAfterBatches(batches)])


if __name__ == "__main__":
    skip_plot_imports()
    if len(sys.argv) > 2:
        _fork_ranks(int(sys.argv[2]))
    _train_all(sys.argv[1])
