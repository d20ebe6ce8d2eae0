"""`status.json`: what a run tells of itself while it goes on, and how that is read by somebody who trusts no file."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from dlspec.formatting import format_override
from dlspec.runs.file_names import STATUS_FILE
from dlspec.runs.io import read_json_object
from dlspec.runs.job_result import JobResult, read_result
from dlspec.runs.job_state import JobState, read_state
from dlspec.runs.json_values import read_count, read_line, read_number


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands while it goes on, renewed every few seconds; None is what nobody knows.

    It is not a `JobResult`: it is written before there is one, and of what was measured it has the best value only.

    `epoch`, `batch` and `step` are out of `epochs`, `batches` (of the pass in `phase`) and `planned_steps`. Seconds are
    those of the process that trains, `seconds_left` its guess for the training. `monitored` is the best result so far,
    of `monitor` in `best_epoch`; `reason` an error, or why the training stopped early; `renewed` when this was written,
    as ISO 8601 in UTC; `resume` the shell's line that resumes the run.
    """

    status: JobState | None = None
    phase: str = ""
    epoch: int | None = None
    epochs: int | None = None
    batch: int | None = None
    batches: int | None = None
    step: int | None = None
    planned_steps: int | None = None
    samples_per_second: float | None = None
    seconds: float | None = None
    seconds_left: float | None = None
    monitor: str = ""
    monitored: float | None = None
    best_epoch: int | None = None
    reason: str = ""
    renewed: str = ""
    pid: int | None = None
    host: str = ""
    resume: str = ""


def read_status(folder: Path) -> RunStatus | None:
    """What the run in `folder` says; a run from before there was a status.json is judged by its result.json.

    None where neither is there or can be read. Values of a wrong type are as if they were not there.
    """
    written = read_json_object(folder / STATUS_FILE)
    if written is not None:
        return RunStatus(**{name: read(written.get(name)) for name, read in _READERS.items()})
    result = read_result(folder)
    return None if result is None else _status_from_result(result)


def _status_from_result(result: JobResult) -> RunStatus:
    return RunStatus(
        status=result.status,
        epoch=result.epochs,
        step=result.steps,
        seconds=read_number(result.timing.get("seconds")),
        monitor=read_line(result.monitor),
        monitored=read_number(result.monitored),
        best_epoch=result.best_epoch,
        reason=read_line(result.error or result.stop_reason),
    )


_READER_BY_TYPE: Mapping[str, Callable[[object], Any]] = {
    "str": read_line,
    "int | None": read_count,
    "float | None": read_number,
    "JobState | None": read_state,
}
_READERS = {each.name: _READER_BY_TYPE[str(each.type)] for each in fields(RunStatus)}


def resume_command(folder: Path | str, kind: Literal["run", "sweep"] = "run") -> str:
    """The shell's line that resumes the run or sweep in `folder`."""
    return f"python -m dlspec resume {shlex.quote(format_override(kind, str(folder)))}"


def rerun_command(folder: Path | str) -> str:
    """The shell's line that trains the spec of the run in `folder` again, in a new folder."""
    return f"python -m dlspec {shlex.quote(format_override('run', str(folder)))}"
