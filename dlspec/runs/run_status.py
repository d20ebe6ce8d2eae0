"""The status of a run while it trains, and how it is read from `status.json`, which anyone may have written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from dlspec.formatting import format_override, quote_for_shell
from dlspec.runs.file_names import STATUS_FILE
from dlspec.runs.io import read_json_object
from dlspec.runs.job_result import JobResult, read_result
from dlspec.runs.job_state import FINAL_STATES, JobState, read_state
from dlspec.runs.json_values import read_count, read_line, read_number


@dataclass(frozen=True)
class RunStatus:
    """Progress of a run, updated every few seconds while it trains. Unknown values are None or "".

    Unlike a `JobResult` it exists before the run has results, and contains only the best value of one result.
    """

    status: JobState | None = None
    phase: str = ""  # what the process is doing, such as training or validation
    epoch: int | None = None
    epochs: int | None = None  # number of epochs planned
    batch: int | None = None  # in the current phase
    batches: int | None = None  # number of batches in the current phase
    step: int | None = None
    planned_steps: int | None = None
    samples_per_second: float | None = None
    seconds: float | None = None  # since the process started training
    seconds_left: float | None = None  # estimate for the rest of the training
    monitor: str = ""  # name of the result that decides which epoch is best
    monitored: float | None = None  # its best value so far
    best_epoch: int | None = None
    reason: str = ""  # an error, or why training stopped early
    renewed: str = ""  # when this was written, in ISO 8601 and UTC
    pid: int | None = None
    host: str = ""
    resume: str = ""  # shell command that resumes the run


def read_status(folder: Path) -> RunStatus | None:
    """Read the status of the run in `folder`; None if neither status.json nor result.json can be read.

    result.json decides how a run ended: it is written before status.json, and a process may be killed in between. A
    resumed run deletes it first, so a run without one is not finished. Values of the wrong type are ignored.
    """
    written, result = read_json_object(folder / STATUS_FILE), read_result(folder)
    if written is None:
        return None if result is None else _add_result(RunStatus(), result)
    status = RunStatus(**{name: read(written.get(name)) for name, read in _READERS.items()})
    if result is not None and result.status in FINAL_STATES:
        return status if status.status is result.status else _add_result(status, result)
    return replace(status, status=JobState.RUNNING) if status.status is JobState.FINISHED else status


def _add_result(status: RunStatus, result: JobResult) -> RunStatus:
    """Return the status at the end of a run, of which only the result was written."""
    return replace(
        status,
        status=result.status,
        epoch=result.epochs,
        step=result.steps,
        samples_per_second=None,
        seconds=read_number(result.timing.get("seconds")),
        seconds_left=None,
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
    """Return the shell command that resumes the run or sweep in `folder`."""
    return f"python -m dlspec resume {quote_for_shell(format_override(kind, str(folder)))}"


def rerun_command(folder: Path | str) -> str:
    """Return the shell command that trains the spec of the run in `folder` again, in a new folder."""
    return f"python -m dlspec {quote_for_shell(format_override('run', str(folder)))}"
