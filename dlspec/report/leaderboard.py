"""Make `leaderboard.csv`: one line for each setting, the best first, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from typing import Any

from dlspec.errors import replace_control_characters
from dlspec.formatting import quote_spreadsheet_formula
from dlspec.report.run_table import RunTable, SeedGroup


def format_leaderboard(table: RunTable) -> str:
    """Format the settings as CSV: rank, keys that differ, each result's mean and deviation over seeds, the runs.

    Equal results give equal files, because the CSV does not contain any times.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    results = [head for name in table.results for head in (name, f"{name} deviation")]
    writer.writerow(
        [_format_cell(head) for head in ("rank", *table.setting_keys, *results, "finished", "failed", "runs")]
    )
    for rank, setting in enumerate(table.settings, start=1):
        writer.writerow([_format_cell(value) for value in _make_row(table, setting, rank)])
    return file.getvalue()


def _make_row(table: RunTable, setting: SeedGroup, rank: int) -> list[Any]:
    results = [each.get(name) for name in table.results for each in (setting.means, setting.deviations)]
    names = " ".join(table.records[number].name for number in setting.runs)
    values = ["null" if value is None else value for value in setting.values]
    is_ranked = table.monitor in setting.means
    return [rank if is_ranked else None, *values, *results, setting.finished, setting.failed, names]


def _format_cell(value: Any) -> str:
    """Format a cell; text that a spreadsheet would evaluate gets a quote before it."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = str(value) if not isinstance(value, bool) else str(value).lower()
        return quote_spreadsheet_formula(replace_control_characters(text))
    return repr(value)
