"""Run jobs in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

from dlspec.sweeps.executors.executor import ExecutorEvent, ProgressScope, TaskEnded, TaskStarted
from dlspec.sweeps.executors.job_worker import JobWorker


class InlineExecutor:
    """Runs jobs in this process, one after the other."""

    progress_scope: ProgressScope = "jobs"
    starts_together = False

    def __init__(self, worker: JobWorker) -> None:
        self._worker = worker.for_this_process()
        self.is_stopping = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Do nothing: no job runs outside `run`."""

    def run(self, tasks: Iterable[Any], poll_seconds: float) -> Iterator[ExecutorEvent | None]:
        """Run the tasks and yield an event when each starts and ends; `poll_seconds` is not used."""
        for number, task in enumerate(tasks):
            if self.is_stopping:
                return
            yield TaskStarted(number)
            yield TaskEnded(number, self._worker(task))

    def stop(self) -> None:
        """Start no further job."""
        self.is_stopping = True
