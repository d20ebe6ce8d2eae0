"""Read `sweep.json`, the list of a sweep's jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlspec.errors import shorten_middle
from dlspec.runs.file_names import SWEEP_FILE
from dlspec.runs.io import read_json_object
from dlspec.runs.job_state import JobState, read_state
from dlspec.runs.json_values import read_count

MAX_BYTES = 50_000_000
MAX_TEXT = 2_000  # characters of an override, a name or an error


@dataclass(frozen=True)
class ListedJob:
    """A job as listed in sweep.json. Missing values are None or ""."""

    number: int | None
    folder: str  # relative to the folder of the sweep
    hash: str  # fingerprint by which a resumed sweep recognizes the job
    overrides: tuple[str, ...]
    status: JobState
    error: str | None
    code: str  # fingerprint of the code that made the result
    data: str  # fingerprint of the data that the result was made with


def read_sweep_file(folder: Path) -> dict[str, Any] | None:
    """Read the sweep.json of a folder; None if it is missing or not a JSON object."""
    return read_json_object(folder / SWEEP_FILE, MAX_BYTES)


def list_jobs(folder: Path) -> list[ListedJob]:
    """Read the jobs of the sweep in a folder; [] if there are none."""
    jobs = (read_sweep_file(folder) or {}).get("jobs")
    return [parse_listed_job(each) for each in jobs if isinstance(each, dict)] if isinstance(jobs, list) else []


def parse_listed_job(line: Mapping[str, Any]) -> ListedJob:
    """Convert a job's entry in sweep.json, which anyone may have written: ignore values of the wrong type."""
    return ListedJob(
        number=read_count(line.get("number")),
        folder=_read_text(line.get("folder")) or "",
        hash=_read_text(line.get("hash")) or "",
        overrides=_read_texts(line.get("overrides")),
        status=read_state(line.get("status")) or JobState.WAITING,
        error=_read_text(line.get("error")),
        code=_read_text(line.get("code")) or "",
        data=_read_text(line.get("data")) or "",
    )


def _read_text(value: object) -> str | None:
    return shorten_middle(value, MAX_TEXT) if isinstance(value, str) else None


def _read_texts(value: object) -> tuple[str, ...]:
    return (
        tuple(shorten_middle(each, MAX_TEXT) for each in value if isinstance(each, str))
        if isinstance(value, list)
        else ()
    )
