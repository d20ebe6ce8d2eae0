"""What came of a run or of a sweep's job: `result.json`, which training writes and everybody else reads here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from dlspec.runs.file_names import RESULT_FILE
from dlspec.runs.io import read_json_object
from dlspec.runs.job_state import JobState, read_state
from dlspec.runs.json_values import read_count, read_number

Mode = Literal["min", "max", ""]
FIELDS_NOT_IN_FILE = ("text", "data")  # of `result.json`; a sweep's processes hand them over


@dataclass(frozen=True)
class JobResult:
    """What came of a run or of a sweep's job so far. None, nan and '' are what nobody knows.

    `monitored` is the best value of the result `monitor`, less of which is better where `mode` is min. `results` are
    the last epoch's, `best` the best epoch's, `test` the final test's. `error` is a line, `text` all that there is to
    say of it; `data` is the checksum of the data that the job was given.
    """

    status: JobState = JobState.WAITING
    epochs: int | None = None
    steps: int | None = None
    best_epoch: int | None = None
    monitor: str = ""
    monitored: float = math.nan
    mode: Mode = ""
    results: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    parameters: int | None = None
    stop_reason: str = ""
    error: str = ""
    timing: Mapping[str, float] = field(default_factory=dict)
    text: str = ""
    data: str = ""

    @property
    def is_measured(self) -> bool:
        """Whether there is a result to compare with others'."""
        return self.monitor != ""

    @property
    def rank(self) -> float:
        """The less the better."""
        if math.isnan(self.monitored):
            return math.inf
        return -self.monitored if self.mode == "max" else self.monitored

    def as_dict(self) -> dict[str, Any]:
        """For result.json."""
        return {name: value for name, value in asdict(self).items() if name not in FIELDS_NOT_IN_FILE}


def make_failed_result(error: str, text: str = "") -> JobResult:
    """The result of a job that failed with an error of one line, and in full."""
    return JobResult(JobState.FAILED, error=error, text=text or error)


def read_result(folder: Path, file: str = RESULT_FILE) -> JobResult | None:
    """What came of the run in a folder, as a file of it says; None where it wrote none (it was killed)."""
    written = read_json_object(folder / file)
    return None if written is None else parse_result(written)


def parse_result(written: Mapping[str, Any]) -> JobResult:
    """A result as a file has it, whoever wrote that: values of a wrong type are as if they were not there."""
    return JobResult(**{name: read(written.get(name)) for name, read in _READERS.items()})


def _read_state(value: object) -> JobState:
    return read_state(value) or JobState.WAITING


def _read_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _read_float(value: object) -> float:
    """A number that is not finite was written as null."""
    number = read_number(value)
    return math.nan if number is None else number


def _read_floats(value: object) -> dict[str, float]:
    return {str(name): _read_float(each) for name, each in value.items()} if isinstance(value, dict) else {}


def _read_mode(value: object) -> Mode:
    if value == "min":
        return "min"
    return "max" if value == "max" else ""


_READER_BY_TYPE: Mapping[str, Callable[[object], Any]] = {
    "JobState": _read_state,
    "int | None": read_count,
    "str": _read_text,
    "float": _read_float,
    "Mode": _read_mode,
    "Mapping[str, float]": _read_floats,
}
_READERS = {each.name: _READER_BY_TYPE[str(each.type)] for each in fields(JobResult)}
