"""Show on stderr how far the specs of a sweep's jobs are checked, if that takes long."""

from __future__ import annotations

import sys
import time

from dlspec.formatting import format_duration

SECONDS_BEFORE_FIRST = 2.0  # short checks show nothing
SECONDS_BETWEEN_LINES = 0.5  # on a terminal, where a line replaces the one before
SECONDS_BETWEEN_LOG_LINES = 30.0  # elsewhere


class PlanningProgress:
    """Prints how many jobs are checked and how long the rest takes.

    Args:
        total: The number of jobs.
        max_seconds: The time after which jobs train although the rest is not checked; None for no limit.
    """

    def __init__(self, total: int, max_seconds: float | None = None) -> None:
        self.total, self._max_seconds, self._began = total, max_seconds, time.monotonic()
        self._next = self._began + SECONDS_BEFORE_FIRST
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._has_printed = False

    def update(self, done: int) -> None:
        """Print a line after `done` jobs, if one is due."""
        now = time.monotonic()
        if now < self._next or done >= self.total:
            return
        left = format_duration(self._estimate_seconds(done, now - self._began))
        text = f"checked the specs of {done:,} of {self.total:,} jobs, {left} left"
        print(f"\r\033[K{text}" if self._is_terminal else text, end="" if self._is_terminal else "\n",
              file=sys.stderr, flush=True)  # fmt: skip
        self._has_printed = True
        self._next = now + (SECONDS_BETWEEN_LINES if self._is_terminal else SECONDS_BETWEEN_LOG_LINES)

    def _estimate_seconds(self, done: int, seconds: float) -> float:
        left = seconds / done * (self.total - done)
        return left if self._max_seconds is None else max(min(left, self._max_seconds - seconds), 0.0)

    def close(self) -> None:
        """Remove the line from a terminal."""
        if self._has_printed and self._is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
