"""Sweeps whose jobs train as stacks: the same files as jobs that train alone, and jobs that leave their stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlspec.sweeps.executors.stacked_executor import describe_stacking
from helpers.command_line import QUIET, CommandResult, run_in_this_process

BASE = ("-m", "model=mlp", "model.params.width=8", "data=digits", "data.limit=150", "trainer.epochs=2",
        "trainer.progress=none", *QUIET)  # fmt: skip
STACKED = ("hydra/launcher=vectorized", "sweep.vectorize=true", "sweep.workers=1")
# Files that equal runs write equally. The others contain times.
EQUAL_FILES = ("metrics.jsonl", "spec.yaml", "prepare.json", "versions.json")


def sweep(folder: Path, *words: str) -> CommandResult:
    return run_in_this_process(*BASE, f"hydra.sweep.dir={folder}", *words)


def assert_equal_jobs(one: Path, other: Path, jobs: int) -> None:
    for number in range(jobs):
        for name in EQUAL_FILES:
            assert (one / str(number) / name).read_text() == (other / str(number) / name).read_text()
        logs = [
            [line[24:] for line in (each / str(number) / "log.txt").read_text().splitlines()] for each in (one, other)
        ]
        assert logs[0] == logs[1]
    assert (one / "leaderboard.csv").read_text() == (other / "leaderboard.csv").read_text()


@pytest.mark.soak
def test_stacked_jobs_equal_single_ones(tmp_path: Path) -> None:
    grid = ("optimizer.lr=0.01,0.001", "model.params.dropout=0.0,0.3")
    said = sweep(tmp_path / "stacked", *grid, *STACKED)
    assert said.code == 0, said.err
    assert "4 of 4 jobs train stacked" in said.out + said.err
    assert sweep(tmp_path / "single", *grid, "hydra/launcher=dlspec").code == 0
    assert_equal_jobs(tmp_path / "stacked", tmp_path / "single", 4)


def test_what_is_not_stacked_is_said(tmp_path: Path) -> None:
    said = sweep(tmp_path / "sweep", "model.params.width=8,9", "trainer.accumulate=2", *STACKED)
    text = said.out + said.err
    assert said.code == 0 and "0 of 2 jobs train stacked; 2 do not: no other job differs from them only in" in text
    said = sweep(tmp_path / "other", "seed=1,2", "trainer.accumulate=2", *STACKED)
    text = said.out + said.err
    assert said.code == 0 and "0 of 2 jobs train stacked; 2 do not: trainer.accumulate is 2" in text


def test_convolutions_are_not_tried(tmp_path: Path) -> None:
    words = [each for each in BASE if not each.startswith("model")]
    stacked = ("hydra/launcher=vectorized", "sweep.workers=1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    said = run_in_this_process(*words, "model=cnn", "seed=1,2", *stacked)
    text = said.out + said.err
    assert said.code == 0
    assert "0 of 2 jobs train stacked; 2 do not: Conv2d is not faster for several jobs at once" in text


def test_a_job_that_fails_leaves_its_stack(tmp_path: Path) -> None:
    said = sweep(tmp_path / "sweep", "optimizer.lr=0.01,1e38,0.001", *STACKED)
    text = said.out + said.err
    assert said.code == 1 and "3 jobs: 2 finished, 1 failed" in text and "loss became" in text
    again = sweep(tmp_path / "sweep", "optimizer.lr=0.01,1e38,0.001", *STACKED)
    assert "2 of 3 jobs are done already" in again.out + again.err


def test_each_job_can_be_resumed_alone(tmp_path: Path) -> None:
    grid = ("optimizer.lr=0.01,0.001",)
    assert sweep(tmp_path / "sweep", *grid, *STACKED).code == 0
    folder = tmp_path / "sweep/1"
    said = run_in_this_process("resume", f"run={folder}", "trainer.epochs=3")
    assert said.code == 0, said.err
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.soak
def test_jobs_draw_no_pictures_unless_asked(tmp_path: Path) -> None:
    words = ("hydra/launcher=dlspec", "optimizer.lr=0.01", "trainer.epochs=2")
    words_of_all = [each for each in BASE if not each.startswith(("trainer.pictures", "trainer.curves"))]
    for name, more in (("auto", ()), ("drawn", ("trainer.pictures=true", "trainer.curves=true"))):
        assert run_in_this_process(*words_of_all, *words, f"hydra.sweep.dir={tmp_path / name}", *more).code == 0
    pictures = {name: {each.name for each in (tmp_path / name / "0").glob("*.png")} for name in ("auto", "drawn")}
    assert pictures == {"auto": set(), "drawn": {"curves.png", "predictions.png", "predictions_images.png"}}


@pytest.mark.parametrize(
    ("stacked", "total", "refusals", "text"),
    [
        (4, 4, {}, "4 of 4 jobs train stacked"),
        (12, 16, {"LSTM": 4, "none": 0}, "12 of 16 jobs train stacked; 4 do not: LSTM"),
    ],
)
def test_descriptions(stacked: int, total: int, refusals: dict[str, int], text: str) -> None:
    assert describe_stacking(stacked, total, refusals) == text
