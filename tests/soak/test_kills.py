"""Fifty kills at chosen moments: every run that was killed and resumed ends as the one that was left alone."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dlspec.training.checkpoint.checkpoint_files import read_newest_checkpoint
from helpers.command_line import QUIET
from helpers.interrupted_runs import MODELS, read_run_files, start_dlspec

SHORT = ("trainer.batch_size=16", "trainer.progress=none", *QUIET)
RUNS: dict[str, tuple[str, ...]] = {
    "cnn": ("model=cnn", "trainer.epochs=60", "trainer.checkpoint_steps=2"),
    "text_lstm": ("model=text_lstm", "data=python_lines", "data.limit=1200", "data.max_length=30", "trainer.epochs=12",
                  "trainer.checkpoint_steps=1"),
    "EMA": ("model=norm", "trainer.average=EMA", "optimizer=AdamW", "trainer.epochs=60", "trainer.checkpoint_steps=3"),
    "accumulation": ("model=dropout", "trainer.accumulate=3", "trainer.epochs=200", "trainer.checkpoint_steps=1"),
    "step schedule": ("model=cnn", "scheduler=OneCycleLR", "scheduler.max_lr=1e-2", "trainer.epochs=60",
                      "trainer.checkpoint_steps=1", "trainer.keep_checkpoints=1"),
}  # fmt: skip
KILLS = 10
MOMENTS = ("some time after it began", "when the logs are cut", "when a checkpoint is written")


def half_written(work: Path) -> list[str]:
    """The temporary files that the writing of a checkpoint leaves when it is killed."""
    return [each.name for each in (work / "killed/checkpoints").glob(".step-*")]


def await_moment(work: Path, process: subprocess.Popen[str], moment: str, seconds: float) -> None:
    """Waits for the moment, or until the process has ended."""
    folder, left = work / "killed", set(half_written(work))

    def inode(name: str) -> int:
        return (folder / name).stat().st_ino if (folder / name).exists() else 0

    status, metrics = inode("status.json"), inode("metrics.jsonl")
    happened: dict[str, Callable[[], bool]] = {
        MOMENTS[0]: lambda: inode("status.json") != status,
        MOMENTS[1]: lambda: inode("metrics.jsonl") != metrics,
        MOMENTS[2]: lambda: bool(set(half_written(work)) - left),
    }
    while process.poll() is None and not happened[moment]():
        time.sleep(0.0005)
    time.sleep(seconds if moment == MOMENTS[0] else seconds / 100)


@pytest.mark.soak
@pytest.mark.parametrize("name", RUNS)
def test_ten_kills(name: str, work: Path, write: Callable[[str, str], Path], dlspec) -> None:
    for model, text in MODELS.items():
        write(f"conf/model/{model}.yaml", text)
    words: tuple[str, ...] = (*SHORT, *RUNS[name])
    assert dlspec(*words, "hydra.run.dir=straight").code == 0
    chance, kills, hits = random.Random(name), 0, 0
    command: tuple[str, ...] = (*words, "hydra.run.dir=killed")
    while kills < KILLS:
        moment, seconds = chance.choice(MOMENTS), chance.uniform(0, 1)
        process = start_dlspec(work, *command)
        await_moment(work, process, moment, seconds)
        assert process.poll() is None, process.communicate()  # or the run is too short
        process.kill()
        process.communicate()
        kills += 1
        hits += bool(half_written(work))
        newest = read_newest_checkpoint(work / "killed/checkpoints")
        at = f"checkpoint of step {newest.step}" if newest else "no checkpoint"
        print(f"{name}: kill {kills}, {moment} ({seconds:.3f}): {at}, {half_written(work) or 'no file'} half written")
        command = ("resume", "run=killed")
    process = start_dlspec(work, *command)
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert read_run_files(work, "killed") == read_run_files(work, "straight")
    assert not half_written(work)
    print(f"{name}: equal after {kills} kills, {hits} of them while a checkpoint was written")
