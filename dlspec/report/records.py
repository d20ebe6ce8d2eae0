"""What a report reads of a run folder, whoever wrote its files: small, plain and bounded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from dlspec.errors import SpecError, UserError, cut, printable
from dlspec.language.yaml.yaml_files import display_name, load_text
from dlspec.limits import limit
from dlspec.runs.finding import Run, find_runs
from dlspec.runs.io import read_small
from dlspec.runs.job_result import JobResult, read_result
from dlspec.runs.job_state import JobState
from dlspec.runs.json_values import read_number
from dlspec.runs.layout import HYDRA_OVERRIDES, METRICS, SPEC, TIMING
from dlspec.runs.run_status import rerun_command
from dlspec.runs.sweep_file import ListedJob, list_jobs

LARGEST_CURVES = 20_000_000
MOST_NAMES = 50
"""So many results and curves of a run are read."""
LONGEST_NAME = 80
FAILED = (JobState.FAILED, JobState.KILLED)
LARGEST_NUMBER = 1e100
"""Sums and squares of numbers below it stay numbers."""
_MODULE = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)


@dataclass(frozen=True)
class Record:
    """A run or a sweep's job among others that it is compared with: its spec, and what came of it.

    It brings together what several files say, of which any may be missing. None and '' are what nobody knows.

    `name` is the job's number, or the folder below the one that was asked for; `results` are the best epoch's and the
    test's; `folder` is None for a job that was refused before anything of it was written.
    """

    name: str
    status: JobState
    folder: Path | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    monitor: str = ""
    mode: str = ""
    monitored: float | None = None
    results: Mapping[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    steps: int | None = None
    parameters: int | None = None
    seconds: float | None = None
    error: str = ""

    @property
    def is_finished(self) -> bool:
        return self.status is JobState.FINISHED

    @property
    def rerun(self) -> str:
        """The shell's line that trains this spec again, '' where there is none."""
        if self.folder is None or not self.spec:
            return ""
        imports = self.spec.get("imports")  # a saved spec's modules must be named again
        names = [each for each in imports if _MODULE.fullmatch(str(each))] if isinstance(imports, list) else []
        words = f" 'imports=[{','.join(names)}]'" if names else ""
        return rerun_command(display_name(self.folder)) + words


def read_records(roots: Sequence[Path]) -> list[Record]:
    """Every run and job at or below the folders: a sweep's jobs by their numbers, other runs by their names."""
    runs = {run.folder: run for run in find_runs(roots)}
    jobs = {_job_folder(root, job): job for root in roots for job in list_jobs(root)}
    records = [_record(run, _name(run.folder, roots), jobs.get(run.folder)) for run in runs.values()]
    records += [_absent(job) for folder, job in jobs.items() if folder not in runs]
    return sorted(records, key=lambda each: _order(each.name))


def read_record(folder: Path) -> Record:
    """The run in `folder`; UserError where there is none."""
    run = next((each for each in find_runs([folder]) if each.folder == folder), None)
    if run is None:
        raise UserError(f"no run in '{printable(cut(display_name(folder)))}'; name a run's folder, which holds {SPEC}")
    return _record(run, display_name(folder))


def _job_folder(root: Path, job: ListedJob) -> Path:
    """Where the job's files are: below the sweep's folder, wherever that was moved to."""
    if not job.folder or "\0" in job.folder:
        return root / f"job {job.number}"
    path = root / job.folder
    return path if path.is_relative_to(root) and ".." not in path.parts else root / path.name


def _name(folder: Path, roots: Sequence[Path]) -> str:
    inside = [folder.relative_to(root) for root in roots if folder.is_relative_to(root)]
    return min((str(each) for each in inside if each.parts), key=len, default=folder.name)


def _order(name: str) -> tuple[tuple[int, int, str], ...]:
    """2 before 10, and both before any text; the same for each part of a path."""
    parts = name.replace("\\", "/").split("/")
    return tuple((0, int(part), "") if part.isdecimal() and len(part) < 20 else (1, 0, part) for part in parts)


def _record(run: Run, name: str, job: ListedJob | None = None) -> Record:
    """The record of a run, and of what its sweep lists of it where it is a sweep's job."""
    status, result = run.status, read_result(run.folder) or JobResult()
    error = result.error or (None if job is None else job.error)
    return Record(
        name=name,
        status=run.state,
        folder=run.folder,
        spec=read_spec(run.folder),
        overrides=_listed_overrides(job) or read_overrides(run.folder),
        monitor=cut(status.monitor, LONGEST_NAME),
        mode=result.mode,
        monitored=status.monitored,
        results=_numbers(result.best) | _numbers(result.test),
        best_epoch=status.best_epoch,
        steps=status.step,
        parameters=result.parameters,
        seconds=_number(result.timing["seconds"]) if "seconds" in result.timing else status.seconds,
        error=_text(status.reason if error is None else error) if run.state in FAILED else "",
    )


def _absent(job: ListedJob) -> Record:
    """A job without a folder: it was refused, or waits for its turn."""
    return Record(
        name=str(job.number),
        status=job.status,
        overrides=_listed_overrides(job),
        error=_text(job.error or ""),
    )


def _listed_overrides(job: ListedJob | None) -> tuple[str, ...]:
    return () if job is None else tuple(cut(each) for each in job.overrides)


def _text(text: str) -> str:
    return cut(text.strip(), 2_000)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(cut(each) for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _numbers(value: object) -> dict[str, float]:
    """The finite numbers of a mapping, by their names."""
    items = list(value.items())[:MOST_NAMES] if isinstance(value, dict) else []
    numbers = ((name, _number(each)) for name, each in items if len(name) <= LONGEST_NAME)
    return {name: number for name, number in numbers if number is not None}


def _number(value: object) -> float | None:
    return read_number(value, LARGEST_NUMBER)


# ---- specs and overrides ---------------------------------------------------------------------------------------------


def read_spec(folder: Path) -> dict[str, Any]:
    """The run's spec as values, empty where it is none."""
    tree = _yaml(folder / SPEC)
    return tree if isinstance(tree, dict) and all(isinstance(key, str) for key in tree) else {}


def read_overrides(folder: Path) -> tuple[str, ...]:
    """What the command line said of this run."""
    return _texts(_yaml(folder / HYDRA_OVERRIDES))


def _yaml(path: Path) -> Any:
    try:
        about = path.stat()
    except (OSError, ValueError):
        return None
    return _yaml_of(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=10_000)  # a sweep's report is written again as jobs end: what was read of the others stays
def _yaml_of(path: Path, changed: int, size: int) -> Any:
    content = read_small(path, limit("file_bytes"))
    try:
        return None if content is None else load_text(content.decode("utf-8-sig"), path.name).tree
    except (SpecError, ValueError):
        return None


# ---- curves ----------------------------------------------------------------------------------------------------------


def read_curves(folder: Path) -> list[dict[str, float]]:
    """What the run measured, epoch by epoch, and the `seconds` that it had trained until then."""
    epochs = list(_lines(folder / METRICS))
    total = 0.0
    for row, timing in zip(epochs, _lines(folder / TIMING), strict=False):
        total += timing.get("seconds", 0.0)
        row["seconds"] = total
    return epochs


def _lines(path: Path) -> Iterator[dict[str, float]]:
    """The numbers of each line, up to one that a kill cut off."""
    for line in (read_small(path, LARGEST_CURVES) or b"").splitlines():
        try:
            yield _numbers(json.loads(line))
        except (ValueError, RecursionError):
            return
