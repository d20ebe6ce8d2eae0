"""Processes that divide the parameters and are killed: all end, one line says why, and resuming gives the same bits."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dlspec.runs.io import read_json_lines
from helpers.command_line import QUIET
from helpers.rank_runs import kill_when_saved, list_rank_lines, mount_small_disk, run_ranks

pytestmark = pytest.mark.soak
RUN = (*QUIET, "model=vit", "data=digits", "model.params.patch=2", "model.params.width=16", "model.params.depth=2",
       "model.params.heads=2", "trainer.parallel=fsdp", "trainer.progress=none", "trainer.batch_size=64",
       "trainer.average=EMA", "trainer.checkpoint_steps=3", "trainer.keep_checkpoints=9", "trainer.test=best",
       "trainer.epochs=8")  # fmt: skip
DROPOUT = "model.params.dropout=0.1"
FULL_DISK = """
import io, os

open_file, shards = io.open, []

def open_or_fill(file, mode="r", *others, **settings):
    if "w" in mode and "/shard-" in str(file):
        shards.append(file)
        file = "/dev/full" if len(shards) == 3 else file
    return open_file(file, mode, *others, **settings)

if os.environ["RANK"] == os.environ.get("FULL"):
    io.open = open_or_fill  # as Path.open calls it
"""


def finish(work: Path, world_size: int, *words: str) -> None:
    done = run_ranks(work, world_size, *words)
    assert done.returncode == 0, done.stderr


def load_last(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints/last.safetensors")


def check_equal(one: Path, other: Path) -> None:
    weights, expected = load_last(one), load_last(other)
    assert [name for name, each in weights.items() if not each.equal(expected[name])] == []
    assert (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()


def check_checkpoints(folder: Path) -> None:
    """Check that each checkpoint has its file and its parts, and that nothing else was left."""
    names = {each.name for each in (folder / "checkpoints").iterdir() if "step-" in each.name}
    steps = {each.partition(".")[0] for each in names}
    assert steps and names == {f"{step}.{ending}" for step in steps for ending in ("safetensors", "shards")}


def test_ten_kills(tmp_path: Path) -> None:
    chance, words = random.Random(5), [*RUN, DROPOUT, "hydra.run.dir=killed"]
    finish(tmp_path, 2, *RUN, DROPOUT, "hydra.run.dir=straight")
    for _ in range(10):
        text = kill_when_saved(tmp_path, "killed", words, chance, 1).stderr
        assert text.count("was killed; the other processes stop") <= 1, text
        words = ["resume", "run=killed"]
    finish(tmp_path, 2, *words)
    check_equal(tmp_path / "killed", tmp_path / "straight")
    check_checkpoints(tmp_path / "killed")


def test_resuming_with_another_number_of_processes(tmp_path: Path) -> None:
    # Adam would divide the rounding errors of gradients that are 0, as of the biases of keys, by their own size.
    run = [*RUN, "optimizer=SGD", "optimizer.lr=0.05", "trainer.epochs=4"]
    finish(tmp_path, 2, *run, "hydra.run.dir=straight")
    kill_when_saved(tmp_path, "killed", [*run, "hydra.run.dir=killed"], random.Random(1), 1)
    for world_size in (1, 3):
        subprocess.run(["cp", "-r", "killed", f"by_{world_size}"], cwd=tmp_path, check=True)
        finish(tmp_path, world_size, "resume", f"run=by_{world_size}")
        straight = load_last(tmp_path / "straight")
        for name, each in load_last(tmp_path / f"by_{world_size}").items():
            torch.testing.assert_close(each, straight[name], rtol=1e-5, atol=1e-5)
        rows, others = (read_json_lines(tmp_path / each / "metrics.jsonl") for each in (f"by_{world_size}", "straight"))
        for row, other in zip(rows, others, strict=True):
            assert row == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_of_one_process(rank: int, tmp_path: Path) -> None:
    """The third file of a process can't be written."""
    (tmp_path / "full_disk.py").write_text(FULL_DISK)
    words = [*RUN, "imports=[full_disk]", "hydra.run.dir=full"]
    done = run_ranks(tmp_path, 2, *words, FULL=str(rank))
    assert done.returncode
    [line] = list_rank_lines(done.stderr)
    assert line.startswith(f"rank {rank}: can't write the checkpoint: "), done.stderr
    assert "No space left on device" in line and line.endswith("earlier checkpoints are complete")
    check_checkpoints(tmp_path / "full")
    finish(tmp_path, 2, "resume", "run=full", "imports=[full_disk]")
    finish(tmp_path, 2, *words, "hydra.run.dir=straight")
    check_equal(tmp_path / "full", tmp_path / "straight")


def test_a_full_disk_of_all(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mount_small_disk(disk, "400k") as enlarge:
        done = run_ranks(tmp_path, 2, *RUN, f"hydra.run.dir={disk / 'run'}")
        assert done.returncode
        [line] = list_rank_lines(done.stderr)
        assert "No space left on device" in line or "not enough disk space" in line, done.stderr
        check_checkpoints(disk / "run")
        enlarge("16m")
        finish(tmp_path, 2, "resume", f"run={disk / 'run'}")
        finish(tmp_path, 2, *RUN, "hydra.run.dir=straight")
        check_equal(disk / "run", tmp_path / "straight")
