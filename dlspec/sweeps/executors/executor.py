"""What runs a sweep's jobs, whichever way: what it is given, and what it reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from dlspec.runs.job_result import JobResult, failed_result

Shown = Literal["all", "jobs"]


@dataclass(frozen=True)
class Began:
    """What an executor reports: a process has taken the task."""

    task: int


@dataclass(frozen=True)
class Ended:
    """What an executor reports: a task is over, with its result or how its process died."""

    task: int
    result: Any = None
    died: str = ""


def result_of_ended(event: Ended) -> JobResult:
    """What came of the job that ended: a job whose process died has failed."""
    if event.died:
        return failed_result(event.died)
    assert isinstance(event.result, JobResult)
    return event.result


class Executor(Protocol):
    """Runs tasks. `shown` is what this process shows: all of them, or a line a job, where each shows itself."""

    @property
    def shown(self) -> Shown: ...

    @property
    def is_stopping(self) -> bool: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: object, *_: object) -> None: ...

    def run(self, tasks: Iterable[Any], seconds: float) -> Iterator[Began | Ended | None]: ...

    def stop(self) -> None: ...
