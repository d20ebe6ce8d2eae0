"""Jobs that another launcher of Hydra's takes to its own processes or machines, all of which see the sweep's folder.

A job writes into its folder that it has begun and what came of it, and is trained in a process apart: what kills that
costs the job, and not the launcher's process. The process that sweeps looks into the folders, and alone writes to the
sweep's own files. A file that it leaves asks the jobs to end, wherever they are.
"""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from dlspec.compat.hydra import has_failed, returned_value
from dlspec.errors import UserError
from dlspec.jobs.error_messages import one_line
from dlspec.runs.io import renew_json
from dlspec.runs.job_result import JobResult, failed_result, read_result
from dlspec.runs.job_state import JobState
from dlspec.runs.layout import JOB, STOP
from dlspec.runs.lock import is_held
from dlspec.sweeps.executors.executor import Began, Ended, Shown, result_of_ended
from dlspec.sweeps.executors.inline import InlineExecutor
from dlspec.sweeps.executors.job_worker import JobWorker, clear
from dlspec.sweeps.executors.processes import METHOD, ProcessExecutor
from dlspec.sweeps.records.planned_job import PlannedJob
from dlspec.training.runtime.interruption import Interruption, interruptible

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_FOR_LEAVING = 10.0

Launch = Callable[[Sequence[PlannedJob]], Sequence[Any]]
"""Has another launcher do the jobs; gives Hydra's `JobReturn` of each."""


class NotFinished(Exception):
    """What a launcher is told of a job that did not come to its end."""

    def __init__(self, result: JobResult) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        return self.result.text or self.result.error or self.result.status.value


def train_elsewhere(job: PlannedJob, threads: int, sweep: Path) -> JobResult:
    """Trains a job of the sweep in that folder, in a process of its own; raises NotFinished with what came of it."""
    interruption = Interruption()
    if (sweep / STOP).exists():
        raise NotFinished(JobResult(JobState.WAITING))
    _write_result(job.folder, JobResult(JobState.RUNNING))
    multiprocessing.set_start_method(METHOD, force=True)  # joblib's own is one that no other process knows
    with interruptible(interruption), ProcessExecutor([{}], pickle.dumps(JobWorker(None, threads=threads))) as process:
        for event in process.run([job], SECONDS_BETWEEN_LOOKS):
            if (interruption.signal or (sweep / STOP).exists()) and not process.is_stopping:
                process.stop()
            if isinstance(event, Ended):
                result = result_of_ended(event)
    _write_result(job.folder, result)
    if result.status is not JobState.FINISHED:
        raise NotFinished(result)
    return result


def _write_result(folder: Path, result: JobResult) -> None:
    renew_json(folder / JOB, asdict(result))


class ExternalExecutor(InlineExecutor):
    """Has the jobs done by another launcher, `most` at once; those that are only built are built here."""

    shown: Shown = "all"

    def __init__(self, worker: JobWorker, launch: Launch, sweep: Callable[[], Path], most: int | None) -> None:
        super().__init__(worker)
        self._launch, self._sweep, self._most = launch, sweep, most

    def run(self, tasks: Iterable[Any], seconds: float) -> Iterator[Began | Ended | None]:
        left = dict(enumerate(tasks))
        if all(task.only_builds for task in left.values()):
            yield from super().run(left.values(), seconds)
            return
        (self._sweep() / STOP).unlink(missing_ok=True)
        while left and not self.is_stopping:
            batch = _Batch(dict(islice(left.items(), self._most)), self._launch)
            yield from batch.run(self)
            if batch.error is not None and not batch.begun and not self.is_stopping:
                raise UserError(f"the launcher begins no job: {one_line(batch.error)}") from batch.error
            left = {number: job for number, job in left.items() if number not in batch.ended}

    def stop(self) -> None:
        super().stop()
        (self._sweep() / STOP).touch()


class _Batch:
    """Jobs that a launcher was given at once. It says nothing until all of them are over; their folders do."""

    def __init__(self, jobs: dict[int, PlannedJob], launch: Launch) -> None:
        self.begun: set[int] = set()
        self.ended: set[int] = set()
        self.error: BaseException | None = None
        self._jobs, self._launch = jobs, launch
        self._returned: Sequence[Any] = ()

    def run(self, executor: InlineExecutor) -> Iterator[Began | Ended | None]:
        for job in self._jobs.values():
            (job.folder / JOB).unlink(missing_ok=True)
            if job.starts_anew:
                clear(job.folder)
        thread = threading.Thread(target=self._call, daemon=True)
        thread.start()
        patience = SECONDS_FOR_LEAVING
        while thread.is_alive() and patience > 0:
            thread.join(SECONDS_BETWEEN_LOOKS)
            yield None
            yield from self._read_folders()
            if executor.is_stopping and self.begun <= self.ended:  # the others wait in somebody's queue
                patience -= SECONDS_BETWEEN_LOOKS
        yield from self._read_last()
        if self.error is not None:
            yield from self._wait_for_lost()

    def _call(self) -> None:
        try:
            self._returned = self._launch(list(self._jobs.values()))
        except BaseException as error:  # whatever the launcher raises is told by the thread that waits
            self.error = error

    def _read_folders(self) -> Iterator[Began | Ended]:
        for number, job in self._jobs.items():
            result = None if number in self.ended else read_result(job.folder, JOB)
            if result is not None:
                yield from self._report(number, result)

    def _read_last(self) -> Iterator[Began | Ended]:
        """What the jobs said last, and what the launcher gave of those that could not say it."""
        yield from self._read_folders()
        for (number, _), returned in zip(self._jobs.items(), self._returned, strict=False):
            if number not in self.ended:
                yield from self._report(number, _result_of(returned))

    def _wait_for_lost(self) -> Iterator[Began | Ended | None]:
        """The launcher lost a process and gave up: jobs that go on are waited for, the others went with theirs."""
        assert self.error is not None
        why = f"its launcher's process was lost: {one_line(self.error)}"
        while lost := self.begun - self.ended:
            yield from self._read_folders()
            for number in lost - self.ended:
                if not is_held(self._jobs[number].folder):
                    yield from self._report(number, failed_result(why))
            yield None
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _report(self, number: int, result: JobResult) -> Iterator[Began | Ended]:
        if result.status is JobState.WAITING:  # it was asked to end before it began
            return
        if number not in self.begun:
            self.begun.add(number)
            yield Began(number)
        if result.status is not JobState.RUNNING:
            self.ended.add(number)
            (self._jobs[number].folder / JOB).unlink(missing_ok=True)
            yield Ended(number, result)


def _result_of(returned: Any) -> JobResult:
    value = returned_value(returned)
    if isinstance(value, NotFinished):
        return value.result
    if has_failed(returned):
        return JobResult(JobState.FAILED, error=one_line(value), text=str(value))
    assert isinstance(value, JobResult)
    return value
