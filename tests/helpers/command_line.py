"""Settings of quick runs, and dlspec as a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

from helpers.paths import ROOT

QUIET = "trainer.curves=false trainer.pictures=false trainer.tensorboard=false".split()
QUICK = ["trainer.max_steps=2", "trainer.limit_batches=2", *QUIET]

PROGRAM = [sys.executable, "-m", "dlspec"]
IN_BACKGROUND = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
"""Starts what follows with SIGINT ignored, as a shell script does what it runs in the background."""


MAX_WAIT_SECONDS = 300
"""On a busy machine a process may take a minute to import PyTorch; what takes longer than this hangs."""


class CommandResult(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


def run_in_this_process(*arguments: str) -> CommandResult:
    """`python -m dlspec WORDS` in this process."""
    from dlspec.cli.main import run_command

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run_command(arguments)
    return CommandResult(code, out.getvalue(), err.getvalue())


def wait_until(has_happened: Callable[[], object], process: subprocess.Popen[Any] | None = None) -> None:
    """Wait until something has happened, or until a process has ended without it.

    Raises:
        AssertionError: after `MAX_WAIT_SECONDS`; the process is killed then.
    """
    end = time.monotonic() + MAX_WAIT_SECONDS
    while not has_happened() and (process is None or process.poll() is None):
        if time.monotonic() > end:
            if process is not None:
                process.kill()
            raise AssertionError(f"nothing happened in {MAX_WAIT_SECONDS} s")
        time.sleep(0.01)


def make_environment() -> dict[str, str]:
    """The variables of a process that imports dlspec from this checkout, with one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
