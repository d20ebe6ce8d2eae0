"""Runs that differ in nothing but their seeds are one setting: its mean, its deviation, its rank."""

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
    """Runs that differ in their seeds alone: `values` are those of the table's keys, `runs` their places in it.

    `means` and `deviations` (of the sample; none where one run was finished) are over the finished runs.
    """

    values: tuple[Any, ...]
    runs: tuple[int, ...]
    finished: int
    failed: int
    means: Mapping[str, float]
    deviations: Mapping[str, float]


class RunTable:
    """Runs beside each other: the keys that differ, the results, and the settings from the best to the worst."""

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self.records = tuple(records)
        columns = SettingColumns([record for record in records if record.spec])
        self.keys = columns.names
        self.values = tuple(columns.values(record) for record in records)
        self.monitor, self.mode = self._find_monitor()

    @property
    def setting_keys(self) -> tuple[str, ...]:
        """The keys that make a setting: all but the seeds."""
        return tuple(key for key in self.keys if not is_seed_key(key))

    @property
    def note(self) -> str:
        """What to mind in reading the table, or ''."""
        has_many_data_sets = any(key.partition(".")[0] == "data" and not is_seed_key(key) for key in self.keys)
        return "the data differ: compare results within one data set" if has_many_data_sets else ""

    @cached_property
    def results(self) -> tuple[str, ...]:
        """The results' names: what is monitored, then the test's, then the others; what training itself had is left."""
        names = dict.fromkeys(name for record in self.records for name in record.results)
        reported = (name for name in names if name != "lr" and not name.startswith("train/"))
        return tuple(sorted(reported, key=lambda name: (name != self.monitor, not name.startswith("test/"))))

    @cached_property
    def settings(self) -> tuple[SeedGroup, ...]:
        """The best first, those without a result last."""
        positions = [index for index, key in enumerate(self.keys) if not is_seed_key(key)]
        groups: dict[Any, list[int]] = {}
        for number, (record, values) in enumerate(zip(self.records, self.values, strict=True)):
            if record.spec:
                groups.setdefault(tuple(repr(values[position]) for position in positions), []).append(number)
        settings = [self._summarize_seeds(runs, positions) for runs in groups.values()]
        return tuple(sorted(settings, key=lambda each: self._sort_key(each.means.get(self.monitor))))

    @cached_property
    def best(self) -> int | None:
        """The best run of the best setting; None where none is finished."""
        runs = [number for number in (self.settings[0].runs if self.settings else ()) if self.result(number)]
        return min(runs, key=lambda number: self._sort_key(self.result(number).get(self.monitor)), default=None)

    def result(self, number: int) -> Mapping[str, float]:
        """The results of a finished run, nothing of another."""
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
        """What most runs monitor, and whether more or less of it is better."""
        monitors = Counter((each.monitor, each.mode) for each in self.records if each.monitor and each.mode)
        return monitors.most_common(1)[0][0] if monitors else ("val/loss", "min")


def is_seed_key(key: str) -> bool:
    """Whether a key's values are only drawn from: `seed`, `data.seed`, `data.split_seed`."""
    last = key.rpartition(".")[2]
    return last == "seed" or last.endswith("_seed")


def format_status_counts(records: Iterable[RunRecord]) -> str:
    """`12 finished, 1 failed`."""
    return ", ".join(f"{count:,} {status}" for status, count in Counter(each.status for each in records).most_common())
