"""Every format that checkpoints ever had is kept in a run of a few kB, and is resumed to the results that it had.

To add one: `PYTHONPATH=.:tests python tests/unit/training/test_checkpoint_formats.py` makes the folder of the format
that dlspec writes now.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from dlspec.runs.io import read_json_lines
from dlspec.training.checkpoint.checkpoint_files import CHECKPOINT_FORMAT, list_checkpoints, read_checkpoint
from helpers.command_line import QUIET
from helpers.paths import FIXTURES

KEPT = FIXTURES / "checkpoints"
RUN = (*QUIET, "data=breast_cancer", "model=linear", "optimizer=AdamW", "scheduler=OneCycleLR", "scheduler.max_lr=1e-2",
       "trainer.average=EMA", "trainer.epochs=3", "trainer.progress=none")  # fmt: skip


@pytest.mark.parametrize("name", sorted(each.name for each in KEPT.iterdir()))
def test_an_earlier_format_is_resumed(name: str, work: Path, dlspec) -> None:
    shutil.copytree(KEPT / name, work / "run")
    said = dlspec("resume", "run=run")
    assert said.code == 0, said.err
    rows, wanted = (read_json_lines(work / "run" / each) for each in ("metrics.jsonl", "wanted.jsonl"))
    assert len(rows) == len(wanted) == 3
    for row, other in zip(rows, wanted, strict=True):
        assert row == pytest.approx(other, rel=1e-3)  # the last digits are another machine's


def test_the_format_of_now_is_kept() -> None:
    folder = KEPT / f"format_{CHECKPOINT_FORMAT}"
    [checkpoint] = list_checkpoints(folder / "checkpoints")
    assert read_checkpoint(checkpoint).step == 20
    assert sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()) < 40_000


def make() -> None:
    """The folder of a run that was ended within its second epoch, with what it comes to."""
    from dlspec.cli.main import run_command
    from dlspec.jobs import job
    from helpers.interrupted_runs import CallAfterBatches

    folder, usual = KEPT / f"format_{CHECKPOINT_FORMAT}", job.make_default_callbacks
    os.chdir(KEPT)
    assert run_command([*RUN, "hydra.run.dir=straight"]) == 0
    end = CallAfterBatches("train", 20, lambda: os.kill(os.getpid(), signal.SIGTERM))
    job.make_default_callbacks = lambda *args: [*usual(*args), end]
    assert run_command([*RUN, "trainer.keep_checkpoints=1", f"hydra.run.dir={folder.name}"]) == 143
    (KEPT / "straight/metrics.jsonl").replace(folder / "wanted.jsonl")
    shutil.rmtree(KEPT / "straight")
    shutil.rmtree(folder / ".hydra")
    for name in ("lock", "log.txt", "result.json", "status.json", "timing.jsonl", "environment.json"):
        (folder / name).unlink()
    for name in ("best", "last"):
        (folder / f"checkpoints/{name}.safetensors").unlink()


if __name__ == "__main__":
    sys.exit(make())
