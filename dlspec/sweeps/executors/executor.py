"""The interface of everything that runs a sweep's jobs, and the events that it reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from dlspec.runs.job_result import JobResult, make_failed_result

# "all": the sweep shows the progress of all jobs. "jobs": each job prints its own progress.
ProgressScope = Literal["all", "jobs"]


@dataclass(frozen=True)
class TaskStarted:
    """Event of an executor: a task has started."""

    task: int  # the task's number, counted from 0 in the order of the tasks


@dataclass(frozen=True)
class TaskEnded:
    """Event of an executor: a task has ended, with a result or because its process died."""

    task: int  # the task's number, counted from 0 in the order of the tasks
    result: Any = None
    death_reason: str = ""  # how the process died; '' if it returned a result


@dataclass(frozen=True)
class ExecutorMessage:
    """Event of an executor: something that the user should know about how the tasks run."""

    text: str


@dataclass(frozen=True)
class TaskReported:
    """Event of an executor: a running task has sent something before its end."""

    task: int  # the task's number, counted from 0 in the order of the tasks
    report: Any


ExecutorEvent = TaskStarted | TaskReported | TaskEnded | ExecutorMessage


def result_from_event(event: TaskEnded) -> JobResult:
    """Return the result of a job that ended; a job whose process died has failed."""
    if event.death_reason:
        return make_failed_result(event.death_reason)
    assert isinstance(event.result, JobResult)
    return event.result


class Executor(Protocol):
    """Runs tasks. Use it as a context manager: leaving it ends all processes that it started."""

    @property
    def progress_scope(self) -> ProgressScope:
        """Who shows the progress: the sweep ("all"), or each job its own ("jobs")."""
        ...

    @property
    def starts_together(self) -> bool:
        """Whether it takes all tasks before the first one starts; else each when it can start."""
        ...

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: object, *_: object) -> None: ...

    def run(self, tasks: Iterable[Any], poll_seconds: float) -> Iterator[ExecutorEvent | None]:
        """Run the tasks and yield their events; yield None when nothing happened for `poll_seconds`."""
        ...

    def stop(self) -> None:
        """Start no further task, and ask the running ones to save and end."""
        ...
