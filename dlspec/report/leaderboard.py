"""`leaderboard.csv`: a line a setting, the best first, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from dlspec.errors import printable
from dlspec.report.grouping import Setting, Table

_FORMULA = re.compile(r"\s*[=+\-@|%]")
"""What a spreadsheet computes, or sends away, rather than shows."""


def leaderboard(table: Table) -> str:
    """The settings as CSV: rank, the keys that differ, each result's mean and deviation over seeds, the runs.

    Equal results give equal texts: there are no times in it.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    results = [head for name in table.results for head in (name, f"{name} deviation")]
    writer.writerow([_cell(head) for head in ("rank", *table.setting_keys, *results, "finished", "failed", "runs")])
    for rank, setting in enumerate(table.settings, start=1):
        writer.writerow([_cell(value) for value in _line(table, setting, rank)])
    return file.getvalue()


def _line(table: Table, setting: Setting, rank: int) -> list[Any]:
    results = [each.get(name) for name in table.results for each in (setting.means, setting.deviations)]
    names = " ".join(table.records[number].name for number in setting.runs)
    values = ["null" if value is None else value for value in setting.values]
    is_ranked = table.monitor in setting.means
    return [rank if is_ranked else None, *values, *results, setting.finished, setting.failed, names]


def _cell(value: Any) -> str:
    """A number as it is; a text that a spreadsheet would compute with a quote before it."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = printable(str(value) if not isinstance(value, bool) else str(value).lower())
        return f"'{text}" if _FORMULA.match(text) else text
    return repr(value)
