"""Hand the jobs of a sweep to its executor in order, and check specs that were not checked before the first job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from dlspec.errors import UserError
from dlspec.jobs.error_reporting import format_error_line
from dlspec.runs.job_result import JobResult
from dlspec.runs.job_state import JobState
from dlspec.sweeps.job_listing import JobListing
from dlspec.sweeps.job_matching import RecordedJobs
from dlspec.sweeps.records.planned_job import PlannedJob, SweepEntry
from dlspec.sweeps.spec_checks import SpecChecks
from dlspec.sweeps.sweep_plan import DataComparison

SECONDS_PER_CHECK = 0.1  # checked at a time while jobs train
MAX_KEPT_JOBS = 1_000  # checked jobs that wait in memory, 50 KB each; others are composed again when they start
CHANGED_MEANWHILE = "a config file was changed after the spec was checked; start the sweep again"


class JobQueue:
    """The jobs of a sweep that are to be trained, in the order of their numbers.

    Iterating gives each job when it can start. It is in `sweep.json` with its folder and hash by then.

    Args:
        checks: Checks the specs.
        recorded: The jobs in the sweep's folder.
        listing: Gives jobs their folders.
        comparison: Knows which data have changed.
        save: Writes `sweep.json`.
        report_refused: Called with each job that is refused while others train, unless the queue stops then.
        stops_at_refused: Whether it stops at the first job that is refused.
    """

    def __init__(
        self,
        checks: SpecChecks,
        recorded: RecordedJobs,
        listing: JobListing,
        comparison: DataComparison,
        *,
        save: Callable[[], None],
        report_refused: Callable[[SweepEntry], None],
        stops_at_refused: bool,
    ) -> None:
        self.entries = checks.entries
        self.started: list[SweepEntry] = []  # in the order in which the executor got them
        self.checked_late: list[SweepEntry] = []
        self._checks, self._recorded, self._listing, self.comparison = checks, recorded, listing, comparison
        self._save, self._report_refused, self._stops_at_refused = save, report_refused, stops_at_refused
        self._is_saved, self.is_stopped = True, False
        self._kept = checks.checked

    def __iter__(self) -> Iterator[PlannedJob]:
        """Yield the jobs that need training."""
        for entry in sorted(self.entries, key=lambda each: each.is_probably_done):
            if not entry.is_checked:
                self._checks.check(entry)
                self._add_checked(entry)
                self.check_more()
            if entry.needs_training:
                self._load(entry)
            if self.is_stopped:
                return
            if entry.needs_training:
                if not self._is_saved:
                    self._is_saved = True
                    self._save()
                self.started.append(entry)
                yield entry.job

    def check_more(self) -> None:
        """Check specs for a moment, while jobs train."""
        if self._checks.is_complete or self.is_stopped:
            return
        deadline = time.monotonic() + SECONDS_PER_CHECK
        for entry in self._checks.check_next():
            self._add_checked(entry)
            if time.monotonic() > deadline or self.is_stopped:
                return

    def stop(self) -> None:
        """Give no further job, and check no further spec."""
        self.is_stopped = True

    def drop(self, entry: SweepEntry) -> None:
        """Free the memory of a job that has ended."""
        entry.job = replace(entry.job, pickled=b"")
        self._kept -= 1

    def _add_checked(self, entry: SweepEntry) -> None:
        self._recorded.match(entry)
        try:
            self._listing.add_checked(entry)
        except UserError as error:  # two jobs would have one folder
            entry.refuse(JobResult(JobState.REFUSED, error=format_error_line(error), text=str(error)))
        self.comparison.mark_changed(entry)
        self.checked_late.append(entry)
        self._is_saved = False
        self._kept += 1
        if self._kept > MAX_KEPT_JOBS or not entry.needs_training:
            self.drop(entry)
        if entry.is_refused:
            self._handle_refused(entry)

    def _handle_refused(self, entry: SweepEntry) -> None:
        if self._stops_at_refused:
            self.stop()
        else:
            self._report_refused(entry)

    def _load(self, entry: SweepEntry) -> None:
        """Compose a job again that was not kept in memory."""
        if entry.job.pickled or entry.plan is None:
            return
        again = entry.plan.check()
        if again.job.hash == entry.job.hash:
            entry.job = replace(entry.job, pickled=again.job.pickled)
            self._kept += 1
        else:
            entry.refuse(again.result if again.is_refused else _REFUSED_AS_CHANGED)
            self._handle_refused(entry)


_REFUSED_AS_CHANGED = JobResult(JobState.REFUSED, error=CHANGED_MEANWHILE, text=CHANGED_MEANWHILE)
