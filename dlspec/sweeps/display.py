"""What a person sees while a sweep goes on: on a terminal all of it at once, elsewhere a line a job."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlspec.errors import printable
from dlspec.runs.io import read_lines
from dlspec.runs.job_state import JobState
from dlspec.runs.layout import METRICS
from dlspec.runs.run_status import read_status
from dlspec.sweeps.records.planned_job import SweepEntry
from dlspec.sweeps.records.table import best_entry, differing_keys, label
from dlspec.text import clock, number

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

SECONDS_BETWEEN_DRAWINGS = 0.25
SECONDS_BETWEEN_READINGS = 1.0
MOST_SHOWN = 16
NOT_FINISHED = (JobState.FAILED, JobState.REFUSED, JobState.INTERRUPTED)
LARGEST_METRICS = 1_000_000
"""Of a longer file the loss is not read again and again."""


class SweepLines:
    """A line for each job that ends; what was done before the sweep began counts no time."""

    def __init__(self, entries: Sequence[SweepEntry]) -> None:
        self.entries = entries
        self.keys = differing_keys(entries)
        self._seconds: list[float] = []

    def began(self, entry: SweepEntry) -> None:
        """It runs now."""

    def ended(self, entry: SweepEntry) -> None:
        """Tells what came of it, of a failure all that there is to say."""
        result = entry.result
        if result.status is JobState.FINISHED:
            self._seconds.append(entry.seconds)
        what = f": {result.error}" if result.error else ""
        if result.is_measured:
            what = f"  {result.monitor} {number(result.monitored)}"
        self.say(f"{self.title(entry)}  {result.status}{what}")
        if result.status in (JobState.FAILED, JobState.REFUSED) and len(result.text.splitlines()) > 1:
            self.say(result.text)

    def title(self, entry: SweepEntry) -> str:
        """The job's number, and what differs from the others."""
        return f"[{entry.job.number}] {label(entry.job.overrides, self.keys)}"

    def tick(self) -> None:
        """Nothing happened for a moment."""

    def say(self, text: str) -> None:
        print("\n".join(printable(line) for line in text.split("\n")), flush=True)

    def close(self) -> None:
        """The sweep is over."""

    def seconds_left(self) -> float | None:
        """By what the jobs took that ended, and how many run at a time; None before the first."""
        waiting = [entry for entry in self.entries if entry.status is JobState.WAITING]
        running = [time.monotonic() - entry.began for entry in self.entries if entry.status is JobState.RUNNING]
        left = len(waiting) + len(running)
        if not self._seconds or not left:
            return None
        mean = sum(self._seconds) / len(self._seconds)
        return max(left * mean - sum(running), 0.0) / max(len(running), 1)


class SweepBoard(SweepLines):
    """The counts, the best so far and the running jobs, redrawn; failures stay above it."""

    def __init__(self, entries: Sequence[SweepEntry], console: Console) -> None:
        super().__init__(entries)
        from rich.live import Live

        self.console = console
        self._due = 0.0
        self._places: dict[int, tuple[float, str]] = {}
        self._live: Live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def began(self, entry: SweepEntry) -> None:
        self.tick()

    def ended(self, entry: SweepEntry) -> None:
        self._places.pop(entry.job.number, None)
        super().ended(entry)
        self.tick()

    def say(self, text: str) -> None:
        from rich.text import Text

        self.console.print(Text("\n".join(printable(line) for line in text.split("\n"))), soft_wrap=True)

    def tick(self) -> None:
        if time.monotonic() >= self._due:
            self._live.update(self._board(), refresh=True)
            self._due = time.monotonic() + SECONDS_BETWEEN_DRAWINGS

    def close(self) -> None:
        self._live.stop()

    def _board(self) -> Any:
        from rich.text import Text

        running = [entry for entry in self.entries if entry.status is JobState.RUNNING]
        lines = [self._head(), *self._best(), *(self._running(entry) for entry in running[:MOST_SHOWN])]
        if len(running) > MOST_SHOWN:
            lines.append(f"... and {len(running) - MOST_SHOWN} more")
        width = self.console.width - 1
        return Text("\n".join(printable(line)[:width] for line in lines), no_wrap=True)

    def _head(self) -> str:
        counts = Counter(entry.status for entry in self.entries)
        words = [f"{counts[JobState.FINISHED]} of {len(self.entries)} finished", f"{counts[JobState.RUNNING]} running"]
        words += [f"{counts[state]} {state}" for state in NOT_FINISHED if counts[state]]
        words += [f"{counts[JobState.WAITING]} left"] if counts[JobState.WAITING] else []
        left = self.seconds_left()
        return ", ".join(words) + ("" if left is None else f"  {clock(left)} left")

    def _best(self) -> list[str]:
        entry = best_entry(self.entries)
        if entry is None:
            return []
        return [f"best  {self.title(entry)}  {entry.result.monitor} {number(entry.result.monitored)}"]

    def _running(self, entry: SweepEntry) -> str:
        """Read from the job's folder, and not too often."""
        until, place = self._places.get(entry.job.number, (0.0, ""))
        if time.monotonic() >= until:
            place = describe_progress(entry.job.folder)
            self._places[entry.job.number] = time.monotonic() + SECONDS_BETWEEN_READINGS, place
        return f"  {self.title(entry)}  {place}"


def describe_progress(folder: Path) -> str:
    """`epoch 3/20  step 120/800  val/loss 0.123` of a run that goes on."""
    status, last = read_status(folder), _last_epoch(folder / METRICS)
    if status is None or status.status is not JobState.RUNNING:
        return ""
    pairs = {"epoch": (status.epoch, status.epochs), "step": (status.step, status.planned_steps)}
    done = {name: each if type(each := last.get(name)) is int else 0 for name in pairs}  # of a short job the newer
    words = [f"{name} {max(at, done[name])}/{of}" for name, (at, of) in pairs.items() if at is not None and of]
    losses = {name: last.get(name) for name in ("train/loss", "val/loss")}
    return "  ".join([*words, *(f"{name} {number(each)}" for name, each in losses.items() if isinstance(each, float))])


def _last_epoch(path: Path) -> Mapping[str, Any]:
    """The results of the last epoch that is over."""
    try:
        rows = read_lines(path) if path.stat().st_size <= LARGEST_METRICS else []
    except OSError:
        return {}
    return rows[-1] if rows and isinstance(rows[-1], dict) else {}


def display(entries: Sequence[SweepEntry], shown: Literal["all", "jobs"]) -> SweepLines:
    """A board on a terminal, lines elsewhere and where the one job that runs shows itself."""
    if shown == "jobs" or not sys.stdout.isatty():
        return SweepLines(entries)
    from rich.console import Console

    return SweepBoard(entries, Console(soft_wrap=True, highlight=False))
