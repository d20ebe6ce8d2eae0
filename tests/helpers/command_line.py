"""Settings of quick runs, and dlspec as a process of its own."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from helpers.paths import ROOT

QUIET = "trainer.curves=false trainer.pictures=false trainer.tensorboard=false".split()
QUICK = ["trainer.max_steps=2", "trainer.limit_batches=2", *QUIET]

PROGRAM = [sys.executable, "-m", "dlspec"]
IN_BACKGROUND = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
"""Starts what follows with SIGINT ignored, as a shell script does what it runs in the background."""


class Said(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    """The variables of a process that imports dlspec from this checkout, with one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
