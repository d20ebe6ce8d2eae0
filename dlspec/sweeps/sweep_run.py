"""Run one sweep: train its jobs and keep their results in the sweep's folder.

The specs are checked before the first job trains, of a large sweep those that can be checked in some seconds; the rest
while jobs train. According to `sweep.json`, finished jobs are skipped, interrupted ones are resumed from their
checkpoints, and failed ones are trained again.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial

from dlspec.errors import TrainingFailed, UserError
from dlspec.jobs.job_hash import describe_code_version
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.report import write_sweep_report
from dlspec.runs.job_result import JobResult, read_result
from dlspec.runs.job_state import JobState
from dlspec.runs.job_versions import JobVersions, read_versions
from dlspec.runs.run_status import resume_command
from dlspec.sweeps.executors.executor import (
    Executor,
    ExecutorEvent,
    ExecutorMessage,
    TaskEnded,
    TaskStarted,
    result_from_event,
)
from dlspec.sweeps.job_listing import JobListing
from dlspec.sweeps.job_matching import RecordedJobs
from dlspec.sweeps.job_queue import JobQueue
from dlspec.sweeps.records.planned_job import JobPlan, PlannedJob, SweepEntry, make_unchecked_entry
from dlspec.sweeps.records.sweep_record import SweepRecord
from dlspec.sweeps.records.sweep_table import split_override
from dlspec.sweeps.spec_checks import MAX_SECONDS_OF_FIRST_CHECKS, SpecChecks
from dlspec.sweeps.sweep_display import SweepDisplay, make_display
from dlspec.sweeps.sweep_plan import (
    MAX_LISTED,
    RERUN_CHANGED,
    SECONDS_BETWEEN_POLLS,
    check_shapes,
    describe_done_jobs,
    describe_trained_jobs,
    describe_uncompared_data,
    describe_unknown_versions,
    refuse_wrong_specs,
    retrain_changed_jobs,
)
from dlspec.training.runtime.interruption import Interrupted, Interruption, catch_signals

log = logging.getLogger("dlspec")

SECONDS_BETWEEN_RECORD_WRITES = 1.0
MAX_SHARE_OF_WRITES = 0.02  # of the time: writing the jobs of a large sweep takes a second
ENDING_MESSAGE = "stopping: saving the running jobs; press Ctrl-C again to stop them at once"


class SweepRun:
    """A running sweep. Use it as a context manager: inside the `with` block its folder is locked.

    Args:
        settings: The `sweep` section.
        folder: Locks the sweep's folder and gives its record, from `open_sweep_folder`.
        make_executor: Makes the executor from the number of jobs and their devices.
        name: Names the folder of a new job, from the job and its number, relative to the sweep's folder.
    """

    def __init__(
        self,
        settings: SweepSpec,
        folder: AbstractContextManager[SweepRecord],
        make_executor: Callable[[int, Collection[str]], Executor],
        *,
        name: Callable[[PlannedJob, int], str] = lambda job, number: str(number),
    ) -> None:
        self.settings, self.make_executor = settings, make_executor
        self._entries: list[SweepEntry] = []
        self._name_folder, self._code_version = name, describe_code_version()
        self._open_folder = ExitStack()
        self.record = self._open_folder.enter_context(folder)
        self._interruption = Interruption()
        self._is_ending = self._runs_inline = False
        self._next_write = 0.0
        self._warned = False

    def __enter__(self) -> SweepRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._open_folder.close()

    @property
    def entries(self) -> list[SweepEntry]:
        """All jobs launched so far, each once; a sweeper may launch the same job several times."""
        return list({entry.job.number: entry for entry in self._entries}.values())

    @property
    def spec_version(self) -> int:
        """The version of the spec language whose rules the sweep was started with."""
        return self.record.spec_version

    def launch(self, plans: Sequence[JobPlan]) -> list[SweepEntry]:
        """Run jobs and return them with their results, in order. A sweeper may launch more jobs after these.

        Raises:
            UserError: With the problems of every invalid spec, unless `sweep.on_invalid=skip`.
            Interrupted: After a signal asked the sweep to stop.
        """
        entries, reruns = [make_unchecked_entry(plan) for plan in plans], self.settings.rerun == RERUN_CHANGED
        checks, recorded = SpecChecks(entries, self.record), RecordedJobs(self.record, self._code_version)
        self._check_first(checks, recorded, None if reruns else MAX_SECONDS_OF_FIRST_CHECKS)
        with self._make_executor(entries, counts_done=reruns) as executor:
            if executor.starts_together:
                self._check_first(checks, recorded, None)
            comparison = check_shapes([each for each in entries if each.is_checked], executor, compares_all=reruns)
            refuse_wrong_specs(entries, self.settings)
            if reruns:
                retrain_changed_jobs(entries)
            listing = self._list_jobs(entries, recorded)
            self._entries += entries
            self._train(checks, executor, partial(JobQueue, checks, recorded, listing, comparison))
        return entries

    def _check_first(self, checks: SpecChecks, recorded: RecordedJobs, max_seconds: float | None) -> None:
        """Check specs before any job trains, and find these jobs in the sweep's folder."""
        before = {id(entry) for entry in checks.entries if entry.is_checked}
        checks.run(len(checks.entries) if self.settings.on_invalid == "skip" else MAX_LISTED, max_seconds)
        refuse_wrong_specs(checks.entries, self.settings)
        for entry in checks.entries:
            if entry.is_checked and id(entry) not in before:
                recorded.match(entry)

    def _make_executor(self, entries: Sequence[SweepEntry], *, counts_done: bool) -> Executor:
        """Make the executor; `counts_done` if done jobs may be trained again."""
        todo = [entry for entry in entries if entry.needs_training]
        devices = {entry.job.device for entry in entries if entry.is_checked and not entry.is_refused}
        devices |= {value for entry in entries for key, value in map(split_override, entry.job.overrides)
                    if key == "trainer.device" and not entry.is_checked}  # fmt: skip
        # One job also if all are done, to check whether the data have changed.
        return self.make_executor(len(entries) if counts_done else len(todo) or 1, devices)

    def _list_jobs(self, entries: Sequence[SweepEntry], recorded: RecordedJobs) -> JobListing:
        for entry in entries:
            if not entry.is_checked:
                recorded.reserve(entry)
        recorded.forget_unused()
        listing = JobListing(entries, self.record, self._name_folder)
        listing.write()
        return listing

    def _train(self, checks: SpecChecks, executor: Executor, make_queue: Callable[..., JobQueue]) -> None:
        self._runs_inline = executor.progress_scope == "jobs"
        sweep_display = make_display(self.entries, executor.progress_scope)
        queue = make_queue(
            save=partial(self._write_record, synced=True),
            report_refused=sweep_display.on_job_end,
            stops_at_refused=self.settings.on_invalid == "stop",
        )
        try:
            self._report_planned_jobs(checks, queue, sweep_display)
            with catch_signals(self._interruption):
                for event in executor.run(queue, SECONDS_BETWEEN_POLLS):
                    self._check_folder()
                    self._handle_event(event, queue, sweep_display)
                    if self._interruption.signal or self._is_ending or queue.is_stopped:
                        self._is_ending = True
                        queue.stop()
                        self._stop_executor(executor, sweep_display)
            self._report_late_jobs(queue, sweep_display)
        finally:
            sweep_display.close()
            if self.record.exists():
                self._write_record(synced=True)
                self._write_report(is_last=True)
        if self._interruption.signal:
            raise Interrupted(self._interruption.signal)
        if any(entry.is_refused for entry in queue.checked_late):
            refuse_wrong_specs(checks.entries, self.settings, is_started=True)

    def _report_planned_jobs(self, checks: SpecChecks, queue: JobQueue, sweep_display: SweepDisplay) -> None:
        """Report how many specs are checked, the jobs that were trained before, and those that are refused."""
        if not checks.is_complete:
            count = f"checked {checks.checked:,} of {len(checks.entries):,} jobs"
            sweep_display.print_message(f"{count}; the rest is checked while they train")
        checked = [entry for entry in checks.entries if entry.is_checked]
        for line in describe_done_jobs(checks.entries):
            sweep_display.print_message(line)
        self._report_trained_jobs(checked, queue, sweep_display)
        for entry in checked:
            if entry.is_refused:
                sweep_display.on_job_end(entry)

    def _report_late_jobs(self, queue: JobQueue, sweep_display: SweepDisplay) -> None:
        """Report the trained jobs among those whose specs were checked while others trained."""
        done = sum(entry.is_done for entry in queue.checked_late)
        if done:
            sweep_display.print_message(f"{done:,} more of {len(queue.entries):,} jobs were done already")
        self._report_trained_jobs(queue.checked_late, queue, sweep_display)

    def _report_trained_jobs(self, entries: Sequence[SweepEntry], queue: JobQueue, sweep_display: SweepDisplay) -> None:
        """Report which of the jobs that were trained before had other or unknown code or data."""
        for line in describe_trained_jobs(entries):
            sweep_display.print_message(line)
        if uncompared := queue.comparison.take_uncompared():
            log.warning(describe_uncompared_data(uncompared))
        command = f"{resume_command(format_file_path(self.record.folder), 'sweep')} rerun=changed"
        python_fix = "call dlspec.sweep with this folder and rerun='changed'"
        fix = python_fix if self.record.command is None else f"run {command}"
        if unknown := describe_unknown_versions(entries, fix):
            log.warning(unknown)

    def _handle_event(self, event: ExecutorEvent | None, queue: JobQueue, sweep_display: SweepDisplay) -> None:
        if event is None:
            sweep_display.refresh()
            queue.check_more()
        elif isinstance(event, TaskStarted):
            self._start_job(queue.started[event.task], sweep_display)
        elif isinstance(event, ExecutorMessage):
            sweep_display.print_message(event.text)
        elif isinstance(event, TaskEnded):
            entry, result = queue.started[event.task], result_from_event(event)
            self._end_job(entry, result, sweep_display)
            queue.drop(entry)
            if self.settings.fail_fast and result.status in (JobState.FAILED, JobState.REFUSED):
                self._is_ending = True
            elif self._runs_inline:
                queue.check_more()

    def _stop_executor(self, executor: Executor, sweep_display: SweepDisplay) -> None:
        """Ask the executor to stop, if it was not asked before; running jobs are saved."""
        if not executor.is_stopping:
            executor.stop()
            if executor.progress_scope == "all":
                sweep_display.print_message(ENDING_MESSAGE)

    def _start_job(self, entry: SweepEntry, sweep_display: SweepDisplay) -> None:
        entry.started_at = time.monotonic()
        self._record_result(entry, JobResult(JobState.RUNNING))
        sweep_display.on_job_start(entry)

    def _end_job(self, entry: SweepEntry, result: JobResult, sweep_display: SweepDisplay) -> None:
        is_first = not self._interruption.signal and not self._is_ending
        entry.seconds = time.monotonic() - entry.started_at
        if result.status is JobState.INTERRUPTED and is_first and self._runs_inline:
            self._interruption.request(signal.SIGINT)  # the signal was caught by the job, which runs in this process
        if self._record_result(entry, result):
            self._write_report()
        sweep_display.on_job_end(entry)

    def _record_result(self, entry: SweepEntry, result: JobResult) -> bool:
        """Keep a job's result, and write `sweep.json` if that is due; return whether it was written.

        Results that a crash loses are read from the jobs' folders.
        """
        entry.result = result
        if result.status is JobState.FINISHED:
            entry.versions = read_versions(entry.job.folder) or JobVersions()
            entry.result = replace(read_result(entry.job.folder) or JobResult(), status=JobState.FINISHED, error="")
        is_due = time.monotonic() > self._next_write
        if is_due:
            self._write_record(synced=False)
        return is_due

    def _write_record(self, *, synced: bool) -> None:
        """Write `sweep.json`. If that fails, only warn: the results are in the jobs' folders."""
        began = time.monotonic()
        self.record.add(self._entries)  # a number may have changed when a spec was checked
        try:
            self.record.write(synced=synced)
        except OSError as error:
            if not self._warned:
                log.warning("can't write %s: %s", error.filename, error.strerror or error)
            self._warned = True
        ended = time.monotonic()
        self._next_write = ended + max(SECONDS_BETWEEN_RECORD_WRITES, (ended - began) / MAX_SHARE_OF_WRITES)

    def _check_folder(self) -> None:
        """Raise an error if the sweep's folder was deleted or moved: no process may make it again."""
        if not self.record.exists():
            folder = format_file_path(self.record.folder)
            raise TrainingFailed(f"the sweep's folder '{folder}' was deleted or moved: the sweep has stopped")

    def _write_report(self, *, is_last: bool = False) -> None:
        """Write the report, not for every job. If that fails, only warn: the results are in the jobs' folders."""
        try:
            write_sweep_report(self.record.folder, is_last=is_last)
        except (OSError, UserError) as error:
            log.warning("no report was written: %s", error)
