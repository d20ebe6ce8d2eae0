"""Run one sweep: train its jobs and keep their results in the sweep's folder.

All specs are checked before the first job trains. According to `sweep.json`, finished jobs are skipped, interrupted
ones are resumed from their checkpoints, and failed ones are trained again.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace

from dlspec.errors import TrainingFailed, UserError
from dlspec.jobs.job_hash import describe_code_version
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.report import write_sweep_report
from dlspec.runs.job_result import JobResult, read_result
from dlspec.runs.job_state import JobState
from dlspec.runs.job_versions import JobVersions, read_versions
from dlspec.runs.run_status import resume_command
from dlspec.sweeps.executors.executor import Executor, TaskEnded, TaskStarted, result_from_event
from dlspec.sweeps.planning_progress import PlanningProgress
from dlspec.sweeps.records.planned_job import PlanJob, PlannedJob, SweepEntry, plan_jobs
from dlspec.sweeps.records.sweep_record import SweepRecord
from dlspec.sweeps.sweep_display import SweepDisplay, make_display
from dlspec.sweeps.sweep_plan import (
    MAX_LISTED,
    RERUN_CHANGED,
    SECONDS_BETWEEN_POLLS,
    check_shapes,
    describe_trained_jobs,
    describe_unknown_versions,
    match_recorded_jobs,
    number_jobs,
    refuse_wrong_specs,
    retrain_changed_jobs,
)
from dlspec.training.runtime.interruption import Interrupted, Interruption, catch_signals

log = logging.getLogger("dlspec")

SECONDS_BETWEEN_RECORD_WRITES = 1.0
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
        self._last_write = 0.0
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

    def launch(self, plans: Sequence[PlanJob]) -> list[SweepEntry]:
        """Run jobs and return them with their results, in order. A sweeper may launch more jobs after these.

        Raises:
            UserError: With the problems of every invalid spec, unless `sweep.on_invalid=skip`.
            Interrupted: After a signal asked the sweep to stop.
        """
        max_refused = len(plans) if self.settings.on_invalid == "skip" else MAX_LISTED
        entries = plan_jobs(plans, max_refused, PlanningProgress(len(plans)).update)
        refuse_wrong_specs(entries, self.settings, len(plans))
        match_recorded_jobs(entries, self.record, self._code_version)
        todo = [entry for entry in entries if entry.needs_training]
        reruns = self.settings.rerun == RERUN_CHANGED
        devices = {entry.job.device for entry in entries if not entry.is_refused}
        count = (
            len(entries) if reruns else len(todo) or 1
        )  # also if all are done, to check whether the data have changed
        with self.make_executor(count, devices) as executor:
            check_shapes(entries, executor)
            refuse_wrong_specs(entries, self.settings, len(plans))
            if reruns:
                retrain_changed_jobs(entries)
            number_jobs(entries, self.record, self._name_folder)
            self._entries += entries
            self._train(entries, executor)
        return entries

    def _train(self, entries: Sequence[SweepEntry], executor: Executor) -> None:
        todo = [entry for entry in entries if entry.needs_training]
        self._runs_inline = executor.progress_scope == "jobs"
        sweep_display = make_display(self.entries, executor.progress_scope)
        try:
            self._report_trained_jobs(entries, sweep_display)
            for entry in entries:
                if entry.is_refused:
                    sweep_display.on_job_end(entry)
            with catch_signals(self._interruption):
                for event in executor.run((entry.job for entry in todo), SECONDS_BETWEEN_POLLS):
                    self._check_folder()
                    self._handle_event(event, todo, sweep_display)
                    if self._interruption.signal or self._is_ending:
                        self._stop_executor(executor, sweep_display)
        finally:
            sweep_display.close()
            if self.record.exists():
                self._write_record(synced=True)
                self._write_report(is_last=True)
        if self._interruption.signal:
            raise Interrupted(self._interruption.signal)

    def _report_trained_jobs(self, entries: Sequence[SweepEntry], sweep_display: SweepDisplay) -> None:
        """Report the jobs that were trained before, and which of them with other or unknown code or data."""
        for line in describe_trained_jobs(entries):
            sweep_display.print_message(line)
        command = f"{resume_command(format_file_path(self.record.folder), 'sweep')} rerun=changed"
        python_fix = "call dlspec.sweep with this folder and rerun='changed'"
        fix = python_fix if self.record.command is None else f"run {command}"
        if unknown := describe_unknown_versions(entries, fix):
            log.warning(unknown)

    def _handle_event(
        self, event: TaskStarted | TaskEnded | None, todo: Sequence[SweepEntry], sweep_display: SweepDisplay
    ) -> None:
        if event is None:
            sweep_display.refresh()
        elif isinstance(event, TaskStarted):
            self._start_job(todo[event.task], sweep_display)
        else:
            result = result_from_event(event)
            self._end_job(todo[event.task], result, sweep_display)
            if self.settings.fail_fast and result.status in (JobState.FAILED, JobState.REFUSED):
                self._is_ending = True

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
        """Keep a job's result, and write `sweep.json` at most once a second; return whether it was written.

        Results that a crash loses are read from the jobs' folders.
        """
        entry.result = result
        if result.status is JobState.FINISHED:
            entry.versions = read_versions(entry.job.folder) or JobVersions()
            entry.result = replace(read_result(entry.job.folder) or JobResult(), status=JobState.FINISHED, error="")
        is_due = time.monotonic() > self._last_write + SECONDS_BETWEEN_RECORD_WRITES
        if is_due:
            self._write_record(synced=False)
        return is_due

    def _write_record(self, *, synced: bool) -> None:
        """Write `sweep.json`. If that fails, only warn: the results are in the jobs' folders."""
        self._last_write = time.monotonic()
        try:
            self.record.write(synced=synced)
        except OSError as error:
            if not self._warned:
                log.warning("can't write %s: %s", error.filename, error.strerror or error)
            self._warned = True

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
