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
from dlspec.runs.layout import METRICS
from dlspec.runs.run_status import read_status
from dlspec.sweeps.records.table import Row, best, differing, label
from dlspec.text import clock, number

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

SECONDS_BETWEEN_DRAWINGS = 0.25
SECONDS_BETWEEN_READINGS = 1.0
MOST_SHOWN = 16
LARGEST_METRICS = 1_000_000
"""Of a longer file the loss is not read again and again."""


class SweepLines:
    """A line for each job that ends; what was done before the sweep began counts no time."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.keys = differing(rows)
        self._seconds: list[float] = []

    def began(self, row: Row) -> None:
        """It runs now."""

    def ended(self, row: Row, text: str) -> None:
        """Tells what came of it; `text` is all that there is to say of a failure."""
        self._seconds += [row.seconds] if row.status == "finished" else []
        what = f": {row.error}" if row.error else ""
        if row.reached is not None:
            what = f"  {row.reached.monitor} {number(row.reached.monitored)}"
        self.say(f"[{row.number}] {self.label(row)}  {row.status}{what}")
        if row.status in ("failed", "refused") and len(text.splitlines()) > 1:
            self.say(text)

    def label(self, row: Row) -> str:
        return label(row, self.keys)

    def tick(self) -> None:
        """Nothing happened for a moment."""

    def say(self, text: str) -> None:
        print("\n".join(printable(line) for line in text.split("\n")), flush=True)

    def close(self) -> None:
        """The sweep is over."""

    def seconds_left(self) -> float | None:
        """By what the jobs took that ended, and how many run at a time; None before the first."""
        left = sum(row.status in ("waiting", "running") for row in self.rows)
        running = [time.monotonic() - row.began for row in self.rows if row.status == "running"]
        if not self._seconds or not left:
            return None
        mean = sum(self._seconds) / len(self._seconds)
        return max(left * mean - sum(running), 0.0) / max(len(running), 1)


class SweepBoard(SweepLines):
    """The counts, the best so far and the running jobs, redrawn; failures stay above it."""

    def __init__(self, rows: Sequence[Row], console: Console) -> None:
        super().__init__(rows)
        from rich.live import Live

        self.console = console
        self._due = 0.0
        self._told: dict[int, tuple[float, str]] = {}
        self._live: Live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def began(self, row: Row) -> None:
        self.tick()

    def ended(self, row: Row, text: str) -> None:
        self._told.pop(row.number, None)
        super().ended(row, text)
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

        running = [row for row in self.rows if row.status == "running"]
        lines = [self._head(), *self._best(), *(self._running(row) for row in running[:MOST_SHOWN])]
        if len(running) > MOST_SHOWN:
            lines.append(f"... and {len(running) - MOST_SHOWN} more")
        width = self.console.width - 1
        return Text("\n".join(printable(line)[:width] for line in lines), no_wrap=True)

    def _head(self) -> str:
        counts = Counter(row.status for row in self.rows)
        words = [f"{counts['finished']} of {len(self.rows)} finished", f"{counts['running']} running"]
        words += [f"{counts[each]} {each}" for each in ("failed", "refused", "interrupted") if counts[each]]
        words += [f"{counts['waiting']} left"] if counts["waiting"] else []
        left = self.seconds_left()
        return ", ".join(words) + ("" if left is None else f"  {clock(left)} left")

    def _best(self) -> list[str]:
        row = best(self.rows)
        if row is None or row.reached is None:
            return []
        return [f"best  [{row.number}] {self.label(row)}  {row.reached.monitor} {number(row.reached.monitored)}"]

    def _running(self, row: Row) -> str:
        """Read from the job's folder, and not too often."""
        until, told = self._told.get(row.number, (0.0, ""))
        if time.monotonic() >= until and row.folder is not None:
            told = where_it_stands(row.folder)
            self._told[row.number] = time.monotonic() + SECONDS_BETWEEN_READINGS, told
        return f"  [{row.number}] {self.label(row)}  {told}"


def where_it_stands(folder: Path) -> str:
    """`epoch 3/20  step 120/800  val/loss 0.123` of a run that goes on."""
    status, last = read_status(folder), _last_epoch(folder / METRICS)
    if status is None or status.status != "running":
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


def display(rows: Sequence[Row], shown: Literal["all", "jobs"]) -> SweepLines:
    """A board on a terminal, lines elsewhere and where the one job that runs shows itself."""
    if shown == "jobs" or not sys.stdout.isatty():
        return SweepLines(rows)
    from rich.console import Console

    return SweepBoard(rows, Console(soft_wrap=True, highlight=False))
