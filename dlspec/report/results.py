"""`dlspec.results(folder)`: the results of the runs in a folder, in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlspec.errors import UserError
from dlspec.report.records import RunRecord, read_records
from dlspec.report.run_table import RunTable, format_status_counts
from dlspec.runs.run_discovery import require_folders

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class Results:
    """The results of a sweep, or of all runs below a folder: `runs` is sorted by name, `best` is the best run."""

    runs: tuple[RunRecord, ...]

    @property
    def best(self) -> RunRecord | None:
        """The best run of the setting that is best on average over its seeds; None if no run is finished."""
        table = RunTable(self.runs)
        return None if table.best is None else self.runs[table.best]

    def rows(self) -> list[dict[str, Any]]:
        """Return a dict for each run: its name and status, the keys that differ, its results, and its cost.

        The cost is `parameters`, `steps` and `seconds`.
        """
        table = RunTable(self.runs)
        return [_make_row(table, number) for number in range(len(self.runs))]

    def settings(self) -> list[dict[str, Any]]:
        """Return a dict for each setting, the best first. A setting is all runs that differ only in their seeds.

        It has the keys that differ, the mean and deviation of each result, and the names of the runs.
        """
        table = RunTable(self.runs)
        return [
            dict(zip(table.setting_keys, each.values, strict=True))
            | {name: each.means.get(name) for name in table.results}
            | {f"{name} deviation": each.deviations.get(name) for name in table.results}
            | {"finished": each.finished, "failed": each.failed}
            | {"runs": [self.runs[number].name for number in each.runs]}
            for each in table.settings
        ]

    def frame(self) -> DataFrame:
        """Return `rows` as a pandas data frame; UserError if pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise UserError("frame() needs pandas: pip install 'dlspec[frames]', or use .rows()") from None
        return pandas.DataFrame(self.rows())

    def __repr__(self) -> str:
        return f"Results({len(self.runs)} run{'s' if len(self.runs) != 1 else ''}: {format_status_counts(self.runs)})"


def results(*folders: str | Path) -> Results:
    """Read the results of all runs in or below the folders; UserError if a folder does not exist."""
    return Results(tuple(read_records(require_folders(folders))))


def _make_row(table: RunTable, number: int) -> dict[str, Any]:
    record = table.records[number]
    values: Mapping[str, Any] = dict(zip(table.keys, table.values[number], strict=True))
    reported = {name: record.results.get(name) for name in table.results}
    took = {"parameters": record.parameters, "steps": record.steps, "seconds": record.seconds}
    return {"run": record.name, "status": record.status, **values, **reported, **took, "error": record.error}
