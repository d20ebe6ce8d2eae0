"""Give the new jobs of a sweep their numbers and folders, and list them in `sweep.json`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dlspec.runs.file_access import refuse_links
from dlspec.runs.job_result import JobResult, read_result
from dlspec.runs.job_state import JobState
from dlspec.sweeps.records.job_folders import JobFolders
from dlspec.sweeps.records.planned_job import NO_FOLDER, PlannedJob, SweepEntry
from dlspec.sweeps.records.sweep_record import SweepRecord
from dlspec.sweeps.records.sweep_table import find_differing_keys, format_label


class JobListing:
    """Gives each job a number at once, and a folder once its spec is checked.

    Args:
        entries: The planned jobs. They are changed in place; done jobs get their earlier results.
        record: The sweep's `sweep.json`.
        name_folder: Names the folder of a new job, from the job and its number, relative to the sweep's folder.
    """

    def __init__(
        self, entries: Sequence[SweepEntry], record: SweepRecord, name_folder: Callable[[PlannedJob, int], str]
    ) -> None:
        self.entries, self._record, self._name_folder = entries, record, name_folder
        self._next_number, self._keys = record.new_number(), find_differing_keys(entries)
        taken = (each.job.folder for each in record.entries if each.job.folder != NO_FOLDER)
        self._folders = JobFolders(record.folder, taken)

    def write(self) -> None:
        """Number all jobs, and write them to `sweep.json` before anything is trained.

        Raises:
            UserError: If a folder can't have its name, or is reached through a link and so lies elsewhere.
        """
        for entry in self.entries:
            self._number(entry)
        folders = self._list_folders(self.entries)
        self._record.add(self.entries)
        self._record.write()
        self._make_parents(folders)

    def add_checked(self, entry: SweepEntry) -> None:
        """Number a job whose spec was checked while others train, and give it a folder; raises as `write` does."""
        self._number(entry)
        self._make_parents(self._list_folders([entry]))

    def _number(self, entry: SweepEntry) -> None:
        if entry.job.number < 0:
            entry.job = replace(entry.job, number=self._next_number)
            self._next_number += 1
        if entry.is_checked and not entry.is_refused and entry.job.folder == NO_FOLDER:
            number, label = entry.job.number, format_label(entry.job.overrides, self._keys)
            folder = self._folders.choose(self._name_folder(entry.job, number), number, label)
            entry.job = replace(entry.job, folder=folder)
        if entry.is_done:
            result = read_result(entry.job.folder) or JobResult()
            entry.result = replace(result, status=JobState.FINISHED, error="")

    def _list_folders(self, entries: Sequence[SweepEntry]) -> list[Path]:
        folders = [entry.job.folder for entry in entries if entry.job.folder != NO_FOLDER]
        refuse_links(self._record.folder, folders)
        return folders

    def _make_parents(self, folders: Sequence[Path]) -> None:
        """Make the parents of the jobs' folders: the processes of jobs make only the job's own folder."""
        for folder in folders:
            if folder.parent != self._record.folder:
                folder.parent.mkdir(parents=True, exist_ok=True)
