"""`sweep.json`: the jobs of a sweep, with which it is resumed. Its values are checked, as users may edit the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlspec.errors import UserError
from dlspec.language.spec_versions import SPEC_VERSION, is_read_version
from dlspec.runs.file_names import RESULT_FILE, SWEEP_FILE
from dlspec.runs.io import write_json, write_json_unsynced
from dlspec.runs.job_result import JobResult
from dlspec.runs.job_state import JobState
from dlspec.runs.job_versions import JobVersions
from dlspec.runs.run_status import RunStatus, read_status
from dlspec.runs.sweep_file import parse_listed_job, read_sweep_file
from dlspec.sweeps.records.planned_job import NO_FOLDER, PlannedJob, SweepEntry

FORMAT = 1
STRING_KEYS = ("folder", "hash", "status", "error", "code", "data")


@dataclass
class SweepRecord:
    """The content of a sweep's `sweep.json`."""

    folder: Path
    entries: list[SweepEntry] = field(default_factory=list)
    command: list[str] | None = None  # the arguments of the command that started it; None for `dlspec.sweep`
    config_dir: str | None = None  # the user's folder of config files
    spec_version: int = SPEC_VERSION  # of all jobs; a sweep is resumed by the rules that it was started with

    def exists(self) -> bool:
        """Whether the sweep's folder contains `sweep.json`: somebody may have deleted or moved the folder."""
        return (self.folder / SWEEP_FILE).exists()

    def write(self, *, synced: bool = True) -> None:
        """Write `sweep.json`; if `synced`, wait until it is on the disk."""
        jobs = [self._entry_to_json(entry) for entry in self.entries]
        content = {
            "format": FORMAT,
            "spec_version": self.spec_version,
            "command": self.command,
            "config_dir": self.config_dir,
            "jobs": jobs,
        }
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
            "code": entry.versions.code,
            "data": entry.versions.data,
        }

    def add(self, entries: Iterable[SweepEntry]) -> None:
        """Add jobs; a job replaces the one with the same number, once its spec is checked."""
        added = (entry for entry in entries if entry.reserved is None)
        by_number = {entry.job.number: entry for entry in (*self.entries, *added)}
        self.entries = list(by_number.values())

    def new_number(self) -> int:
        """Return the number of the next new job."""
        return max((entry.job.number for entry in self.entries), default=-1) + 1


def read_sweep_record(folder: Path) -> SweepRecord | None:
    """Read `sweep.json` in `folder`; return None if there is none, raise UserError if it is damaged."""
    path = folder / SWEEP_FILE
    if not path.is_file():
        return None
    try:
        tree = read_sweep_file(folder) or {}
        entries = [_entry_from_json(each, folder) for each in tree["jobs"]]
        command, config_dir = tree["command"], tree["config_dir"]
        spec_version = tree.get("spec_version", 1)  # dlspec 0.1.0 did not write it
        folders = [entry.job.folder for entry in entries if entry.job.folder != NO_FOLDER]
        if not is_read_version(spec_version):
            raise ValueError
        if tree["format"] != FORMAT or not isinstance(config_dir, str | None) or len(set(folders)) < len(folders):
            raise ValueError
        if command is not None:
            _check_strings(command)
        return SweepRecord(folder, entries, command, config_dir, spec_version)
    except (ValueError, KeyError, TypeError):
        fix = "use another folder, or move this one away to start again"
        raise UserError(f"'{path}' is not a list of jobs that this version of dlspec can read; {fix}") from None


def _entry_from_json(tree: Mapping[str, Any], sweep_folder: Path) -> SweepEntry:
    """Parse a job's entry; raises KeyError, TypeError or ValueError if it is not as a sweep writes it."""
    _check_strings(tree["overrides"])
    _check_strings([tree[key] for key in STRING_KEYS])
    listed = parse_listed_job(tree)
    if listed.number is None or not _is_inside(listed.folder):
        raise ValueError
    folder = sweep_folder / listed.folder if listed.folder else NO_FOLDER
    job = PlannedJob(listed.overrides, listed.hash, number=listed.number, folder=folder)
    result = JobResult(listed.status, error=listed.error or "")
    return SweepEntry(job, result, JobVersions(listed.code, listed.data))


def _check_strings(values: object) -> None:
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise ValueError


def _is_inside(name: str) -> bool:
    """Whether a job's folder is below the sweep's folder; '' is the folder of a refused job."""
    path = Path(name)
    return name == "" or (path.parts != () and "\0" not in name and not path.is_absolute() and ".." not in path.parts)


def is_run_complete(folder: Path) -> bool:
    """Whether the run in `folder` has finished, including its test."""
    return (folder / RESULT_FILE).is_file() and (read_status(folder) or RunStatus()).status is JobState.FINISHED
