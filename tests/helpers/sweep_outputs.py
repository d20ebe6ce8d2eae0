"""What tests of sweeps share: reading what a sweep wrote, and waiting for it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dlspec.config.launchers import EXTRAS_BY_CHOICE
from helpers.command_line import wait_until


def read_sweep_json(work: Path, name: str = "sweep") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work / name / "sweep.json").read_text())
    return found


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a process has written a file."""
    wait_until(path.exists, process)
    assert path.exists(), process.communicate()


def parse_table_rows(out: str) -> list[list[str]]:
    """The table's rows, split at spaces."""
    lines = out.rstrip().split("\n\n")[-1].splitlines()
    counts = next(at for at, line in enumerate(lines) if " job" in line and ": " in line)
    return [line.split() for line in lines[1:counts]]


def choose_launcher(launcher: str) -> list[str]:
    """The words for it; the test is left out where it isn't installed."""
    extra = EXTRAS_BY_CHOICE["hydra/launcher"][launcher]
    pytest.importorskip(f"hydra_plugins.hydra_{extra}_launcher", reason=f"needs dlspec[{extra}]")
    return [f"hydra/launcher={launcher}", *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else [])]
