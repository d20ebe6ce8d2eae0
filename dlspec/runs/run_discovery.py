"""Find the run folders below a folder and the state of each run: fast, without torch, and safe for damaged files."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dlspec.errors import UserError, replace_control_characters, shorten_middle
from dlspec.runs.file_names import CHECKPOINTS_FOLDER, RESULT_FILE, SPEC_FILE, STATUS_FILE
from dlspec.runs.job_state import FINAL_STATES, JobState
from dlspec.runs.lock import is_run_locked
from dlspec.runs.run_status import RunStatus, read_status

MAX_DEPTH = 8
MAX_FOLDERS = 100_000
SKIPPED_FOLDERS = {CHECKPOINTS_FOLDER, "__pycache__", "node_modules", "site-packages"}
MAX_SILENT_SECONDS = 600.0  # a run on another machine counts as killed if its status is older than this


@dataclass(frozen=True)
class Run:
    """A run that was found on disk."""

    folder: Path
    state: JobState  # the actual state; the status file of a killed run still says `running`
    status: RunStatus  # the contents of the status file
    age: float | None  # seconds since the status was updated; None if unknown

    @property
    def can_be_resumed(self) -> bool:
        """Whether the run ended before it was finished."""
        return self.state in (JobState.FAILED, JobState.INTERRUPTED, JobState.KILLED)


def find_runs(roots: Sequence[Path]) -> list[Run]:
    """Find every run in or below the folders, most recently updated first. Symbolic links are not followed."""
    this_host, now = socket.gethostname(), time.time()
    found = dict.fromkeys(folder for root in roots for folder in iterate_run_folders(root))
    runs = [_inspect_run(folder, this_host, now) for folder in found]
    return sorted(runs, key=lambda run: (run.age is None, run.age, str(run.folder)))


def require_folders(names: Sequence[str | Path], fix: str = "give the folder of a sweep or of runs") -> list[Path]:
    """Convert names to paths of existing folders; UserError with the names of those that do not exist."""
    missing = [
        f"'{replace_control_characters(shorten_middle(str(each)))}'" for each in names if not _is_folder(Path(each))
    ]
    if missing:
        raise UserError(f"no folder {', '.join(missing)}; {fix}")
    return [Path(each) for each in names]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except ValueError:  # a zero byte in its name
        return False


def iterate_run_folders(root: Path) -> Iterator[Path]:
    """Yield the folders that contain a run, down to `MAX_DEPTH` levels and among the first `MAX_FOLDERS` folders."""
    waiting, visited = [(root, 0)], 0
    while waiting and visited < MAX_FOLDERS:
        folder, depth = waiting.pop()
        visited += 1
        names, subfolders = _list_folder(folder)
        if STATUS_FILE in names or SPEC_FILE in names:
            yield folder
        if depth < MAX_DEPTH:
            waiting += [(folder / name, depth + 1) for name in subfolders]


def _list_folder(folder: Path) -> tuple[set[str], list[str]]:
    """List the names of a folder's files and of its subfolders that may contain runs; nothing if it is unreadable."""
    names, subfolders = set(), []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    names.add(entry.name)
                elif entry.name not in SKIPPED_FOLDERS and not entry.name.startswith("."):
                    subfolders.append(entry.name)
    except OSError:
        pass
    return names, subfolders


def _inspect_run(folder: Path, this_host: str, now: float) -> Run:
    status = read_status(folder) or RunStatus()
    age = _compute_status_age(folder, status, now)
    return Run(folder, _infer_state(folder, status, age, this_host), status, age)


def _infer_state(folder: Path, status: RunStatus, age: float | None, this_host: str) -> JobState:
    """Infer the actual state of a run.

    A locked run is running. A run without a lock whose status is `running` was killed, unless it may run on another
    machine, whose locks are not visible here: then the age of its status decides.
    """
    is_locked_here = is_run_locked(folder)
    if is_locked_here:
        return JobState.RUNNING
    if status.status in FINAL_STATES:
        return status.status
    is_elsewhere = is_locked_here is None or status.host not in ("", this_host)
    is_fresh = age is not None and age < MAX_SILENT_SECONDS
    is_still_running = status.status is JobState.RUNNING and is_elsewhere and is_fresh
    return JobState.RUNNING if is_still_running else JobState.KILLED


def _compute_status_age(folder: Path, status: RunStatus, now: float) -> float | None:
    """Return the seconds since the status was updated, by the time in it or else that of its file.

    The clocks of two machines may differ, so the result is at least 0.
    """
    written = _parse_timestamp(status.renewed)
    if written is None:
        written = _read_modification_time(folder)
    return None if written is None else max(now - written, 0.0)


def _parse_timestamp(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _read_modification_time(folder: Path) -> float | None:
    for name in (STATUS_FILE, RESULT_FILE, SPEC_FILE):
        try:
            return (folder / name).stat().st_mtime
        except OSError:
            continue
    return None
