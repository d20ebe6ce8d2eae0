"""The two files of a report, written as a sweep goes on or when they are asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from dlspec.errors import UserError, printable
from dlspec.language.yaml.yaml_files import display_name
from dlspec.report.grouping import Table
from dlspec.report.leaderboard import leaderboard
from dlspec.report.page import BEGINNING, page
from dlspec.report.page_data import curves_data, table_data
from dlspec.report.records import read_records
from dlspec.runs.io import read_beginning, write_bytes, write_text
from dlspec.runs.job_state import JobState
from dlspec.runs.layout import LEADERBOARD, PAGE
from dlspec.runs.sweep_file import list_jobs

SECONDS_BETWEEN_WRITES = 5.0
SECONDS_A_JOB = 0.02
"""A report of a thousand jobs takes a second or two; so it is not written again for every one that ends."""
LEFT = (JobState.WAITING, JobState.RUNNING)


def write_sweep_report(folder: Path, *, is_last: bool = False) -> None:
    """Writes leaderboard.csv and report.html into a sweep's folder; not again soon, as long as jobs are left.

    `is_last` says that no more jobs will end although some are left, as after Ctrl-C. Raises OSError where the
    folder can't be written, UserError where it has a file of that name that is none of dlspec's.
    """
    jobs = list_jobs(folder)
    is_over = all(job.status not in LEFT for job in jobs)
    if is_last or is_over or _age(folder / PAGE) > SECONDS_BETWEEN_WRITES + SECONDS_A_JOB * len(jobs):
        write_report([folder], folder)


def write_report(roots: Sequence[Path], into: Path) -> Table:
    """Compares all runs at or below the folders; UserError rather than replacing a file that is none of dlspec's."""
    table = Table(read_records(roots))
    if table.records:
        for name, beginning in ((LEADERBOARD, b"rank,"), (PAGE, BEGINNING)):
            _refuse_others(into / name, beginning)
        title = printable(" ".join(display_name(root) for root in roots))
        write_bytes(into / LEADERBOARD, leaderboard(table).encode(errors="replace"))
        write_text(into / PAGE, page(title, table_data(table, title), curves_data(table)))
    return table


def _refuse_others(path: Path, beginning: bytes) -> None:
    if path.exists() and read_beginning(path, len(beginning)) != beginning:
        raise UserError(f"'{display_name(path)}' is there, and no report of dlspec's; move it, or name another folder")


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")
