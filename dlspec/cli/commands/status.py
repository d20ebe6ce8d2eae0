"""`status`: list the runs below some folders with their progress, without torch and without disturbing them."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dlspec.cli.argument_parsing import FlagParser, parse_arguments
from dlspec.cli.console_output import print_message
from dlspec.errors import replace_control_characters, shorten_middle
from dlspec.formatting import format_age, format_duration, format_number, format_table
from dlspec.jobs.error_reporting import EXIT_OK
from dlspec.runs.file_names import DEFAULT_RUNS_FOLDER
from dlspec.runs.job_state import JobState
from dlspec.runs.run_discovery import Run, find_runs, require_folders
from dlspec.runs.run_status import resume_command

HEADER = ("run", "status", "epoch", "phase", "step", "best so far", "updated", "time left")
MAX_CELL_LENGTH = 60
FIX = "write python -m dlspec status [--json] [FOLDER ...]"


def main(argv: Sequence[str]) -> int:
    """List the runs, newest first; with `--json` in a format for scripts."""
    parser = FlagParser("status")
    parser.add_argument("folders", nargs="*", metavar="FOLDER")
    parser.add_argument("--json", action="store_true")
    arguments = parse_arguments(parser, argv, FIX)
    folders = arguments.folders or [DEFAULT_RUNS_FOLDER]
    require_folders(arguments.folders, FIX)
    runs = find_runs([Path(each) for each in folders])
    if arguments.json:
        print_message(json.dumps([_make_record(run) for run in runs], indent=2))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print_message(format_runs(runs, width) if runs else f"no runs in {', '.join(map(_quote, folders))}")
    return EXIT_OK


def _quote(name: str) -> str:
    return f"'{replace_control_characters(shorten_middle(name))}'"


def _make_record(run: Run) -> dict[str, Any]:
    """Make a run's record for --json.

    The resume command is made here, not read from a file: a script may run it, and anyone may have written the file.
    """
    resume = resume_command(run.folder) if run.can_be_resumed else ""
    return {"run": str(run.folder), **asdict(run.status), "status": run.state, "age": run.age, "resume": resume}


def format_runs(runs: Sequence[Run], width: int | None = None) -> str:
    """Format a table of runs, with the command that resumes a run below its row.

    If the table is wider than `width` characters, each run is a block of lines instead.
    """
    rows = [_format_cells(run) for run in runs]
    head, *lines = format_table(HEADER, rows).split("\n")
    if width is not None and max(map(len, (head, *lines))) > width:
        head, lines = "", [_format_run_for_narrow_terminal(row, width) for row in rows]
    below = ["".join(f"\n    {line}" for line in _list_resume_notes(run)) for run in runs]
    return "\n".join([*([head] if head else []), *map(str.__add__, lines, below), _format_counts(runs)])


def _format_cells(run: Run) -> list[str]:
    status, is_running = run.status, run.state is JobState.RUNNING
    cells = [
        run.state,
        _format_progress(status.epoch, status.epochs),
        f"{status.phase} {_format_progress(status.batch, status.batches)}".strip() if is_running else "",
        _format_progress(status.step, status.planned_steps),
        _format_best(run),
        "" if run.age is None else f"{format_age(run.age)} ago",
        format_duration(status.seconds_left) if is_running and status.seconds_left is not None else "",
    ]
    return [
        replace_control_characters(str(run.folder)),
        *(replace_control_characters(shorten_middle(cell, MAX_CELL_LENGTH)) for cell in cells),
    ]


def _format_run_for_narrow_terminal(cells: Sequence[str], width: int) -> str:
    """Format a run for a narrow terminal: the folder on one line, and the labeled cells below it."""
    folder, state, *others = cells
    details = [state, *(f"{name} {cell}" for name, cell in zip(HEADER[2:], others, strict=True) if cell)]
    text = ", ".join(details)
    return f"{folder}\n" + textwrap.fill(text, max(width, 20), initial_indent="    ", subsequent_indent="    ")


def _list_resume_notes(run: Run) -> list[str]:
    if not run.can_be_resumed:
        return []
    reason = shorten_middle(run.status.reason) if run.state is JobState.FAILED else ""
    return [replace_control_characters(line) for line in (reason, resume_command(run.folder)) if line]


def _format_counts(runs: Sequence[Run]) -> str:
    parts = [f"{count} {state}" for state, count in sorted(Counter(run.state for run in runs).items())]
    return f"{len(runs)} run{'s' if len(runs) != 1 else ''}: {', '.join(parts)}"


def _format_progress(count: int | None, total: int | None) -> str:
    if count is None:
        return ""
    return str(count) if total is None else f"{count}/{total}"


def _format_best(run: Run) -> str:
    status = run.status
    if status.monitored is None:
        return ""
    epoch = f" in epoch {status.best_epoch}" if status.best_epoch else ""
    return f"{shorten_middle(status.monitor, 30)} {format_number(status.monitored)}{epoch}"
