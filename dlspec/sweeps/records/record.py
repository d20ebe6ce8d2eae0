"""`sweep.json`: the jobs of a sweep, by which it goes on. Another hand may have written it, so it is read with care."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from dlspec.errors import UserError, cut
from dlspec.runs.io import renew_json, safe_name, write_json
from dlspec.runs.layout import RESULT, SWEEP
from dlspec.runs.run_status import RunStatus, read_status

FORMAT = 1
LARGEST = 50_000_000
MOST_TEXT = 2_000

Status = Literal["waiting", "running", "finished", "failed", "refused", "interrupted"]


@dataclass
class JobRecord:
    """A job: `folder` is below the sweep's, `hash` its identity, `error` a line.

    `code` and `data` say by which code and of which data its result is, '' where there is none yet.
    """

    number: int
    folder: str
    hash: str
    overrides: list[str] = field(default_factory=list)
    status: Status = "waiting"
    error: str = ""
    code: str = ""
    data: str = ""


@dataclass
class SweepRecord:
    """A sweep: `command` are the words that began it, None where Python did."""

    folder: Path
    jobs: list[JobRecord] = field(default_factory=list)
    command: list[str] | None = None
    config_dir: str | None = None

    def write(self, *, synced: bool = True) -> None:
        jobs = [asdict(job) for job in self.jobs]
        content = {"format": FORMAT, "command": self.command, "config_dir": self.config_dir, "jobs": jobs}
        (write_json if synced else renew_json)(self.folder / SWEEP, content)

    def known(self) -> Mapping[str, Iterator[JobRecord]]:
        """The jobs by their hashes, in order: of equal ones the first is known again first."""
        found: defaultdict[str, list[JobRecord]] = defaultdict(list)
        for job in self.jobs:
            found[job.hash].append(job)
        return {key: iter(jobs) for key, jobs in found.items()}

    def new_number(self) -> int:
        return max((job.number for job in self.jobs), default=-1) + 1

    def free_name(self, wanted: str) -> str:
        """The name of a new job's folder, made safe, with a number behind it where another job has it."""
        folder, _, last = wanted.replace(os.sep, "/").rpartition("/")
        stem = "/".join([*(each for each in folder.split("/") if each not in ("", ".", "..")), safe_name(last)])
        taken, count, name = {job.folder for job in self.jobs}, 1, stem
        while name in taken or (self.folder / name).exists():
            count += 1
            name = f"{stem}_{count}"
        return name


def read_sweep(folder: Path) -> SweepRecord | None:
    """What the sweep's folder says of it, None where it says nothing; UserError where that can't be read."""
    path = folder / SWEEP
    if not path.is_file():
        return None
    try:
        content = path.read_bytes() if path.stat().st_size <= LARGEST else b""
        tree = json.loads(content)
        jobs = [_job(each) for each in tree["jobs"]]
        command, config_dir = tree["command"], tree["config_dir"]
        names = [job.folder for job in jobs if job.folder]
        if tree["format"] != FORMAT or not isinstance(config_dir, str | None) or len(set(names)) < len(names):
            raise ValueError
        return SweepRecord(folder, jobs, None if command is None else _texts(command), config_dir)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        fix = "take another folder, or move this one away to begin anew"
        raise UserError(f"'{path}' is no list of jobs that this dlspec reads; {fix}") from None


def _job(tree: Mapping[str, Any]) -> JobRecord:
    values = {each.name: tree[each.name] for each in fields(JobRecord)}
    number, overrides = values.pop("number"), _texts(values.pop("overrides"))
    texts = dict(zip(values, _texts(list(values.values())), strict=True))
    if type(number) is not int or number < 0 or not _is_inside(texts["folder"]):
        raise ValueError
    return JobRecord(number=number, overrides=overrides, **texts)  # type: ignore[arg-type]  # of a status any text does


def _texts(values: Sequence[Any]) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise ValueError
    return [cut(each, MOST_TEXT) for each in values]


def _is_inside(name: str) -> bool:
    """Whether a name leads to a place below the sweep's folder; '' is that of a job which was refused."""
    path = Path(name)
    return name == "" or (path.parts != () and "\0" not in name and not path.is_absolute() and ".." not in path.parts)


def is_done(folder: Path) -> bool:
    """Whether the run in `folder` came to its end, its test with it."""
    return (folder / RESULT).is_file() and (read_status(folder) or RunStatus()).status == "finished"
