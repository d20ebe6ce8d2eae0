"""The result of a run or of a sweep's job, and how it is read from `result.json`."""

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
FIELDS_NOT_IN_FILE = ("text", "data")  # not in `result.json`; only passed between the processes of a sweep


@dataclass(frozen=True)
class JobResult:
    """The result of a run or of a sweep's job so far. Unknown values are None, nan or ""."""

    status: JobState = JobState.WAITING
    epochs: int | None = None  # epochs trained
    steps: int | None = None  # steps trained
    best_epoch: int | None = None
    monitor: str = ""  # name of the result that decides which epoch is best, such as val/loss
    monitored: float = math.nan  # the best value of that result
    mode: Mode = ""  # whether the smallest (min) or the largest (max) value is best
    results: Mapping[str, float] = field(default_factory=dict)  # of the last epoch
    best: Mapping[str, float] = field(default_factory=dict)  # of the best epoch
    test: Mapping[str, float] = field(default_factory=dict)  # of the final test
    parameters: int | None = None  # number of parameters of the network
    stop_reason: str = ""  # why training stopped early
    error: str = ""  # in one line
    timing: Mapping[str, float] = field(default_factory=dict)  # durations in seconds, and throughput
    text: str = ""  # the full error message
    data: str = ""  # checksum of the data of the job

    @property
    def has_monitored_result(self) -> bool:
        """Whether there is a result to compare with others'."""
        return self.monitor != ""

    @property
    def rank(self) -> float:
        """Number to sort results by: smaller is better, infinite without a result."""
        if math.isnan(self.monitored):
            return math.inf
        return -self.monitored if self.mode == "max" else self.monitored

    def as_dict(self) -> dict[str, Any]:
        """Convert to the contents of result.json."""
        return {name: value for name, value in asdict(self).items() if name not in FIELDS_NOT_IN_FILE}


def make_failed_result(error: str, text: str = "") -> JobResult:
    """Make the result of a failed job from its error in one line, and the full message if it is longer."""
    return JobResult(JobState.FAILED, error=error, text=text or error)


def read_result(folder: Path, file: str = RESULT_FILE) -> JobResult | None:
    """Read the result of the run in a folder; None if the run did not write one, because it was killed."""
    written = read_json_object(folder / file)
    return None if written is None else parse_result(written)


def parse_result(written: Mapping[str, Any]) -> JobResult:
    """Convert the contents of a result file, which anyone may have written: ignore values of the wrong type."""
    return JobResult(**{name: read(written.get(name)) for name, read in _READERS.items()})


def _read_state(value: object) -> JobState:
    return read_state(value) or JobState.WAITING


def _read_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _read_float(value: object) -> float:
    """Return a number; nan for null, because values that are not finite are written as null."""
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
