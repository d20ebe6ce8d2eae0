"""Run a sweep's jobs by another Hydra launcher, in its processes or on its machines.

All of them must see the sweep's folder. A job is trained in a separate process, so that a crash ends only the job and
not the launcher's process, and it writes its state and result into its own folder. The sweep's process reads these
folders and is the only one that writes to the sweep's files. To stop the jobs, it creates a file in the sweep's folder.
"""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from dlspec.compat.hydra import get_return_value, has_failed
from dlspec.errors import UserError
from dlspec.jobs.error_reporting import format_error_line
from dlspec.runs.file_names import HYDRA_FOLDER, JOB_FILE, STOP_FILE, SWEEP_FILE
from dlspec.runs.io import write_json_unsynced, write_text_unsynced
from dlspec.runs.job_result import JobResult, make_failed_result, read_result
from dlspec.runs.job_state import JobState
from dlspec.runs.lock import is_run_locked
from dlspec.sweeps.executors.executor import ExecutorEvent, ProgressScope, TaskEnded, TaskStarted, result_from_event
from dlspec.sweeps.executors.inline_executor import InlineExecutor
from dlspec.sweeps.executors.job_worker import JobWorker, remove_earlier_results
from dlspec.sweeps.executors.process_executor import START_METHOD, ProcessExecutor
from dlspec.sweeps.records.planned_job import PlannedJob
from dlspec.training.runtime.interruption import Interruption, catch_signals

SECONDS_BETWEEN_POLLS = 0.5
MAX_SECONDS_TO_RETURN = 10.0

# Passes the jobs to another launcher; returns Hydra's `JobReturn` of each.
LaunchJobs = Callable[[Sequence[PlannedJob]], Sequence[Any]]


class JobNotFinished(Exception):
    """Raised to the launcher for a job that failed, was refused, was interrupted or has not started."""

    def __init__(self, result: JobResult) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        return self.result.text or self.result.error or self.result.status.value


def train_external_job(job: PlannedJob, threads: int, sweep_folder: Path) -> JobResult:
    """Train a job of the sweep in a separate process, and write its state and result to the job's folder.

    Args:
        job: The job to train.
        threads: Number of CPU threads of the process.
        sweep_folder: The sweep's folder. The job stops when a stop file appears in it.

    Returns:
        The result of a finished job.

    Raises:
        JobNotFinished: With the result, if the job was stopped, refused or failed.
    """
    interruption = Interruption()
    _refuse_deleted_sweep(sweep_folder, job.folder)
    if (sweep_folder / STOP_FILE).exists():
        raise JobNotFinished(JobResult(JobState.WAITING))
    _write_result(job.folder, JobResult(JobState.RUNNING))
    multiprocessing.set_start_method(START_METHOD, force=True)  # joblib sets one that only exists in its own processes
    with catch_signals(interruption), ProcessExecutor([{}], pickle.dumps(JobWorker(None, threads=threads))) as process:
        for event in process.run([job], SECONDS_BETWEEN_POLLS):
            if (interruption.signal or (sweep_folder / STOP_FILE).exists()) and not process.is_stopping:
                process.stop()
            if isinstance(event, TaskEnded):
                result = result_from_event(event)
    _write_result(job.folder, result)
    if result.status is not JobState.FINISHED:
        raise JobNotFinished(result)
    return result


def _refuse_deleted_sweep(sweep_folder: Path, job_folder: Path) -> None:
    """Refuse to train if the sweep's folder was deleted or moved, and remove the job's folder that Hydra has made."""
    if (sweep_folder / SWEEP_FILE).exists():
        return
    shutil.rmtree(job_folder / HYDRA_FOLDER, ignore_errors=True)
    with suppress(OSError):  # a folder that is not empty remains
        for folder in (job_folder, *job_folder.parents):
            if not folder.is_relative_to(sweep_folder):
                break
            folder.rmdir()
    found = f"the sweep's folder '{sweep_folder}' was deleted or moved"
    raise JobNotFinished(make_failed_result(f"{found}: nothing was trained"))


def _write_result(folder: Path, result: JobResult) -> None:
    write_json_unsynced(folder / JOB_FILE, asdict(result))


class ExternalExecutor(InlineExecutor):
    """Runs jobs by another launcher, at most `max_jobs` at once; jobs that are only built are built in this process."""

    progress_scope: ProgressScope = "all"
    starts_together = True

    def __init__(
        self, worker: JobWorker, launch: LaunchJobs, get_sweep_folder: Callable[[], Path], max_jobs: int | None
    ) -> None:
        super().__init__(worker)
        self._launch, self._get_sweep_folder, self._max_jobs = launch, get_sweep_folder, max_jobs

    def run(self, tasks: Iterable[Any], poll_seconds: float) -> Iterator[ExecutorEvent | None]:
        """Pass the jobs to the launcher in batches, until all have ended or `stop` is called; yield their events."""
        remaining = dict(enumerate(tasks))
        if all(task.only_builds for task in remaining.values()):
            yield from super().run(remaining.values(), poll_seconds)
            return
        (self._get_sweep_folder() / STOP_FILE).unlink(missing_ok=True)
        while remaining and not self.is_stopping:
            batch = _LaunchedBatch(dict(islice(remaining.items(), self._max_jobs)), self._launch)
            yield from batch.run(self)
            if batch.error is not None and not batch.started and not self.is_stopping:
                raise UserError(f"the launcher failed to start jobs: {format_error_line(batch.error)}") from batch.error
            remaining = {number: job for number, job in remaining.items() if number not in batch.finished}

    def stop(self) -> None:
        """Pass no further jobs to the launcher, and ask the running ones to save and end."""
        super().stop()
        write_text_unsynced(self._get_sweep_folder() / STOP_FILE, "")


class _LaunchedBatch:
    """Jobs that were passed to a launcher together.

    The launcher returns only when all of them have ended. Until then their states are read from their folders.
    """

    def __init__(self, jobs: dict[int, PlannedJob], launch: LaunchJobs) -> None:
        self.started: set[int] = set()
        self.finished: set[int] = set()
        self.error: BaseException | None = None
        self._jobs, self._launch = jobs, launch
        self._returned: Sequence[Any] = ()

    def run(self, executor: InlineExecutor) -> Iterator[ExecutorEvent | None]:
        for job in self._jobs.values():
            (job.folder / JOB_FILE).unlink(missing_ok=True)
            if job.starts_over:
                remove_earlier_results(job.folder)
        thread = threading.Thread(target=self._call_launcher, daemon=True)
        thread.start()
        seconds_left = MAX_SECONDS_TO_RETURN
        while thread.is_alive() and seconds_left > 0:
            thread.join(SECONDS_BETWEEN_POLLS)
            yield None
            yield from self._read_folders()
            if executor.is_stopping and self.started <= self.finished:  # the others still wait in the launcher's queue
                seconds_left -= SECONDS_BETWEEN_POLLS
        yield from self._read_final_results()
        if self.error is not None:
            yield from self._wait_for_lost()

    def _call_launcher(self) -> None:
        try:
            self._returned = self._launch(list(self._jobs.values()))
        except BaseException as error:  # `ExternalExecutor.run` reports it: an exception in this thread would be lost
            self.error = error

    def _read_folders(self) -> Iterator[TaskStarted | TaskEnded]:
        for number, job in self._jobs.items():
            result = None if number in self.finished else read_result(job.folder, JOB_FILE)
            if result is not None:
                yield from self._yield_events(number, result)

    def _read_final_results(self) -> Iterator[TaskStarted | TaskEnded]:
        """Read the last states from the folders, and take the launcher's result for jobs that did not write one."""
        yield from self._read_folders()
        for (number, _), returned in zip(self._jobs.items(), self._returned, strict=False):
            if number not in self.finished:
                yield from self._yield_events(number, _result_from_return(returned))

    def _wait_for_lost(self) -> Iterator[ExecutorEvent | None]:
        """Wait for the jobs that still run after the launcher failed; jobs whose process is gone have failed."""
        assert self.error is not None
        reason = f"its launcher's process was lost: {format_error_line(self.error)}"
        while lost := self.started - self.finished:
            yield from self._read_folders()
            for number in lost - self.finished:
                if not is_run_locked(self._jobs[number].folder):
                    yield from self._yield_events(number, make_failed_result(reason))
            yield None
            time.sleep(SECONDS_BETWEEN_POLLS)

    def _yield_events(self, number: int, result: JobResult) -> Iterator[TaskStarted | TaskEnded]:
        if result.status is JobState.WAITING:  # it was stopped before it started
            return
        if number not in self.started:
            self.started.add(number)
            yield TaskStarted(number)
        if result.status is not JobState.RUNNING:
            self.finished.add(number)
            (self._jobs[number].folder / JOB_FILE).unlink(missing_ok=True)
            yield TaskEnded(number, result)


def _result_from_return(returned: Any) -> JobResult:
    value = get_return_value(returned)
    if isinstance(value, JobNotFinished):
        return value.result
    if has_failed(returned):
        return JobResult(JobState.FAILED, error=format_error_line(value), text=str(value))
    assert isinstance(value, JobResult)
    return value
