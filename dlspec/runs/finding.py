"""The run folders below a folder, and what became of each: without torch, quick, and whatever their files hold."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dlspec.errors import UserError, cut, printable
from dlspec.runs.job_state import JobState
from dlspec.runs.layout import CHECKPOINTS, RESULT, SPEC, STATUS
from dlspec.runs.lock import is_held
from dlspec.runs.run_status import RunStatus, read_status

ENDED = (JobState.FINISHED, JobState.FAILED, JobState.INTERRUPTED)

DEEPEST = 8
MOST_FOLDERS = 100_000
SKIPPED = {CHECKPOINTS, "__pycache__", "node_modules", "site-packages"}
SECONDS_OF_SILENCE = 600.0
"""After so long without a sign of life a run of another machine counts as killed."""


@dataclass(frozen=True)
class Run:
    """A run folder as it is found, and its state, which its files alone do not tell: a killed run says `running`.

    `age` is how many seconds ago its status was renewed, None where nothing tells.
    """

    folder: Path
    state: JobState
    status: RunStatus
    age: float | None

    @property
    def can_be_resumed(self) -> bool:
        return self.state in (JobState.FAILED, JobState.INTERRUPTED, JobState.KILLED)


def find_runs(roots: Sequence[Path]) -> list[Run]:
    """Every run at or below the folders, those of newest status first. Links are not followed."""
    here, now = socket.gethostname(), time.time()
    found = dict.fromkeys(folder for root in roots for folder in run_folders(root))
    runs = [_judge(folder, here, now) for folder in found]
    return sorted(runs, key=lambda run: (run.age is None, run.age, str(run.folder)))


def demand_folders(names: Sequence[str | Path], fix: str = "name the folder of a sweep or of runs") -> list[Path]:
    """The folders; UserError names those that are not there."""
    missing = [f"'{printable(cut(str(each)))}'" for each in names if not _is_folder(Path(each))]
    if missing:
        raise UserError(f"no folder {', '.join(missing)}; {fix}")
    return [Path(each) for each in names]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except ValueError:  # a zero byte in its name
        return False


def run_folders(root: Path) -> Iterator[Path]:
    """The folders that hold a run's files; those deeper than `DEEPEST` or after `MOST_FOLDERS` are not looked at."""
    waiting, looked = [(root, 0)], 0
    while waiting and looked < MOST_FOLDERS:
        folder, depth = waiting.pop()
        looked += 1
        names, below = _content(folder)
        if STATUS in names or SPEC in names:
            yield folder
        if depth < DEEPEST:
            waiting += [(folder / name, depth + 1) for name in below]


def _content(folder: Path) -> tuple[set[str], list[str]]:
    """The names of its files, and of the folders that may hold runs; none where it can't be read."""
    names, below = set(), []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    names.add(entry.name)
                elif entry.name not in SKIPPED and not entry.name.startswith("."):
                    below.append(entry.name)
    except OSError:
        pass
    return names, below


def _judge(folder: Path, here: str, now: float) -> Run:
    status = read_status(folder) or RunStatus()
    age = _age(folder, status, now)
    return Run(folder, _state(folder, status, age, here), status, age)


def _state(folder: Path, status: RunStatus, age: float | None, here: str) -> JobState:
    """Who has the lock runs. Without it `running` is what a killed run last said, or one of a machine that has its own
    locks: there only the status's age tells."""
    is_running = is_held(folder)
    if is_running:
        return JobState.RUNNING
    if status.status in ENDED:
        return status.status
    is_elsewhere = is_running is None or status.host not in ("", here)
    is_fresh = age is not None and age < SECONDS_OF_SILENCE
    goes_on = status.status is JobState.RUNNING and is_elsewhere and is_fresh
    return JobState.RUNNING if goes_on else JobState.KILLED


def _age(folder: Path, status: RunStatus, now: float) -> float | None:
    """Seconds since the status was renewed, or where it does not say so since its file was; clocks may disagree."""
    written = _timestamp(status.renewed)
    if written is None:
        written = _modified(folder)
    return None if written is None else max(now - written, 0.0)


def _timestamp(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _modified(folder: Path) -> float | None:
    for name in (STATUS, RESULT, SPEC):
        try:
            return (folder / name).stat().st_mtime
        except OSError:
            continue
    return None
