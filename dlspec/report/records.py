"""Read run folders for a report. Anyone may have written the files, so all sizes are limited."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from dlspec.errors import SpecError, UserError, replace_control_characters, shorten_middle
from dlspec.language.yaml.yaml_files import format_file_path, load_yaml_text, shorten_path
from dlspec.limits import get_limit
from dlspec.runs.file_names import HYDRA_OVERRIDES, METRICS_FILE, SPEC_FILE, TIMING_FILE
from dlspec.runs.io import read_small_file
from dlspec.runs.job_result import JobResult, read_result
from dlspec.runs.job_state import JobState
from dlspec.runs.json_values import read_number
from dlspec.runs.run_discovery import Run, find_runs
from dlspec.runs.run_status import rerun_command
from dlspec.runs.sweep_file import ListedJob, list_jobs

MAX_CURVES_BYTES = 20_000_000
MAX_NAMES = 50  # results and curves that are read from a run
MAX_NAME_LENGTH = 80
FAILED_STATES = (JobState.FAILED, JobState.KILLED)
MAX_RESULT_VALUE = 1e100  # larger numbers could overflow when squared and summed
_MODULE_NAME = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)


@dataclass(frozen=True)
class RunRecord:
    """A run or a sweep's job to compare with others: its spec and its result.

    The values come from multiple files, any of which may be missing. Unknown values are None or "".
    """

    name: str  # the number of a sweep's job, or the run's folder relative to the folder that was given
    status: JobState
    folder: Path | None = None  # None for a job that was refused before it got a folder
    spec: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    monitor: str = ""  # name of the result that decides which epoch is best
    mode: str = ""  # whether its smallest (min) or largest (max) value is best
    monitored: float | None = None  # its best value
    results: Mapping[str, float] = field(default_factory=dict)  # of the best epoch and the test
    best_epoch: int | None = None
    steps: int | None = None
    parameters: int | None = None  # number of parameters of the network
    seconds: float | None = None  # time of training
    error: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether the run trained to its end."""
        return self.status is JobState.FINISHED

    @property
    def rerun(self) -> str:
        """Shell command that trains this spec again; "" if the spec is unknown."""
        if self.folder is None or not self.spec:
            return ""
        names = list_imports(self.spec)  # a saved spec's imports must be repeated on the command line
        imports_override = f" 'imports=[{','.join(names)}]'" if names else ""
        return rerun_command(shorten_path(self.folder)) + imports_override


def read_records(roots: Sequence[Path]) -> list[RunRecord]:
    """Read every run and job in or below the folders, sorted by name: a sweep's jobs by number, other runs by path."""
    runs = {run.folder: run for run in find_runs(roots)}
    jobs = {_find_job_folder(root, job): job for root in roots for job in list_jobs(root)}
    records = [_make_record(run, _make_relative_name(run.folder, roots), jobs.get(run.folder)) for run in runs.values()]
    records += [_make_record_without_folder(job) for folder, job in jobs.items() if folder not in runs]
    return sorted(records, key=lambda each: _make_natural_sort_key(each.name))


def read_record(folder: Path) -> RunRecord:
    """Read the run in `folder`; UserError if there is none."""
    run = next((each for each in find_runs([folder]) if each.folder == folder), None)
    if run is None:
        raise UserError(
            f"no run in '{replace_control_characters(shorten_middle(format_file_path(folder)))}'; "
            f"give a run's folder, which contains {SPEC_FILE}"
        )
    return _make_record(run, format_file_path(folder))


def _find_job_folder(root: Path, job: ListedJob) -> Path:
    """Find a job's folder in the sweep's folder, which may have been moved since."""
    if not job.folder or "\0" in job.folder:
        return root / f"job {job.number}"
    path = root / job.folder
    return path if path.is_relative_to(root) and ".." not in path.parts else root / path.name


def _make_relative_name(folder: Path, roots: Sequence[Path]) -> str:
    inside = [folder.relative_to(root) for root in roots if folder.is_relative_to(root)]
    return min((str(each) for each in inside if each.parts), key=len, default=folder.name)


def _make_natural_sort_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Make a sort key for each part of a path: 2 before 10, and numbers before text."""
    parts = name.replace("\\", "/").split("/")
    return tuple((0, int(part), "") if part.isdecimal() and len(part) < 20 else (1, 0, part) for part in parts)


def _make_record(run: Run, name: str, job: ListedJob | None = None) -> RunRecord:
    """Make the record of a run, with its entry in sweep.json if it is a sweep's job."""
    status, result = run.status, read_result(run.folder) or JobResult()
    error = result.error or (None if job is None else job.error)
    return RunRecord(
        name=name,
        status=run.state,
        folder=run.folder,
        spec=read_spec(run.folder),
        overrides=_read_listed_overrides(job) or read_overrides(run.folder),
        monitor=shorten_middle(status.monitor, MAX_NAME_LENGTH),
        mode=result.mode,
        monitored=status.monitored,
        results=_read_numbers(result.best) | _read_numbers(result.test),
        best_epoch=status.best_epoch,
        steps=status.step,
        parameters=result.parameters,
        seconds=_read_bounded_number(result.timing["seconds"]) if "seconds" in result.timing else status.seconds,
        error=_cut_message(status.reason if error is None else error) if run.state in FAILED_STATES else "",
    )


def _make_record_without_folder(job: ListedJob) -> RunRecord:
    """Make the record of a job without a folder: it was refused or has not started."""
    return RunRecord(
        name=str(job.number),
        status=job.status,
        overrides=_read_listed_overrides(job),
        error=_cut_message(job.error or ""),
    )


def _read_listed_overrides(job: ListedJob | None) -> tuple[str, ...]:
    return () if job is None else tuple(shorten_middle(each) for each in job.overrides)


def _cut_message(text: str) -> str:
    return shorten_middle(text.strip(), 2_000)


def _read_strings(value: object) -> tuple[str, ...]:
    return tuple(shorten_middle(each) for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _read_numbers(value: object) -> dict[str, float]:
    """Return the finite numbers of a mapping, by name."""
    items = list(value.items())[:MAX_NAMES] if isinstance(value, dict) else []
    numbers = ((name, _read_bounded_number(each)) for name, each in items if len(name) <= MAX_NAME_LENGTH)
    return {name: number for name, number in numbers if number is not None}


def _read_bounded_number(value: object) -> float | None:
    return read_number(value, MAX_RESULT_VALUE)


# ---- specs and overrides ---------------------------------------------------------------------------------------------


def list_imports(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """List the modules that a spec imports, without names that are not those of modules."""
    imports = spec.get("imports")
    return (
        tuple(each for each in map(str, imports) if _MODULE_NAME.fullmatch(each)) if isinstance(imports, list) else ()
    )


def read_spec(folder: Path) -> dict[str, Any]:
    """Read the spec of a run; {} if it is missing or damaged."""
    tree = _read_yaml(folder / SPEC_FILE)
    return tree if isinstance(tree, dict) and all(isinstance(key, str) for key in tree) else {}


def read_overrides(folder: Path) -> tuple[str, ...]:
    """Read the overrides that the run was started with."""
    return _read_strings(_read_yaml(folder / HYDRA_OVERRIDES))


def _read_yaml(path: Path) -> Any:
    try:
        file_stat = path.stat()
    except (OSError, ValueError):
        return None
    return _read_yaml_cached(path, file_stat.st_mtime_ns, file_stat.st_size)


@lru_cache(maxsize=10_000)  # a sweep's report is rewritten whenever a job finishes, with the same specs of the others
def _read_yaml_cached(path: Path, changed: int, size: int) -> Any:
    content = read_small_file(path, get_limit("file_bytes"))
    try:
        return None if content is None else load_yaml_text(content.decode("utf-8-sig"), path.name).tree
    except (SpecError, ValueError):
        return None


# ---- curves ----------------------------------------------------------------------------------------------------------


def read_curves(folder: Path) -> list[dict[str, float]]:
    """Read the results of each epoch, and as `seconds` the training time up to its end."""
    epochs = list(_read_number_lines(folder / METRICS_FILE))
    total = 0.0
    for row, timing in zip(epochs, _read_number_lines(folder / TIMING_FILE), strict=False):
        total += timing.get("seconds", 0.0)
        row["seconds"] = total
    return epochs


def _read_number_lines(path: Path) -> Iterator[dict[str, float]]:
    """Yield the numbers of each line, up to a line that a killed process left incomplete."""
    for line in (read_small_file(path, MAX_CURVES_BYTES) or b"").splitlines():
        try:
            yield _read_numbers(json.loads(line))
        except (ValueError, RecursionError):
            return
