"""`sweep.json`: the jobs of a sweep, by which it goes on. Another hand may have written it, so it is read with care."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlspec.errors import UserError
from dlspec.runs.file_names import RESULT_FILE, SWEEP_FILE
from dlspec.runs.io import to_safe_name, write_json, write_json_unsynced
from dlspec.runs.job_result import JobResult
from dlspec.runs.job_state import JobState
from dlspec.runs.run_status import RunStatus, read_status
from dlspec.runs.sweep_file import parse_listed_job, read_sweep_file
from dlspec.sweeps.records.planned_job import NO_FOLDER, PlannedJob, SweepEntry

FORMAT = 1
STRING_KEYS = ("folder", "hash", "status", "error", "code", "data")


@dataclass
class SweepRecord:
    """A sweep: `command` are the words that began it, None where Python did."""

    folder: Path
    entries: list[SweepEntry] = field(default_factory=list)
    command: list[str] | None = None
    config_dir: str | None = None

    def write(self, *, synced: bool = True) -> None:
        jobs = [self._entry_to_json(entry) for entry in self.entries]
        content = {"format": FORMAT, "command": self.command, "config_dir": self.config_dir, "jobs": jobs}
        write = write_json if synced else write_json_unsynced
        write(self.folder / SWEEP_FILE, content)

    def _entry_to_json(self, entry: SweepEntry) -> dict[str, Any]:
        job = entry.job
        return {
            "number": job.number,
            "folder": "" if job.folder == NO_FOLDER else job.folder.relative_to(self.folder).as_posix(),
            "hash": job.hash,
            "overrides": list(job.overrides),
            "status": entry.status,
            "error": entry.result.error,
            "code": entry.code,
            "data": entry.data,
        }

    def entries_by_hash(self) -> Mapping[str, Iterator[SweepEntry]]:
        """The jobs by their hashes, in order: of equal ones the first is recognized first."""
        found: defaultdict[str, list[SweepEntry]] = defaultdict(list)
        for entry in self.entries:
            found[entry.job.hash].append(entry)
        return {key: iter(entries) for key, entries in found.items()}

    def add(self, entries: Iterable[SweepEntry]) -> None:
        """Add jobs; one whose number is there already takes its place."""
        by_number = {entry.job.number: entry for entry in (*self.entries, *entries)}
        self.entries = list(by_number.values())

    def new_number(self) -> int:
        return max((entry.job.number for entry in self.entries), default=-1) + 1

    def new_folder(self, name: str, taken_folders: Collection[Path]) -> Path:
        """A new job's folder, its name made safe, with a number behind it where it is taken."""
        folder, _, last = name.replace(os.sep, "/").rpartition("/")
        stem = "/".join([*(each for each in folder.split("/") if each not in ("", ".", "..")), to_safe_name(last)])
        count, path = 1, self.folder / stem
        while path in taken_folders or path.exists():
            count += 1
            path = self.folder / f"{stem}_{count}"
        return path


def read_sweep_record(folder: Path) -> SweepRecord | None:
    """What the sweep's folder says of it, None where it says nothing; UserError where that can't be read."""
    path = folder / SWEEP_FILE
    if not path.is_file():
        return None
    try:
        tree = read_sweep_file(folder) or {}
        entries = [_entry_from_json(each, folder) for each in tree["jobs"]]
        command, config_dir = tree["command"], tree["config_dir"]
        folders = [entry.job.folder for entry in entries if entry.job.folder != NO_FOLDER]
        if tree["format"] != FORMAT or not isinstance(config_dir, str | None) or len(set(folders)) < len(folders):
            raise ValueError
        if command is not None:
            _check_strings(command)
        return SweepRecord(folder, entries, command, config_dir)
    except (ValueError, KeyError, TypeError):
        fix = "take another folder, or move this one away to begin anew"
        raise UserError(f"'{path}' is no list of jobs that this dlspec reads; {fix}") from None


def _entry_from_json(tree: Mapping[str, Any], sweep_folder: Path) -> SweepEntry:
    """The entry of a job's line; KeyError or ValueError where the line is not as a sweep wrote it."""
    _check_strings(tree["overrides"])
    _check_strings([tree[key] for key in STRING_KEYS])
    listed = parse_listed_job(tree)
    if listed.number is None or not _is_inside(listed.folder):
        raise ValueError
    folder = sweep_folder / listed.folder if listed.folder else NO_FOLDER
    job = PlannedJob(listed.overrides, listed.hash, number=listed.number, folder=folder)
    return SweepEntry(job, JobResult(listed.status, error=listed.error or ""), listed.code, listed.data)


def _check_strings(values: object) -> None:
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise ValueError


def _is_inside(name: str) -> bool:
    """Whether a name leads to a place below the sweep's folder; '' is that of a job which was refused."""
    path = Path(name)
    return name == "" or (path.parts != () and "\0" not in name and not path.is_absolute() and ".." not in path.parts)


def is_run_complete(folder: Path) -> bool:
    """Whether the run in `folder` came to its end, its test with it."""
    return (folder / RESULT_FILE).is_file() and (read_status(folder) or RunStatus()).status is JobState.FINISHED
