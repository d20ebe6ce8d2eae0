"""The progress of a sweep: a live view on a terminal, elsewhere one line for each job that ends."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlspec.errors import replace_control_characters
from dlspec.formatting import format_duration, format_number
from dlspec.runs.file_names import METRICS_FILE
from dlspec.runs.io import read_json_lines
from dlspec.runs.job_state import JobState
from dlspec.runs.run_status import read_status
from dlspec.sweeps.records.planned_job import SweepEntry
from dlspec.sweeps.records.sweep_table import find_best_entry, find_differing_keys, format_label

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

SECONDS_BETWEEN_REDRAWS = 0.25
SECONDS_BETWEEN_READINGS = 1.0
MAX_JOBS_SHOWN = 16
UNSUCCESSFUL_STATES = (JobState.FAILED, JobState.REFUSED, JobState.INTERRUPTED)
MAX_METRICS_BYTES = 1_000_000  # reading a larger file every second to show the loss would cost too much


class SweepDisplay:
    """Prints a line for each job that ends.

    Args:
        entries: All jobs of the sweep, also those that were finished before.
    """

    def __init__(self, entries: Sequence[SweepEntry]) -> None:
        self.entries = entries
        self.keys = find_differing_keys(entries)
        self._seconds: list[float] = []

    def on_job_start(self, entry: SweepEntry) -> None:
        """Do nothing: only the end of a job is printed."""

    def on_job_end(self, entry: SweepEntry) -> None:
        """Print the job's state with its result or error; the whole error text if it failed or was refused."""
        result = entry.result
        if result.status is JobState.FINISHED:
            self._seconds.append(entry.seconds)
        details = f": {result.error}" if result.error else ""
        if result.has_monitored_result:
            details = f"  {result.monitor} {format_number(result.monitored)}"
        self.print_message(f"{self.format_title(entry)}  {result.status}{details}")
        if result.status in (JobState.FAILED, JobState.REFUSED) and len(result.text.splitlines()) > 1:
            self.print_message(result.text)

    def format_title(self, entry: SweepEntry) -> str:
        """Format the job's number and the settings in which it differs from the others."""
        return f"[{entry.job.number}] {format_label(entry.job.overrides, self.keys)}"

    def refresh(self) -> None:
        """Do nothing: printed lines are not redrawn."""

    def print_message(self, text: str) -> None:
        """Print `text` as one or more lines, without control characters."""
        print("\n".join(replace_control_characters(line) for line in text.split("\n")), flush=True)

    def close(self) -> None:
        """Do nothing: there is nothing to clean up."""

    def seconds_left(self) -> float | None:
        """Estimate the seconds until the last job ends from the mean time of a job; None before a job has ended."""
        waiting = [entry for entry in self.entries if entry.status is JobState.WAITING]
        running = [time.monotonic() - entry.started_at for entry in self.entries if entry.status is JobState.RUNNING]
        job_count = len(waiting) + len(running)
        if not self._seconds or not job_count:
            return None
        mean = sum(self._seconds) / len(self._seconds)
        return max(job_count * mean - sum(running), 0.0) / max(len(running), 1)


class LiveSweepDisplay(SweepDisplay):
    """Shows the counts, the best job so far and the running jobs, redrawn in place below the lines of ended jobs.

    Args:
        entries: All jobs of the sweep, also those that were finished before.
        console: The terminal.
    """

    def __init__(self, entries: Sequence[SweepEntry], console: Console) -> None:
        super().__init__(entries)
        from rich.live import Live

        self.console = console
        self._next_redraw = 0.0
        self._progress_texts: dict[int, tuple[float, str]] = {}
        self._live: Live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def on_job_start(self, entry: SweepEntry) -> None:
        """Redraw the view."""
        self.refresh()

    def on_job_end(self, entry: SweepEntry) -> None:
        """Print the job's line above the view, and redraw it."""
        self._progress_texts.pop(entry.job.number, None)
        super().on_job_end(entry)
        self.refresh()

    def print_message(self, text: str) -> None:
        """Print `text` above the view, without control characters."""
        from rich.text import Text

        self.console.print(
            Text("\n".join(replace_control_characters(line) for line in text.split("\n"))), soft_wrap=True
        )

    def refresh(self) -> None:
        """Redraw the view, at most every `SECONDS_BETWEEN_REDRAWS`."""
        if time.monotonic() >= self._next_redraw:
            self._live.update(self._format_live_view(), refresh=True)
            self._next_redraw = time.monotonic() + SECONDS_BETWEEN_REDRAWS

    def close(self) -> None:
        """Remove the view from the terminal."""
        self._live.stop()

    def _format_live_view(self) -> Any:
        from rich.text import Text

        running = [entry for entry in self.entries if entry.status is JobState.RUNNING]
        lines = [
            self._format_counts(),
            *self._format_best(),
            *(self._format_running(entry) for entry in running[:MAX_JOBS_SHOWN]),
        ]
        if len(running) > MAX_JOBS_SHOWN:
            lines.append(f"... and {len(running) - MAX_JOBS_SHOWN} more")
        width = self.console.width - 1
        return Text("\n".join(replace_control_characters(line)[:width] for line in lines), no_wrap=True)

    def _format_counts(self) -> str:
        counts = Counter(entry.status for entry in self.entries)
        parts = [f"{counts[JobState.FINISHED]} of {len(self.entries)} finished", f"{counts[JobState.RUNNING]} running"]
        parts += [f"{counts[state]} {state}" for state in UNSUCCESSFUL_STATES if counts[state]]
        parts += [f"{counts[JobState.WAITING]} left"] if counts[JobState.WAITING] else []
        seconds_left = self.seconds_left()
        return ", ".join(parts) + ("" if seconds_left is None else f"  {format_duration(seconds_left)} left")

    def _format_best(self) -> list[str]:
        entry = find_best_entry(self.entries)
        if entry is None:
            return []
        return [f"best  {self.format_title(entry)}  {entry.result.monitor} {format_number(entry.result.monitored)}"]

    def _format_running(self, entry: SweepEntry) -> str:
        """Format a running job with its progress, which is read from its folder at most once a second."""
        next_reading, progress = self._progress_texts.get(entry.job.number, (0.0, ""))
        if time.monotonic() >= next_reading:
            progress = describe_progress(entry.job.folder)
            self._progress_texts[entry.job.number] = time.monotonic() + SECONDS_BETWEEN_READINGS, progress
        return f"  {self.format_title(entry)}  {progress}"


def describe_progress(folder: Path) -> str:
    """Describe a running run: `epoch 3/20  step 120/800  val/loss 0.123`; return '' if it is not running."""
    status, last = read_status(folder), _read_last_epoch(folder / METRICS_FILE)
    if status is None or status.status is not JobState.RUNNING:
        return ""
    pairs = {"epoch": (status.epoch, status.epochs), "step": (status.step, status.planned_steps)}
    # The logged epoch and step of a short job can be newer than those of its status.
    logged = {name: each if type(each := last.get(name)) is int else 0 for name in pairs}
    parts = [f"{name} {max(at, logged[name])}/{of}" for name, (at, of) in pairs.items() if at is not None and of]
    losses = {name: last.get(name) for name in ("train/loss", "val/loss")}
    return "  ".join(
        [*parts, *(f"{name} {format_number(each)}" for name, each in losses.items() if isinstance(each, float))]
    )


def _read_last_epoch(path: Path) -> Mapping[str, Any]:
    """Read the results of the last finished epoch."""
    rows = read_json_lines(path, MAX_METRICS_BYTES)
    return rows[-1] if rows and isinstance(rows[-1], dict) else {}


def make_display(entries: Sequence[SweepEntry], scope: Literal["all", "jobs"]) -> SweepDisplay:
    """Make a live view on a terminal; lines elsewhere, or if each job prints its own progress (scope "jobs")."""
    if scope == "jobs" or not sys.stdout.isatty():
        return SweepDisplay(entries)
    from rich.console import Console

    return LiveSweepDisplay(entries, Console(soft_wrap=True, highlight=False))
