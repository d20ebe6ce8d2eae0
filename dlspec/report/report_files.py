"""Write the two files of a report, during a sweep or for the `report` command."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from dlspec.errors import UserError, replace_control_characters
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.report.leaderboard import format_leaderboard
from dlspec.report.page import SWEEP_PAGE, render_page
from dlspec.report.page_data import make_curves_data, make_table_data
from dlspec.report.records import read_records
from dlspec.report.run_table import RunTable
from dlspec.runs.file_names import LEADERBOARD_FILE, REPORT_FILE
from dlspec.runs.io import read_first_bytes, write_bytes, write_text
from dlspec.runs.job_state import JobState
from dlspec.runs.sweep_file import list_jobs

SECONDS_BETWEEN_WRITES = 5.0
SECONDS_PER_JOB = 0.02  # a report of a thousand jobs takes a second or two, so it is not rewritten for every job
UNFINISHED_STATES = (JobState.WAITING, JobState.RUNNING)


def write_sweep_report(folder: Path, *, is_last: bool = False) -> None:
    """Write leaderboard.csv and report.html to a sweep's folder, unless jobs are left and the last report is recent.

    `is_last` forces writing, when no more jobs will finish although some are left, as after Ctrl-C.

    Raises:
        OSError: if the folder is not writable.
        UserError: if one of the files exists and was not written by dlspec.
    """
    jobs = list_jobs(folder)
    is_over = all(job.status not in UNFINISHED_STATES for job in jobs)
    if is_last or is_over or _file_age(folder / REPORT_FILE) > SECONDS_BETWEEN_WRITES + SECONDS_PER_JOB * len(jobs):
        write_report([folder], folder)


def write_report(roots: Sequence[Path], into: Path) -> RunTable:
    """Compare all runs in or below the folders `roots`, and write the report to `into`.

    Without any runs, nothing is written. Raise UserError rather than replace a file that dlspec did not write.
    """
    table = RunTable(read_records(roots))
    if table.records:
        for name, beginning in ((LEADERBOARD_FILE, b"rank,"), (REPORT_FILE, SWEEP_PAGE.start)):
            refuse_to_overwrite(into / name, beginning)
        title = replace_control_characters(" ".join(format_file_path(root) for root in roots))
        write_bytes(into / LEADERBOARD_FILE, format_leaderboard(table).encode(errors="replace"))
        data, curves = make_table_data(table, title, into), make_curves_data(table)
        write_text(into / REPORT_FILE, render_page(SWEEP_PAGE, title, data, curves))
    return table


def refuse_to_overwrite(path: Path, beginning: bytes, fix: str = "move it, or choose another folder") -> None:
    """Raise UserError rather than let a file be replaced that dlspec did not write.

    Args:
        path: the file, which may be missing
        beginning: the first bytes of such files that dlspec writes
        fix: what the user can do
    """
    if path.exists() and read_first_bytes(path, len(beginning)) != beginning:
        raise UserError(f"'{format_file_path(path)}' exists and is not a report of dlspec; {fix}")


def _file_age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")
