"""Decide which jobs of a sweep must be trained: check their specs, and match them with the jobs in its folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from dlspec.errors import UserError
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.runs.file_access import refuse_links
from dlspec.runs.file_names import CHECKPOINTS_FOLDER
from dlspec.runs.job_result import JobResult, read_result
from dlspec.runs.job_state import JobState
from dlspec.runs.job_versions import JobVersions, read_versions
from dlspec.sweeps.executors.executor import Executor, TaskEnded
from dlspec.sweeps.executors.job_worker import has_failed
from dlspec.sweeps.records.job_folders import JobFolders
from dlspec.sweeps.records.planned_job import NO_FOLDER, Change, PlannedJob, SweepEntry
from dlspec.sweeps.records.sweep_record import SweepRecord, is_run_complete
from dlspec.sweeps.records.sweep_table import find_differing_keys, format_label
from dlspec.training.checkpoint.checkpoint_files import list_checkpoints

MAX_SECONDS_FOR_CHECKS = 20.0  # shapes that are not checked by then are checked when their job starts
SECONDS_BETWEEN_POLLS = 0.1
MAX_LISTED = 20  # invalid jobs, and different texts, in one message
RERUN_CHANGED = "changed"


def refuse_wrong_specs(entries: Sequence[SweepEntry], settings: SweepSpec, count: int) -> None:
    """Raise an error that lists the jobs with invalid specs, unless `sweep.on_invalid=skip` and some jobs are valid.

    Args:
        entries: The jobs that were planned so far.
        settings: The `sweep` section.
        count: Number of all jobs.

    Raises:
        UserError: With the problems of each invalid job.
    """
    wrong = [entry for entry in entries if entry.is_refused]
    if not wrong or (settings.on_invalid == "skip" and len(wrong) < count):
        return
    keys = find_differing_keys(entries)
    texts: dict[str, list[str]] = {}
    for number, entry in enumerate(entries):
        if entry.is_refused:
            texts.setdefault(entry.result.text, []).append(f"[{number}] {format_label(entry.job.overrides, keys)}")
    lines = [line for text, jobs in list(texts.items())[:MAX_LISTED] for line in (*jobs[:MAX_LISTED], text)]
    raise UserError("\n".join([*lines, _format_refused_count(len(wrong), len(entries), count)]))


def _format_refused_count(wrong: int, checked: int, count: int) -> str:
    which = f"the first {wrong}" if wrong == checked < count else str(wrong)
    fix = "; add sweep.on_invalid=skip to train the others" if wrong < checked else ""
    return f"{which} of {count} job{'s' if count != 1 else ''} refused, nothing was trained{fix}"


def match_recorded_jobs(entries: Sequence[SweepEntry], record: SweepRecord, code_version: str) -> None:
    """Give jobs that the sweep's folder contains their number and folder, and note which of them are done.

    Args:
        entries: The planned jobs, changed in place.
        record: The sweep's `sweep.json`. Jobs that were refused before and match no planned job are removed from it.
        code_version: The present version of the code; jobs that another one trained are marked as changed.
    """
    by_hash, numbers = record.entries_by_hash(), set()
    for entry in entries:
        recorded = next(by_hash.get(entry.job.hash, iter(())), None)
        if recorded is not None:
            numbers.add(recorded.job.number)
            _copy_recorded_state(entry, recorded, code_version)
    record.entries = [each for each in record.entries if each.job.number in numbers or not each.is_refused]


def _copy_recorded_state(entry: SweepEntry, recorded: SweepEntry, code_version: str) -> None:
    number, folder = recorded.job.number, recorded.job.folder
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


def check_shapes(entries: Sequence[SweepEntry], executor: Executor) -> None:
    """Build one job for each network shape before anything is trained, and refuse the job if its shapes don't fit.

    Nothing is built if all jobs have the same shapes and none was trained before. Building also computes the
    checksum of the data, so trained jobs whose data have changed are marked here.
    """
    shapes: dict[str, list[SweepEntry]] = {}
    for entry in entries:
        if not entry.is_refused:
            shapes.setdefault(entry.job.shape_key, []).append(entry)
    differ = len([same_shape for same_shape in shapes.values() if any(each.needs_training for each in same_shape)]) > 1
    checked = [same_shape for same_shape in shapes.values() if differ or any(each.was_trained for each in same_shape)]
    jobs = (replace(same_shape[0].job, only_builds=True) for same_shape in checked)
    for event in executor.run(_yield_until_timeout(MAX_SECONDS_FOR_CHECKS, jobs), SECONDS_BETWEEN_POLLS):
        if isinstance(event, TaskEnded) and not event.death_reason:
            _apply_check(checked[event.task], event.result)


def _yield_until_timeout(seconds: float, jobs: Iterable[PlannedJob]) -> Iterator[PlannedJob]:
    """Yield jobs until `seconds` have passed."""
    deadline = time.monotonic() + seconds
    for job in jobs:
        if time.monotonic() > deadline:
            return
        yield job


def _apply_check(same_shape: Sequence[SweepEntry], result: JobResult) -> None:
    if result.status is JobState.INTERRUPTED:
        raise KeyboardInterrupt
    if result.status is JobState.REFUSED and same_shape[0].needs_training:
        same_shape[0].refuse(result)
    for entry in same_shape:
        if entry.was_trained and result.data and entry.versions.data not in ("", result.data):
            entry.changed = "data"
        elif entry.was_trained and not result.data:  # the data can't be opened any more
            entry.changed = entry.changed or "unknown"


def retrain_changed_jobs(entries: Sequence[SweepEntry]) -> None:
    """Train jobs whose code or data have changed, or are unknown, again from the start."""
    for entry in entries:
        if entry.changed:
            entry.is_done = entry.is_started = False
            entry.job, entry.changed = replace(entry.job, starts_over=True), ""


_CHANGES: Mapping[Change, str] = {"code": "by another version of the code", "data": "with other data"}
_KEPT = "their results are kept; sweep.rerun=changed trains them again"
_RESUMED: Mapping[Change, str] = {
    "code": "they are resumed; sweep.rerun=changed trains them from the start",
    "data": "they are trained again from the start",
}


def describe_trained_jobs(entries: Sequence[SweepEntry]) -> list[str]:
    """Describe the jobs that are already done, and those that were trained or started with other code or data."""
    done = [entry for entry in entries if entry.is_done]
    started = Counter(entry.changed for entry in entries if entry.is_started)
    counts = Counter(entry.changed for entry in done)
    return [
        *([f"{len(done)} of {len(entries)} jobs are done already"] if done else []),
        *(f"{counts[key]} of them were trained {text}: {_KEPT}" for key, text in _CHANGES.items() if counts[key]),
        *(
            f"jobs that are not finished and were trained {text}: {started[key]}; {_RESUMED[key]}"
            for key, text in _CHANGES.items()
            if started[key]
        ),
    ]


def describe_unknown_versions(entries: Sequence[SweepEntry], rerun_fix: str) -> str:
    """Name the jobs of which it is unknown with which code and data they were trained; '' if there are none.

    Args:
        entries: The planned jobs.
        rerun_fix: What trains them again.
    """
    numbers = [str(entry.job.number) for entry in entries if entry.changed == "unknown"]
    if not numbers:
        return ""
    more = f" and {len(numbers) - MAX_LISTED:,} more" if len(numbers) > MAX_LISTED else ""
    jobs = f"job{'s' if len(numbers) > 1 else ''} {', '.join(numbers[:MAX_LISTED])}{more}"
    return f"unknown code or data of {jobs}: their results are kept; to train them again {rerun_fix}"


def number_jobs(
    entries: Sequence[SweepEntry], record: SweepRecord, name_folder: Callable[[PlannedJob, int], str]
) -> None:
    """Give each new job a number and a folder, and write them to `sweep.json` before anything is trained.

    Args:
        entries: The planned jobs, changed in place. Done jobs get their earlier results.
        record: The sweep's `sweep.json`.
        name_folder: Names the folder of a new job, from the job and its number, relative to the sweep's folder.

    Raises:
        UserError: If a folder can't have its name, or is reached through a link and so lies elsewhere.
    """
    number, keys = record.new_number(), find_differing_keys(entries)
    folders = JobFolders(record.folder, (each.job.folder for each in record.entries if each.job.folder != NO_FOLDER))
    for entry in entries:
        if not entry.job.is_recorded:
            folder = NO_FOLDER
            if not entry.is_refused:
                label = format_label(entry.job.overrides, keys)
                folder = folders.choose(name_folder(entry.job, number), number, label)
            entry.job = replace(entry.job, number=number, folder=folder)
            number += 1
        if entry.is_done:
            result = read_result(entry.job.folder) or JobResult()
            entry.result = replace(result, status=JobState.FINISHED, error="")
    refuse_links(record.folder, [entry.job.folder for entry in entries if entry.job.folder != NO_FOLDER])
    record.add(entries)
    record.write()
    for entry in entries:
        if entry.job.folder.parent not in (NO_FOLDER, record.folder):  # processes make only the job's own folder
            entry.job.folder.parent.mkdir(parents=True, exist_ok=True)
