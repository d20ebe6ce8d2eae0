"""Settings of quick runs, and dlspec as a process of its own."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

from helpers.paths import ROOT

QUIET = "trainer.curves=false trainer.pictures=false trainer.tensorboard=false".split()
QUICK = ["trainer.max_steps=2", "trainer.limit_batches=2", *QUIET]

PROGRAM = [sys.executable, "-m", "dlspec"]
IN_BACKGROUND = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
"""Starts what follows with SIGINT ignored, as a shell script does what it runs in the background."""


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


def make_environment() -> dict[str, str]:
    """The variables of a process that imports dlspec from this checkout, with one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
