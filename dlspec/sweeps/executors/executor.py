"""What runs a sweep's jobs, whichever way: what it is given, and what it reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from dlspec.runs.job_result import JobResult, make_failed_result

ProgressScope = Literal["all", "jobs"]


@dataclass(frozen=True)
class TaskStarted:
    """What an executor reports: a process has taken the task."""

    task: int


@dataclass(frozen=True)
class TaskEnded:
    """What an executor reports: a task is over, with its result or how its process died."""

    task: int
    result: Any = None
    death_reason: str = ""


def result_from_event(event: TaskEnded) -> JobResult:
    """What came of the job that ended: a job whose process died has failed."""
    if event.death_reason:
        return make_failed_result(event.death_reason)
    assert isinstance(event.result, JobResult)
    return event.result


class Executor(Protocol):
    """Runs tasks. `shown` is what this process shows: all of them, or a line a job, where each shows itself."""

    @property
    def progress_scope(self) -> ProgressScope: ...

    @property
    def is_stopping(self) -> bool: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: object, *_: object) -> None: ...

    def run(self, tasks: Iterable[Any], poll_seconds: float) -> Iterator[TaskStarted | TaskEnded | None]: ...

    def stop(self) -> None: ...
