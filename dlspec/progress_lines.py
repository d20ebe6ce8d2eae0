"""Lines on stderr that say how far a command is. On a terminal each one replaces the one before."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

SECONDS_BEFORE_FIRST = 2.0  # what is shorter shows nothing
SECONDS_BETWEEN_LINES = 0.5  # on a terminal
SECONDS_BETWEEN_LOG_LINES = 30.0  # elsewhere
_CLEAR = "\r\033[K"
T = TypeVar("T")


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def open_status_line(is_shown: bool = True) -> Iterator[Callable[[str], None]]:
    """Yield a function that prints a text over the one before, on a terminal only; clear the line at the end."""
    if not is_shown or not _is_terminal():
        yield lambda text: None
        return
    try:
        yield lambda text: print(f"{_CLEAR}{text}", end="", file=sys.stderr, flush=True)
    finally:
        print(_CLEAR, end="", file=sys.stderr, flush=True)


class ProgressLine:
    """A line that is due after two seconds, and then again and again."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._next = self.began + SECONDS_BEFORE_FIRST
        self._is_shown = False

    @property
    def is_due(self) -> bool:
        """Whether `show` should be called."""
        return time.monotonic() >= self._next

    def show(self, text: str) -> None:
        """Print a text: over the one before on a terminal, as a line of its own elsewhere."""
        is_terminal = _is_terminal()
        print(f"{_CLEAR}{text}" if is_terminal else text, end="" if is_terminal else "\n", file=sys.stderr, flush=True)
        self._is_shown = is_terminal
        self._next = time.monotonic() + (SECONDS_BETWEEN_LINES if is_terminal else SECONDS_BETWEEN_LOG_LINES)

    def close(self) -> None:
        """Remove the text from a terminal."""
        if self._is_shown:
            print(_CLEAR, end="", file=sys.stderr, flush=True)


def follow_progress(results: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield results, and show how far they are if they take longer than two seconds.

    Args:
        results: what is yielded
        total: their number
        what: what is done, such as "reading images"
    """
    line = ProgressLine()
    try:
        for count, each in enumerate(results, 1):
            yield each
            if line.is_due:
                line.show(f"{what}: {count:,} of {total:,}")
    finally:
        line.close()
