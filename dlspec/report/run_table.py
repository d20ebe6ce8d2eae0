"""Compare runs in a table. Runs that differ only in their seeds are one setting, with mean, deviation and rank."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from dlspec.report.records import FAILED_STATES, RunRecord
from dlspec.report.spec_differences import SettingColumns


@dataclass(frozen=True)
class SeedGroup:
    """A setting: the runs that differ only in their seeds."""

    values: tuple[Any, ...]  # of the table's `setting_keys`
    runs: tuple[int, ...]  # indices into the table's `records`
    finished: int  # number of finished runs
    failed: int  # number of failed runs
    means: Mapping[str, float]  # of each result, over the finished runs
    deviations: Mapping[str, float]  # sample standard deviation of each result; missing for a single finished run


class RunTable:
    """A comparison of runs: the keys that differ, the results, and the settings from the best to the worst."""

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self.records = tuple(records)
        columns = SettingColumns([record for record in records if record.spec])
        self.keys = columns.names
        self.values = tuple(columns.values(record) for record in records)
        self.monitor, self.mode = self._find_monitor()

    @property
    def setting_keys(self) -> tuple[str, ...]:
        """The keys that differ, without seeds."""
        return tuple(key for key in self.keys if not is_seed_key(key))

    @property
    def note(self) -> str:
        """A warning about the comparison, or ""."""
        has_many_data_sets = any(key.partition(".")[0] == "data" and not is_seed_key(key) for key in self.keys)
        return "the runs use different data: compare only results on the same data" if has_many_data_sets else ""

    @cached_property
    def results(self) -> tuple[str, ...]:
        """The names of the results: the monitored one, those of the test, then the others, without train/ and lr."""
        names = dict.fromkeys(name for record in self.records for name in record.results)
        reported = (name for name in names if name != "lr" and not name.startswith("train/"))
        return tuple(sorted(reported, key=lambda name: (name != self.monitor, not name.startswith("test/"))))

    @cached_property
    def settings(self) -> tuple[SeedGroup, ...]:
        """The settings, the best first and those without a result last."""
        positions = [index for index, key in enumerate(self.keys) if not is_seed_key(key)]
        groups: dict[Any, list[int]] = {}
        for number, (record, values) in enumerate(zip(self.records, self.values, strict=True)):
            if record.spec:
                groups.setdefault(tuple(repr(values[position]) for position in positions), []).append(number)
        settings = [self._summarize_seeds(runs, positions) for runs in groups.values()]
        return tuple(sorted(settings, key=lambda each: self._sort_key(each.means.get(self.monitor))))

    @cached_property
    def best(self) -> int | None:
        """Index of the best run of the best setting; None if none is finished."""
        runs = [number for number in (self.settings[0].runs if self.settings else ()) if self.result(number)]
        return min(runs, key=lambda number: self._sort_key(self.result(number).get(self.monitor)), default=None)

    def result(self, number: int) -> Mapping[str, float]:
        """Return the results of a run if it is finished, else {}."""
        record = self.records[number]
        return record.results if record.is_finished else {}

    def _summarize_seeds(self, runs: Sequence[int], positions: Sequence[int]) -> SeedGroup:
        results = [self.result(number) for number in runs if self.records[number].is_finished]
        samples = {name: [each[name] for each in results if name in each] for name in self.results}
        return SeedGroup(
            values=tuple(self.values[runs[0]][position] for position in positions),
            runs=tuple(runs),
            finished=len(results),
            failed=len([number for number in runs if self.records[number].status in FAILED_STATES]),
            means={name: fmean(values) for name, values in samples.items() if values},
            deviations={name: stdev(values) for name, values in samples.items() if len(values) > 1},
        )

    def _sort_key(self, value: float | None) -> float:
        if value is None:
            return math.inf
        return -value if self.mode == "max" else value

    def _find_monitor(self) -> tuple[str, str]:
        """Find the result that most runs monitor, and whether its smallest or largest value is best."""
        monitors = Counter((each.monitor, each.mode) for each in self.records if each.monitor and each.mode)
        return monitors.most_common(1)[0][0] if monitors else ("val/loss", "min")


def is_seed_key(key: str) -> bool:
    """Whether a key is a random seed, such as `seed` or `data.split_seed`, or the fold that validates."""
    last = key.rpartition(".")[2]
    return last == "seed" or last.endswith("_seed") or key == "data.fold"


def format_status_counts(records: Iterable[RunRecord]) -> str:
    """Count the runs of each state: `12 finished, 1 failed`."""
    return ", ".join(f"{count:,} {status}" for status, count in Counter(each.status for each in records).most_common())
