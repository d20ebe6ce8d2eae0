"""`status`: what became of the runs below some folders, without torch and without disturbing those that go on."""

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

from dlspec.cli.flags import FlagParser, parse_flags
from dlspec.cli.printing import say
from dlspec.errors import cut, printable
from dlspec.jobs.error_messages import DONE
from dlspec.runs.finding import Run, demand_folders, find_runs
from dlspec.runs.job_state import JobState
from dlspec.runs.layout import RUNS
from dlspec.runs.run_status import resume_command
from dlspec.text import clock, number, text_table

HEAD = ("run", "status", "epoch", "phase", "step", "best so far", "renewed", "left")
LONGEST_CELL = 60
FIX = "write python -m dlspec status [--json] [FOLDER ...]"


def main(words: Sequence[str]) -> int:
    """Lists the runs, the newest first; with `--json` for a script."""
    parser = FlagParser("status")
    parser.add_argument("folders", nargs="*", metavar="FOLDER")
    parser.add_argument("--json", action="store_true")
    arguments = parse_flags(parser, words, FIX)
    folders = arguments.folders or [RUNS]
    demand_folders(arguments.folders, FIX)
    runs = find_runs([Path(each) for each in folders])
    if arguments.json:
        say(json.dumps([_record(run) for run in runs], indent=2))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        say(listing(runs, width) if runs else f"no runs in {', '.join(map(_quoted, folders))}")
    return DONE


def _quoted(name: str) -> str:
    return f"'{printable(cut(name))}'"


def _record(run: Run) -> dict[str, Any]:
    """For --json. The command is made here: what a file says is not for a script to run."""
    resume = resume_command(run.folder) if run.can_be_resumed else ""
    return {"run": str(run.folder), **asdict(run.status), "status": run.state, "age": run.age, "resume": resume}


def listing(runs: Sequence[Run], width: int | None = None) -> str:
    """A line a run, or several where `width` columns don't hold the table; below it what resumes the run."""
    rows = [_cells(run) for run in runs]
    head, *lines = text_table(HEAD, rows).split("\n")
    if width is not None and max(map(len, (head, *lines))) > width:
        head, lines = "", [_block(row, width) for row in rows]
    below = ["".join(f"\n    {line}" for line in _notes(run)) for run in runs]
    return "\n".join([*([head] if head else []), *map(str.__add__, lines, below), _counts(runs)])


def _cells(run: Run) -> list[str]:
    status, goes_on = run.status, run.state is JobState.RUNNING
    cells = [
        run.state,
        _of(status.epoch, status.epochs),
        f"{status.phase} {_of(status.batch, status.batches)}".strip() if goes_on else "",
        _of(status.step, status.planned_steps),
        _best(run),
        "" if run.age is None else f"{_span(run.age)} ago",
        clock(status.seconds_left) if goes_on and status.seconds_left is not None else "",
    ]
    return [printable(str(run.folder)), *(printable(cut(cell, LONGEST_CELL)) for cell in cells)]


def _block(cells: Sequence[str], width: int) -> str:
    """For a narrow terminal: the folder in a line of its own, the rest below it, with a word of what each is."""
    folder, state, *others = cells
    told = [state, *(f"{name} {cell}" for name, cell in zip(HEAD[2:], others, strict=True) if cell)]
    text = ", ".join(told)
    return f"{folder}\n" + textwrap.fill(text, max(width, 20), initial_indent="    ", subsequent_indent="    ")


def _notes(run: Run) -> list[str]:
    if not run.can_be_resumed:
        return []
    reason = cut(run.status.reason) if run.state is JobState.FAILED else ""
    return [printable(line) for line in (reason, resume_command(run.folder)) if line]


def _counts(runs: Sequence[Run]) -> str:
    parts = [f"{count} {state}" for state, count in sorted(Counter(run.state for run in runs).items())]
    return f"{len(runs)} run{'s' if len(runs) != 1 else ''}: {', '.join(parts)}"


def _of(count: int | None, all_of_them: int | None) -> str:
    if count is None:
        return ""
    return str(count) if all_of_them is None else f"{count}/{all_of_them}"


def _best(run: Run) -> str:
    status = run.status
    if status.monitored is None:
        return ""
    epoch = f" in epoch {status.best_epoch}" if status.best_epoch else ""
    return f"{cut(status.monitor, 30)} {number(status.monitored)}{epoch}"


def _span(seconds: float) -> str:
    """`12 s`, `5 min`, `7 h`, `3 days`: how long ago, not more exact than anybody asks."""
    for name, size, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < most:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds / 86_400:.0f} days"
