"""Twenty sweeps killed at random moments: they are resumed to equal results, and replaced data are noticed."""

from __future__ import annotations

import gc
import json
import random
import shutil
from functools import partial
from pathlib import Path

import pytest

from dlspec.sweeps.records.sweep_record import is_run_complete
from helpers.command_line import QUIET, run_in_this_process
from helpers.sweep_crashes import kill_after, run_until

MODEL = "layers: [{Embedding: 8}, {GRU: 16}, {Linear: '${data.vocab_size}'}]"
LINES = "to be or not to be, that is the question\n" * 300
OTHER_LINES = LINES.replace("question", "qusetion")  # as many characters of the same alphabet
SWEEP = ("-m", "model=tiny", "data=text", "data.path=lines.txt", "trainer.batch_size=8", "trainer.epochs=2",
         "trainer.limit_batches=6", "trainer.progress=none", "trainer.checkpoint_steps=2", "optimizer.lr=0.1,0.01",
         "seed=1,2", *QUIET)  # fmt: skip
KILLS = 20


def train_straight(work: Path, lines: str) -> str:
    (work / "lines.txt").write_text(lines)
    assert run_in_this_process(*SWEEP, "hydra/launcher=dlspec", "hydra.sweep.dir=straight").code == 0
    leaderboard = (work / "straight/leaderboard.csv").read_text()
    shutil.rmtree(work / "straight")
    return leaderboard


def restore(work: Path) -> None:
    shutil.rmtree(work / "sweep")
    shutil.copytree(work / "killed", work / "sweep")


def read_versions(work: Path) -> list[dict[str, str]]:
    return [json.loads((work / f"sweep/{job}/versions.json").read_text()) for job in range(4)]


def has_checkpoints(work: Path, jobs: int) -> bool:
    """Whether this number of jobs have trained so far that they have a checkpoint."""
    return len({each.parent for each in work.glob("sweep/*/checkpoints/step-*")}) >= jobs


def check_resumed(work: Path, leaderboard: str) -> bool:
    said = run_until(work / "sweep", None, "resume", "sweep=sweep")
    versions = read_versions(work)
    is_known = all(each == versions[0] and each["code"] and each["data"] for each in versions)
    return said.code == 0 and is_known and (work / "sweep/leaderboard.csv").read_text() == leaderboard


def check_replaced(work: Path, leaderboard: str) -> bool:
    """Whether `resume` reports every job that other data trained, and `rerun=changed` trains them again."""
    folders = [work / f"sweep/{job}" for job in range(4)]
    done = sum(is_run_complete(each) for each in folders)
    started = sum(not is_run_complete(each) and any(each.glob("checkpoints/step-*")) for each in folders)
    said = run_until(work / "sweep", None, "resume", "sweep=sweep").out
    is_reported = (f"{done} of them were trained with other data" in said) == (done > 0)
    is_reported &= (f"jobs that are not finished and were trained with other data: {started};" in said) == (started > 0)
    kept = [each["data"] for each in read_versions(work)]
    said = run_until(work / "sweep", None, "resume", "sweep=sweep", "rerun=changed").out
    is_equal = (work / "sweep/leaderboard.csv").read_text() == leaderboard
    return is_reported and is_equal and len(set(kept)) == 1 + (0 < done < 4) and done + started > 0


@pytest.mark.soak
@pytest.mark.parametrize("launcher", ["hydra/launcher=dlspec", "sweep.workers=2", "sweep.vectorize=true"])
def test_twenty_random_kills(launcher: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "conf/model").mkdir(parents=True)
    (work / "conf/model/tiny.yaml").write_text(MODEL)
    other = train_straight(work, OTHER_LINES)
    gc.freeze()  # what is imported now is copied to no child
    straight, chance = train_straight(work, LINES), random.Random(launcher)
    kills, equal, noticed = 0, 0, 0
    for number in range(KILLS):
        for each in ("sweep", "killed"):
            shutil.rmtree(work / each, ignore_errors=True)
        (work / "lines.txt").write_text(LINES)
        jobs, seconds = chance.randint(1, 4), chance.uniform(0, 0.2)
        kills += kill_after(seconds, partial(has_checkpoints, work, jobs), *SWEEP, launcher, "hydra.sweep.dir=sweep")
        shutil.copytree(work / "sweep", work / "killed")
        equal += check_resumed(work, straight)
        restore(work)
        (work / "lines.txt").write_text(OTHER_LINES)
        noticed += check_replaced(work, other)
        with capsys.disabled():
            counts = f"{kills} killed, {equal} equal, {noticed} noticed"
            print(f"{launcher} {number + 1}: killed {seconds:.2f} s after job {jobs} began; {counts}")
    assert (equal, noticed) == (KILLS, KILLS)
    assert kills > KILLS // 2
