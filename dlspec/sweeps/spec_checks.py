"""Check the specs of a sweep's jobs: of small sweeps all before any job trains, of large ones some while jobs train."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from dlspec.runs.job_state import JobState
from dlspec.sweeps.planning_progress import PlanningProgress
from dlspec.sweeps.records.planned_job import SweepEntry
from dlspec.sweeps.records.sweep_record import SweepRecord
from dlspec.sweeps.records.sweep_table import split_override

MAX_SECONDS_OF_FIRST_CHECKS = 10.0  # about 1,500 jobs; the others are checked while these train
# Of a setting, each in one job: a setting with more values is hardly wrong in one of them.
MAX_VALUES_CHECKED_FIRST = 100


class SpecChecks:
    """Checks the specs of a sweep's jobs, in an order that finds problems early.

    Args:
        entries: The planned jobs. Each is changed in place when its spec is checked.
        record: The sweep's `sweep.json`.
    """

    def __init__(self, entries: Sequence[SweepEntry], record: SweepRecord) -> None:
        self.entries = entries
        self._order = iter(_sort_for_checks(entries, {each.job.settings: each.status for each in record.entries}))
        self.checked = 0  # number of jobs

    @property
    def is_complete(self) -> bool:
        """Whether the specs of all jobs are checked."""
        return self.checked == len(self.entries)

    def run(self, max_refused: int, max_seconds: float | None) -> None:
        """Check specs before any job trains, at least up to the first valid one.

        Args:
            max_refused: The number of invalid jobs after which the rest is not checked: locating a problem in its
                file takes 0.1 s.
            max_seconds: The time after which the rest is not checked yet; None to check all.
        """
        refused, deadline = 0, None if max_seconds is None else time.monotonic() + max_seconds
        progress = PlanningProgress(len(self.entries), max_seconds)
        for entry in self.check_next():
            progress.update(self.checked)
            refused += entry.is_refused
            is_late = deadline is not None and time.monotonic() > deadline and refused < self.checked
            if refused == max_refused or is_late:
                break
        progress.close()

    def check_next(self) -> Iterator[SweepEntry]:
        """Check one job after the other, and yield each."""
        for entry in self._order:
            if not entry.is_checked:
                self.check(entry)
                yield entry

    def check(self, entry: SweepEntry) -> None:
        """Check the spec of a job out of turn."""
        entry.check()
        self.checked += 1


def _sort_for_checks(
    entries: Sequence[SweepEntry], recorded: Mapping[tuple[str, ...], JobState]
) -> Sequence[SweepEntry]:
    """Sort jobs: first those that were refused before, then one for each value of a setting; finished jobs last."""
    covering = {id(each): index for index, each in enumerate(_cover_values(entries))}

    def rank(entry: SweepEntry) -> tuple[int, int]:
        state = recorded.get(entry.job.settings)
        if state is JobState.REFUSED:
            return 0, 0
        if id(entry) in covering:
            return 1, covering[id(entry)]
        return (3 if state is JobState.FINISHED else 2), 0

    return sorted(entries, key=rank)


def _cover_values(entries: Sequence[SweepEntry]) -> list[SweepEntry]:
    """List a job for each value of each setting that has few values."""
    by_value: defaultdict[str, dict[str, SweepEntry]] = defaultdict(dict)
    for entry in entries:
        for override in entry.job.overrides:
            key, value = split_override(override)
            by_value[key].setdefault(value, entry)
    few = [values for values in by_value.values() if 1 < len(values) <= MAX_VALUES_CHECKED_FIRST]
    return list(dict.fromkeys(entry for values in sorted(few, key=len) for entry in values.values()))
