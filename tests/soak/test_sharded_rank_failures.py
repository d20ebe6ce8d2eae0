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
from helpers.rank_runs import kill_when_saved, run_ranks

pytestmark = pytest.mark.soak
RUN = (*QUIET, "model=vit", "data=digits", "model.params.patch=2", "model.params.width=16", "model.params.depth=2",
       "model.params.heads=2", "trainer.parallel=fsdp", "trainer.progress=none", "trainer.batch_size=64",
       "trainer.average=EMA", "trainer.checkpoint_steps=3", "trainer.keep_checkpoints=9", "trainer.test=best",
       "trainer.epochs=8")  # fmt: skip
DROPOUT = "model.params.dropout=0.1"


def finish(work: Path, world_size: int, *words: str) -> None:
    done = run_ranks(work, world_size, *words)
    assert done.returncode == 0, done.stderr


def load_last(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints/last.safetensors")


def test_ten_kills(tmp_path: Path) -> None:
    chance, words = random.Random(5), [*RUN, DROPOUT, "hydra.run.dir=killed"]
    finish(tmp_path, 2, *RUN, DROPOUT, "hydra.run.dir=straight")
    for _ in range(10):
        text = kill_when_saved(tmp_path, "killed", words, chance, 1).stderr
        assert text.count("was killed; the other processes stop") <= 1, text
        words = ["resume", "run=killed"]
    finish(tmp_path, 2, *words)
    killed, straight = (load_last(tmp_path / each) for each in ("killed", "straight"))
    assert [name for name, each in killed.items() if not each.equal(straight[name])] == []
    metrics = [(tmp_path / each / "metrics.jsonl").read_text() for each in ("killed", "straight")]
    assert metrics[0] == metrics[1]
    checkpoints = tmp_path / "killed/checkpoints"
    left = {each.name.partition(".")[0] for each in checkpoints.glob("step-*.safetensors")}
    assert {each.name for each in checkpoints.iterdir() if "shards" in each.name} == {f"{each}.shards" for each in left}


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
