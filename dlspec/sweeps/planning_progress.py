"""Show on stderr how far the specs of a sweep's jobs are checked, if that takes long."""

from __future__ import annotations

import time

from dlspec.formatting import format_duration
from dlspec.progress_lines import ProgressLine


class PlanningProgress:
    """Prints how many jobs are checked and how long the rest takes.

    Args:
        total: The number of jobs.
        max_seconds: The time after which jobs train although the rest is not checked; None for no limit.
    """

    def __init__(self, total: int, max_seconds: float | None = None) -> None:
        self.total, self._max_seconds, self._line = total, max_seconds, ProgressLine()

    def update(self, done: int) -> None:
        """Print a line after `done` jobs, if one is due."""
        if done < self.total and self._line.is_due:
            left = format_duration(self._estimate_seconds(done, time.monotonic() - self._line.began))
            self._line.show(f"checked the specs of {done:,} of {self.total:,} jobs, {left} left")

    def _estimate_seconds(self, done: int, seconds: float) -> float:
        left = seconds / done * (self.total - done)
        return left if self._max_seconds is None else max(min(left, self._max_seconds - seconds), 0.0)

    def close(self) -> None:
        """Remove the line from a terminal."""
        self._line.close()
