"""What came of a sweep's jobs, as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlspec.errors import cut, printable
from dlspec.language.yaml.yaml_files import display_name
from dlspec.runs.io import read_object
from dlspec.runs.layout import RESULT
from dlspec.sweeps.records.record import Status
from dlspec.text import text_table

WORDS: tuple[Status, ...] = ("finished", "refused", "failed", "interrupted", "running", "waiting")
LONGEST, LONGEST_ERROR = 200, 100


@dataclass(frozen=True)
class Reached:
    """What a run reached, as its result.json says."""

    monitor: str
    monitored: float
    is_less_better: bool
    test: Mapping[str, float] = field(default_factory=dict)

    @property
    def rank(self) -> float:
        """The less the better."""
        if math.isnan(self.monitored):
            return math.inf
        return self.monitored if self.is_less_better else -self.monitored


@dataclass
class Row:
    """One job of a sweep: its overrides, and what came of it."""

    number: int
    overrides: tuple[str, ...]
    folder: Path | None = None
    status: Status = "waiting"
    error: str = ""
    reached: Reached | None = None
    began: float = 0.0
    seconds: float = 0.0


def read_reached(folder: Path) -> Reached | None:
    """What the run in a folder says it has reached, None where that is nothing."""
    result = read_object(folder / RESULT)
    if result is None or not isinstance(result.get("monitor"), str):
        return None
    test = result.get("test")
    results = {name: _number(each) for name, each in test.items()} if isinstance(test, dict) else {}
    return Reached(result["monitor"], _number(result.get("monitored")), result.get("mode") != "max", results)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan  # nan was written as null


def best(rows: Sequence[Row]) -> Row | None:
    """The best of those that have a result."""
    ranked = [(row.reached.rank, row.number, row) for row in rows if row.reached is not None]
    return min(ranked)[2] if ranked else None


def label(row: Row, keys: Collection[str]) -> str:
    """The overrides by which a job differs from the others, whose keys these are."""
    words = [each for each in row.overrides if _key(each) in keys] or list(row.overrides)
    return printable(cut(" ".join(words), LONGEST))


def sweep_table(rows: Sequence[Row]) -> str:
    """What differs, the result, the folder: a line a job, the best first; and how many came to which end."""
    keys, results = differing(rows), _result_names(rows)
    lines = [
        [str(row.number), *_values(row, keys), *_results(row, results), _folder_or_error(row)]
        for row in sorted(rows, key=_order)
    ]
    table = text_table(["job", *keys, *results, "folder"], [[printable(cell) for cell in line] for line in lines])
    return f"{table}\n{len(rows)} job{'s' if len(rows) != 1 else ''}: {counted(rows)}"


def counted(rows: Sequence[Row]) -> str:
    counts = Counter(row.status for row in rows)
    return ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])


def differing(rows: Sequence[Row]) -> list[str]:
    """The overrides' keys whose values are not the same for all jobs; all of them where there is one job."""
    settings = [_settings(row) for row in rows]
    keys = list(dict.fromkeys(key for each in settings for key in each))
    return [key for key in keys if len(rows) == 1 or len({each.get(key) for each in settings}) > 1]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _settings(row: Row) -> dict[str, str]:
    return {_key(each): each.partition("=")[2] for each in row.overrides}


def _values(row: Row, keys: Sequence[str]) -> list[str]:
    return [_settings(row).get(key, "") for key in keys]


def _result_names(rows: Sequence[Row]) -> list[str]:
    """The monitored result and the test's, as the jobs have them."""
    reached = [row.reached for row in rows if row.reached is not None]
    return list(dict.fromkeys(name for each in reached for name in (each.monitor, *each.test)))


def _results(row: Row, names: Sequence[str]) -> list[str]:
    if row.reached is None:
        return ["" for _ in names]
    results = {row.reached.monitor: row.reached.monitored, **row.reached.test}
    return [f"{results[name]:.4g}" if name in results else "" for name in names]


def _order(row: Row) -> tuple[bool, float, int]:
    """Jobs with a result first, the better before the worse."""
    return (True, 0.0, row.number) if row.reached is None else (False, row.reached.rank, row.number)


def _folder_or_error(row: Row) -> str:
    if row.status == "finished" and row.folder is not None:
        return display_name(row.folder)
    return f"{row.status}: {cut(row.error, LONGEST_ERROR)}" if row.error else row.status
