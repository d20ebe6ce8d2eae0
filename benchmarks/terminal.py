"""A terminal to draw progress bars on."""

from __future__ import annotations

import os
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def terminal() -> Iterator[None]:
    """Make standard output a terminal with 100 columns. A process reads its other end and discards it."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    reader = subprocess.Popen(["cat"], stdin=ours, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _free(reader.pid)
    before, sys.stdout = sys.stdout, os.fdopen(theirs, "w", encoding="utf-8")
    os.environ["TERM"] = "xterm-256color"
    try:
        yield
    finally:
        sys.stdout.close()
        sys.stdout = before
        os.close(ours)
        reader.terminate()
        reader.wait()


def _free(process: int) -> None:
    """Let the terminal's process run on any core, as a real terminal does."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process, range(os.cpu_count() or 1))
