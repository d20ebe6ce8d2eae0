"""Match the planned jobs of a sweep with the jobs in its folder, and find out which of them are done."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import replace

from dlspec.runs.file_names import CHECKPOINTS_FOLDER
from dlspec.runs.job_versions import JobVersions, read_versions
from dlspec.sweeps.executors.job_worker import has_failed
from dlspec.sweeps.records.planned_job import NO_FOLDER, SweepEntry
from dlspec.sweeps.records.sweep_record import SweepRecord, is_run_complete
from dlspec.training.checkpoint.checkpoint_files import list_checkpoints

NO_NUMBER = -1


class RecordedJobs:
    """The jobs in a sweep's folder. Each of them becomes at most one planned job.

    A job is recognized by the hash of its spec, among equal jobs by its settings as written. While its spec is not
    checked, only these are known; the job that has the same ones is reserved for it.

    Args:
        record: The sweep's `sweep.json`.
        code_version: The present version of the code; jobs that another one trained are marked as changed.
    """

    def __init__(self, record: SweepRecord, code_version: str) -> None:
        self._record, self._code_version = record, code_version
        self._by_number = {each.job.number: each for each in record.entries}
        self._owners: dict[int, SweepEntry] = {}  # the planned job that a recorded job has become, by number
        self._by_hash: defaultdict[str, deque[SweepEntry]] = defaultdict(deque)
        self._by_settings: defaultdict[tuple[str, ...], deque[SweepEntry]] = defaultdict(deque)
        self._equal: defaultdict[tuple[str, tuple[str, ...]], deque[SweepEntry]] = defaultdict(deque)
        for each in record.entries:
            self._by_hash[each.job.hash].append(each)
            self._by_settings[each.job.settings].append(each)
            self._equal[each.job.hash, each.job.settings].append(each)

    def match(self, entry: SweepEntry) -> None:
        """Give a checked job the number and folder that it has in the sweep's folder, and note whether it is done.

        Without such a job, a number that was only reserved for it is taken away again.
        """
        recorded = self._find(entry)
        if recorded is not None:
            self._owners[recorded.job.number] = entry
            _copy_recorded_state(entry, recorded, self._code_version)
        elif entry.job.number in self._by_number:
            entry.job = replace(entry.job, number=NO_NUMBER)

    def reserve(self, entry: SweepEntry) -> None:
        """Reserve the job with the same settings for a job whose spec is not checked, and show its result."""
        recorded = self._take_first(self._by_settings[entry.job.settings])
        if recorded is not None:
            self._owners[recorded.job.number] = entry
            entry.reserved, entry.result = recorded, recorded.result
            entry.job = replace(entry.job, number=recorded.job.number, folder=recorded.job.folder)

    def forget_unused(self) -> None:
        """Remove jobs from the record that were refused, or never checked, and are not planned any more."""
        self._record.entries = [
            each
            for each in self._record.entries
            if each.job.number in self._owners or not (each.is_refused or each.job.hash == "")
        ]

    def _find(self, entry: SweepEntry) -> SweepEntry | None:
        job = entry.job
        if self._owners.get(job.number) is entry and self._by_number[job.number].job.hash in (job.hash, ""):
            return self._by_number[job.number]
        return (
            self._take_first(self._equal[job.hash, job.settings])
            or self._take_first(self._by_hash[job.hash])
            or self._take_first(self._equal["", job.settings])
        )

    def _take_first(self, entries: deque[SweepEntry]) -> SweepEntry | None:
        """Remove jobs that are taken, and return the first one that is left."""
        while entries and entries[0].job.number in self._owners:
            entries.popleft()
        return entries[0] if entries else None


def _copy_recorded_state(entry: SweepEntry, recorded: SweepEntry, code_version: str) -> None:
    number, folder = recorded.job.number, recorded.job.folder
    if recorded.job.hash == "":  # it was only listed
        entry.job = replace(entry.job, number=number)
        return
    entry.job = replace(entry.job, number=number, folder=folder, is_recorded=True)
    if entry.is_refused or folder == NO_FOLDER:
        entry.versions = recorded.versions
        return
    entry.is_done = is_run_complete(folder)
    entry.is_started = (
        not entry.is_done and not has_failed(folder) and list_checkpoints(folder / CHECKPOINTS_FOLDER) != []
    )
    entry.versions = read_versions(folder) or _get_recorded_versions(entry, recorded)
    if entry.was_trained:
        is_other = entry.versions.code not in ("", code_version)
        entry.changed = "code" if is_other else "" if entry.versions.are_known else "unknown"


def _get_recorded_versions(entry: SweepEntry, recorded: SweepEntry) -> JobVersions:
    """Return the versions in `sweep.json`, where dlspec 0.1.0 wrote those of finished jobs.

    Data that were given in Python are known: their checksum is part of the job's hash.
    """
    versions = recorded.versions if entry.is_done else JobVersions()
    return replace(versions, data=versions.data or entry.versions.data)
