"""Folders of runs and sweeps from strangers: every name in them may be a link, a pipe or something else."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SECONDS = 300  # a command that takes longer hangs; the machine may be slow
MARK = b"this is mine\n"

# Every file and folder that dlspec, Hydra or a launcher writes to a run's folder.
RUN_NAMES = (
    "spec.yaml",
    "result.json",
    "status.json",
    "environment.json",
    "prepare.json",
    "versions.json",
    "log.txt",
    "log.rank1.txt",
    "lock",
    "metrics.jsonl",
    "timing.jsonl",
    "curves.png",
    "predictions.png",
    "predictions_images.png",
    "samples.txt",
    "learning_rates.png",
    "run.html",
    "evaluations",
    "evaluations/2026-05-01_12-30-05.json",
    "evaluations/2026-05-01_12-30-05_predictions.png",
    "checkpoints",
    "checkpoints/best.safetensors",
    "checkpoints/last.safetensors",
    "checkpoints/step-000000006.safetensors",
    "checkpoints/step-000000099.safetensors",
    "checkpoints/step-000000099.shards",
    "checkpoints/step-000000099-2.shards",
    "checkpoints/step-000000099.safetensors.damaged",
    "events.out.tfevents.0000000001.host.1.dlspec",
    ".hydra",
    ".hydra/config.yaml",
    ".hydra/hydra.yaml",
    ".hydra/overrides.yaml",
)
# Those of a sweep's folder. `2` is the folder of a job that is new when the sweep is resumed.
SWEEP_NAMES = (
    "sweep.json",
    "multirun.yaml",
    "leaderboard.csv",
    "report.html",
    "optimization_results.yaml",
    ".submitit",
    "stop",
    "lock",
    "checkpoints",
    ".hydra",
    "0",
    "2",
    "0/job.json",
    *(f"0/{each}" for each in RUN_NAMES),
)


def make_outside(folder: Path) -> Path:
    """A folder with a file and with copies of what a run's folder contains: things that nobody may change."""
    folder.mkdir()
    (folder / "mine").write_bytes(MARK)
    (folder / "things").mkdir()
    (folder / "things/mine").write_bytes(MARK)
    return folder


def read_outside(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything in a folder, with mode, time of the last change, and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(folder))] = status.st_mode, status.st_mtime_ns, content
    return found


def _link_to_file(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "mine")


def _link_to_folder(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "things")


def _link_to_copy(path: Path, outside: Path) -> None:
    """A link to what was there before, so that reading it succeeds."""
    path.symlink_to(outside / "copy")


def _link_to_nothing(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "new")


def _make_pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def _make_hard_link(path: Path, outside: Path) -> None:
    os.link(outside / ("copy" if (outside / "copy").is_file() else "mine"), path)


def _make_device(path: Path, outside: Path) -> None:
    """A second /dev/zero, which never ends."""
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))


Attack = Callable[[Path, Path], None]
ATTACKS: dict[str, Attack] = {
    "link to a file": _link_to_file,
    "link to a folder": _link_to_folder,
    "link to what was there": _link_to_copy,
    "dangling link": _link_to_nothing,
    "pipe": _make_pipe,
    "hard link": _make_hard_link,
    "device": _make_device,
}


def attack(path: Path, kind: str, outside: Path) -> None:
    """Replace what is at `path`, which is kept as `copy` in the folder outside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    copy = outside / "copy"
    if copy.is_dir():
        shutil.rmtree(copy)
    copy.unlink(missing_ok=True)
    if os.path.lexists(path):
        path.rename(copy)
    ATTACKS[kind](path, outside)


@contextmanager
def fail_after(seconds: int = SECONDS) -> Iterator[None]:
    """A hang is a failure."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
