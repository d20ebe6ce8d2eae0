"""Decide which jobs of a sweep must be trained: refuse invalid specs, check shapes, and compare the data."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from dlspec.errors import UserError
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.runs.job_result import JobResult
from dlspec.runs.job_state import JobState
from dlspec.sweeps.executors.executor import Executor, TaskEnded
from dlspec.sweeps.records.planned_job import Change, PlannedJob, SweepEntry
from dlspec.sweeps.records.sweep_table import find_differing_keys, format_label

MAX_SECONDS_FOR_CHECKS = 20.0  # shapes that are not checked by then are checked when their job starts
SECONDS_BETWEEN_POLLS = 0.1
MAX_LISTED = 20  # invalid jobs, and different texts, in one message
RERUN_CHANGED = "changed"


def refuse_wrong_specs(entries: Sequence[SweepEntry], settings: SweepSpec, *, is_started: bool = False) -> None:
    """Raise an error that lists the jobs with invalid specs, unless `sweep.on_invalid=skip` and some jobs are valid.

    Args:
        entries: The jobs of the sweep; maybe not all of them are checked.
        settings: The `sweep` section.
        is_started: Whether jobs have been trained, so that the sweep can be resumed.

    Raises:
        UserError: With the problems of each invalid job.
    """
    wrong = [(number, entry) for number, entry in enumerate(entries) if entry.is_refused]
    if not wrong or (settings.on_invalid == "skip" and len(wrong) < len(entries)):
        return
    keys = find_differing_keys(entries)
    texts: dict[str, list[str]] = {}
    for index, entry in wrong:
        number = entry.job.number if is_started else index
        texts.setdefault(entry.result.text, []).append(f"[{number}] {format_label(entry.job.overrides, keys)}")
    lines = [line for text, jobs in list(texts.items())[:MAX_LISTED] for line in (*jobs[:MAX_LISTED], text)]
    checked = sum(entry.is_checked for entry in entries)
    raise UserError("\n".join([*lines, _format_refused_count(len(wrong), checked, len(entries), is_started)]))


def _format_refused_count(wrong: int, checked: int, count: int, is_started: bool) -> str:
    which = f"{wrong}" if checked == count else f"the first {wrong}" if wrong == checked else f"{wrong} of {checked:,}"
    jobs = f"{count:,} job{'s' if count != 1 else ''}"
    found = f"{which} checked jobs refused ({jobs} in all)" if wrong < checked < count else f"{which} of {jobs} refused"
    outcome = "the sweep has stopped; finished jobs are kept" if is_started else "nothing was trained"
    fix = "; add sweep.on_invalid=skip to train the others" if wrong < checked else ""
    return f"{found}, {outcome}{fix}"


@dataclass
class DataComparison:
    """Compares the data of jobs that were trained before with the present data.

    The checksum of the present data is known for the data that were opened while shapes were checked.
    """

    checksums: dict[str, str] = field(default_factory=dict)  # by data key; '' for data that can't be opened any more
    uncompared: int = 0  # number of trained jobs whose data were not opened in time

    def take_uncompared(self) -> int:
        """Return the number of trained jobs whose data were not compared since the last call."""
        count, self.uncompared = self.uncompared, 0
        return count

    def mark_changed(self, entry: SweepEntry) -> None:
        """Mark a job that was trained before if its data have changed, or can't be opened any more."""
        if not entry.was_trained:
            return
        data = self.checksums.get(entry.job.data_key)
        if data is None:
            self.uncompared += 1
        elif data and entry.versions.data not in ("", data):
            entry.changed = "data"
        elif not data:
            entry.changed = entry.changed or "unknown"


def check_shapes(entries: Sequence[SweepEntry], executor: Executor, *, compares_all: bool) -> DataComparison:
    """Build one job for each network shape before anything is trained, and refuse the job if its shapes don't fit.

    No shape is checked if all jobs have the same. Building also computes the checksum of the data, so one job is built
    for each data set that jobs were trained with before.

    Args:
        entries: The jobs whose specs were checked.
        executor: Builds the jobs.
        compares_all: Whether all data are opened, however long that takes.
    """
    trained = {each.job.data_key: each for each in reversed(entries) if each.was_trained}
    shapes = {each.job.shape_key: each for each in reversed(entries) if each.needs_training}
    compared_shapes = {each.job.shape_key for each in trained.values()}
    rest = [each for key, each in reversed(shapes.items()) if key not in compared_shapes] if len(shapes) > 1 else []
    built, comparison = [*trained.values(), *rest], DataComparison()
    jobs = [replace(each.job, only_builds=True) for each in built]
    first = jobs[: len(trained)] if compares_all else []
    timed = _yield_until_timeout(MAX_SECONDS_FOR_CHECKS, jobs[len(first) :])
    for event in executor.run(chain(first, timed), SECONDS_BETWEEN_POLLS):
        if isinstance(event, TaskEnded) and not event.death_reason:
            _apply_check(built[event.task], event.result, comparison)
    for entry in entries:
        comparison.mark_changed(entry)
    return comparison


def _yield_until_timeout(seconds: float, jobs: Iterable[PlannedJob]) -> Iterator[PlannedJob]:
    """Yield jobs until `seconds` have passed."""
    deadline = time.monotonic() + seconds
    for job in jobs:
        if time.monotonic() > deadline:
            return
        yield job


def _apply_check(entry: SweepEntry, result: JobResult, comparison: DataComparison) -> None:
    if result.status is JobState.INTERRUPTED:
        raise KeyboardInterrupt
    if entry.was_trained:
        comparison.checksums[entry.job.data_key] = result.data
    if result.status is JobState.REFUSED and entry.needs_training:
        entry.refuse(result)


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


def describe_done_jobs(entries: Sequence[SweepEntry]) -> list[str]:
    """Describe how many jobs are already done, as far as their specs are checked, and how many others probably are."""
    done = sum(entry.is_done for entry in entries)
    probably_done = sum(entry.is_probably_done for entry in entries)
    others = f"{probably_done:,} more were finished with the same settings: they are checked last"
    return [
        *([f"{done:,} of {len(entries):,} jobs are done already"] if done else []),
        *([others] if probably_done else []),
    ]


def describe_trained_jobs(entries: Sequence[SweepEntry]) -> list[str]:
    """Describe the jobs that were trained or started with other code or data."""
    done = [entry for entry in entries if entry.is_done]
    started = Counter(entry.changed for entry in entries if entry.is_started)
    counts = Counter(entry.changed for entry in done)
    return [
        *(f"{counts[key]} of them were trained {text}: {_KEPT}" for key, text in _CHANGES.items() if counts[key]),
        *(
            f"jobs that are not finished and were trained {text}: {started[key]}; {_RESUMED[key]}"
            for key, text in _CHANGES.items()
            if started[key]
        ),
    ]


def describe_uncompared_data(count: int) -> str:
    """Report trained jobs whose data were not compared with the present data."""
    seconds = f"{MAX_SECONDS_FOR_CHECKS:g}"
    found = f"the data of {count:,} trained job{'s were' if count != 1 else ' was'} not opened within {seconds} seconds"
    return f"{found} and may have changed; sweep.rerun=changed opens all, and trains jobs with changed data again"


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
