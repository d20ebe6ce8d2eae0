"""Train the jobs of a sweep, one after the other, in the process that calls it."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch

from dlspec.config.hydra_run import HydraJob, HydraJobRunner, prepare_hydra_process
from dlspec.data.dataset import Dataset
from dlspec.data.sources import DataSource, open_data
from dlspec.errors import TrainingFailed
from dlspec.jobs.described_data import DescribedData
from dlspec.jobs.error_reporting import EXIT_INVALID, format_error_details, format_error_line, message_and_exit_code
from dlspec.jobs.job import Job
from dlspec.jobs.job_hash import describe_code_version
from dlspec.jobs.job_setup import keep_found_settings, make_job
from dlspec.jobs.run_preparation import Preparation
from dlspec.jobs.run_resuming import lock_newest_checkpoint, refuse_other_checkpoint
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.runs.file_access import open_to_append
from dlspec.runs.file_names import CHECKPOINTS_FOLDER, LOG_FILE, RESULT_FILE, SPEC_FILE, STATUS_FILE
from dlspec.runs.io import remove_leftovers_of_run
from dlspec.runs.job_result import JobResult
from dlspec.runs.job_state import JobState
from dlspec.runs.job_versions import JobVersions, read_versions, write_versions
from dlspec.runs.lock import is_run_locked
from dlspec.runs.run_status import read_status
from dlspec.standard_streams import make_output_tolerant, open_missing_descriptors
from dlspec.sweeps.records.planned_job import PlannedJob
from dlspec.training.checkpoint.checkpoint_files import Snapshot, rename_newer_checkpoints
from dlspec.training.health.out_of_memory import free_unused_memory
from dlspec.training.stacking.stack_member import StackMember
from dlspec.training.trainer import Trainer

log = logging.getLogger("dlspec")

MAX_OPEN_DATASETS = 4  # kept in memory for the next jobs
MAX_SECONDS_FOR_LOCK = 30.0  # time that the processes of a killed sweep get to save their jobs


class JobWorker:
    """Trains jobs; data that several jobs read are opened only once.

    Args:
        runner: Runs a job the way Hydra does, with `.hydra/` and callbacks; None for jobs that do not come from Hydra.
        threads: Number of CPU threads of the process; None leaves it unchanged.
        modules: Modules that registered parts in the sweep's process, to import in this one.
        data: Data that were given in Python, used by all jobs.
        has_own_process: Whether the process only trains jobs. Its output then goes to the job's log.
    """

    def __init__(
        self,
        runner: HydraJobRunner | None,
        *,
        threads: int | None = None,
        modules: Sequence[str] = (),
        data: Dataset | None = None,
        has_own_process: bool = True,
    ) -> None:
        self.runner, self.threads, self.modules, self.data = runner, threads, tuple(modules), data
        self.has_own_process = has_own_process
        self._open_datasets: dict[str, DescribedData] = {}
        self._given_data = None if data is None else DescribedData(data)
        self._job_data: DescribedData | None = None  # of the present job, once they are open
        self._code_version = ""
        self._trainer: Trainer | None = None
        self._is_stopping = self._is_prepared = self._is_frozen = False
        self._member: StackMember | None = None  # if the job belongs to a stack
        self._stacked_jobs = 1  # in the stack

    def for_this_process(self) -> JobWorker:
        """Return a worker with the same settings for the sweep's own process, where each job prints its progress."""
        return JobWorker(self.runner, threads=self.threads, modules=self.modules, data=self.data, has_own_process=False)

    def for_member(self, member: StackMember, jobs: int) -> JobWorker:
        """Return a worker for a job of a stack of this size; all use the same open data."""
        worker = copy(self)
        worker._member, worker._stacked_jobs, worker._trainer = member, jobs, None
        return worker

    def stop(self) -> None:
        """Ask the running job to save and end; every later job ends at once."""
        self._is_stopping = True
        if self._trainer is not None:
            self._trainer.interruption.request(signal.SIGTERM)

    def __call__(self, job: PlannedJob) -> JobResult:
        """Train a job, or only build it; errors become part of the result and are not raised."""
        self.prepare_process()
        self._job_data = self._given_data
        try:
            if job.only_builds:
                self._build_job(job)
                return JobResult(JobState.WAITING, data=self._checksum)
            return replace(self._train_job(job), status=JobState.FINISHED, data=self._checksum)
        except KeyboardInterrupt:
            return JobResult(JobState.INTERRUPTED)
        except BaseException as error:
            return _result_from_error(error)
        finally:
            self._trainer = None
            if self._member is None:  # a stack frees the memory of all its jobs together
                self.free_memory()

    def prepare_process(self) -> None:
        """Prepare the process for the first job, if that is not done."""
        if self._is_prepared:
            return
        self._is_prepared = True
        self._code_version = describe_code_version()
        prepare_hydra_process()
        for module in self.modules:
            import_module(module)
        if self.has_own_process:
            open_missing_descriptors()
            make_output_tolerant()
            logging.lastResort = None  # warnings are written to the job's log anyway
            faulthandler.enable(2)
            if self.threads is not None:
                torch.set_num_threads(self.threads)

    def free_memory(self) -> None:
        """Free what ended jobs have left behind.

        What remains after the first job are modules and open data, which later calls do not look at again: that would
        take 25 ms a job.
        """
        free_unused_memory()
        if self.has_own_process and not self._is_frozen:
            self._is_frozen = True
            gc.freeze()

    def _train_job(self, job: PlannedJob) -> JobResult:
        """Train the job, from its newest checkpoint if it has one. A new job's folder is made once the job is built."""
        preparation, hydra_job = job.load_steps()
        built_job = None if job.folder.is_dir() else self._make_job(preparation, is_resumed=False)
        _make_job_folder(job.folder)
        if job.is_recorded:
            _wait_for_lock(job.folder)
        with lock_newest_checkpoint(job.folder) as snapshot, self._redirect_to_log(job.folder / LOG_FILE):
            starts_over = snapshot is None or job.starts_over or has_failed(job.folder)
            resumed_job = None if starts_over else self._make_resumed_job(preparation, job.folder)
            built_job = resumed_job or built_job or self._make_job(preparation, is_resumed=False)
            if (
                resumed_job is None
            ):  # it is built before anything is removed: a job that can't be built keeps its result
                remove_earlier_results(job.folder)
                snapshot = None
            self._trainer = built_job.trainer
            self._trainer.stack, self._trainer.state.sharing_runs = self._member, self._stacked_jobs
            if self._is_stopping:
                self.stop()
            built_job.check_disk_space(job.folder)
            _remove_later_files(job.folder, snapshot)
            versions = JobVersions(self._code_version, self._checksum)
            write_versions(job.folder, versions, is_resumed=snapshot is not None)
            return self._run_job(built_job, job, hydra_job, snapshot)

    def _build_job(self, job: PlannedJob) -> None:
        """Build a job to check its shapes; one that was trained before with the settings that it found then."""
        preparation, was_trained = job.load_steps()[0], job.is_recorded and (job.folder / SPEC_FILE).is_file()
        if was_trained:
            preparation = keep_found_settings(preparation, job.folder)
        self._make_job(preparation, is_resumed=was_trained)

    def _make_resumed_job(self, preparation: Preparation, folder: Path) -> Job | None:
        """Build the job to resume it; None if it started with other data: a mixture of both would be of no use."""
        job, started = self._make_job(keep_found_settings(preparation, folder), is_resumed=True), read_versions(folder)
        if started is None or started.data in ("", self._checksum):
            return job
        print(f"{folder} started with other data: it is trained again from the start", file=sys.stderr)
        return None

    def build_job(self, job: PlannedJob) -> Job:
        """Build a job as if it were new, without its folder; raises what is wrong with it."""
        return self._make_job(job.load_steps()[0], is_resumed=False)

    def _make_job(self, preparation: Preparation, *, is_resumed: bool) -> Job:
        steps = replace(preparation, is_resumed=is_resumed, data=self.data, open_source=self._open_dataset)
        job = make_job(steps, shows_progress=not self.has_own_process, is_of_sweep=True)
        return replace(job, described_data=self._job_data)

    def _run_job(
        self, built_job: Job, job: PlannedJob, hydra_job: HydraJob | None, snapshot: Snapshot | None
    ) -> JobResult:
        """Run the job; one that comes from Hydra runs as Hydra would run it, with `.hydra/` and Hydra's callbacks."""
        folder = job.folder.absolute()  # with hydra.job.chdir the working directory changes
        if snapshot is not None:
            refuse_other_checkpoint(folder, built_job, snapshot)
        if hydra_job is None or self.runner is None:
            return built_job.run_in_folder(folder, snapshot)
        return self.runner.run(hydra_job, job.number, job.folder, lambda: built_job.run_in_folder(folder, snapshot))

    def _open_dataset(self, source: DataSource) -> Dataset:
        """Open the data, or return them if they are open.

        A source from outside dlspec is opened again for every job, as it may use random numbers of the job's seed.
        """
        key = f"{source.source_name} {source.model_dump()}"
        if key not in self._open_datasets or not type(source).__module__.startswith("dlspec."):
            self._open_datasets[key] = DescribedData(open_data(source))
            if len(self._open_datasets) > MAX_OPEN_DATASETS:
                del self._open_datasets[next(iter(self._open_datasets))]
        self._job_data = self._open_datasets[key]
        return self._job_data.data

    @property
    def _checksum(self) -> str:
        """The checksum of the present job's data; '' before they are open."""
        return "" if self._job_data is None else self._job_data.checksum

    @contextmanager
    def _redirect_to_log(self, path: Path) -> Iterator[None]:
        """Send the process's output to the job's log inside the `with` block, including what a crash prints."""
        if not self.has_own_process:
            yield
            return
        log_file = open_to_append(path)
        before = [os.dup(number) for number in (1, 2)]
        try:
            _redirect_output(log_file, log_file)
            yield
        finally:
            _redirect_output(*before)
            for each in (log_file, *before):
                os.close(each)


def _make_job_folder(folder: Path) -> None:
    """Make the folder of a job, but not the sweep's folder: if that was deleted, it is not made again."""
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError:
        found = f"the sweep's folder '{format_file_path(folder.parent)}' was deleted or moved"
        raise TrainingFailed(f"{found}: nothing was trained") from None


def _redirect_output(out: int, err: int) -> None:
    for stream, target, number in ((sys.stdout, out, 1), (sys.stderr, err, 2)):
        if stream is not None:
            stream.flush()
        os.dup2(target, number)


def _result_from_error(error: BaseException) -> JobResult:
    """Turn an error into a result; an unexpected one, which is a bug in dlspec, keeps its traceback."""
    reported = message_and_exit_code(error)
    text = (
        format_error_details(error)
        if reported and isinstance(error, Exception)
        else "".join(traceback.format_exception(error))
    )
    status = JobState.REFUSED if reported and reported[1] == EXIT_INVALID else JobState.FAILED
    return JobResult(status, error=format_error_line(error), text=text)


def _remove_later_files(folder: Path, snapshot: Snapshot | None) -> None:
    remove_leftovers_of_run(folder)
    if snapshot is not None:
        rename_newer_checkpoints(folder / CHECKPOINTS_FOLDER, snapshot)


def _wait_for_lock(folder: Path) -> None:
    """Wait until the processes of a killed sweep have saved the job; after the limit, locking the folder fails."""
    deadline = time.monotonic() + MAX_SECONDS_FOR_LOCK
    while is_run_locked(folder) and time.monotonic() < deadline:
        time.sleep(0.1)


def has_failed(folder: Path) -> bool:
    """Whether the job ended with an error. Resuming would meet the same error again, so such a job starts over."""
    status = read_status(folder)
    return status is not None and status.status is JobState.FAILED


def remove_earlier_results(folder: Path) -> None:
    """Remove everything that an earlier training wrote to `folder`, except its log.

    The result is removed first: if the process is killed in between, the job is not finished, and its status still says
    whether it failed.
    """
    (folder / RESULT_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS_FOLDER, ignore_errors=True)
    (folder / STATUS_FILE).unlink(missing_ok=True)
