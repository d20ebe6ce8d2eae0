"""A sweep that is started again does what is left of it, and comes to the same results."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dlspec.jobs.composed_spec import compose_or_raise, make_preparation
from dlspec.jobs.job_hash import compute_data_checksum, compute_job_hash
from dlspec.sweeps.records.sweep_record import read_sweep_record
from helpers.command_line import (
    QUICK,
    QUIET,
    CommandResult,
    make_environment,
    run_in_this_process,
    wait_until,
)
from helpers.sweep_outputs import read_sweep_json

HERE = ["-m", "hydra/launcher=dlspec", "hydra.sweep.dir=sweep", "model=mlp", "trainer.progress=none", *QUICK]


def change(work: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    tree = read_sweep_json(work)
    edit(tree)
    (work / "sweep/sweep.json").write_text(json.dumps(tree))


def results(work: Path, name: str = "sweep") -> dict[int, bytes]:
    jobs = read_sweep_json(work, name)["jobs"]
    return {job["number"]: (work / name / job["folder"] / "metrics.jsonl").read_bytes() for job in jobs}


def times(work: Path) -> dict[str, int]:
    return {str(each): each.stat().st_mtime_ns for each in work.glob("sweep/*/metrics.jsonl")}


@pytest.fixture(scope="module")
def _done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    with contextlib.chdir(folder):
        assert run_in_this_process(*HERE, "seed=1,2").code == 0
    return folder / "sweep"


@pytest.fixture
def done(_done: Path, work: Path) -> None:
    """The sweep of two seeds has been made in `sweep`."""
    shutil.copytree(_done, work / "sweep")


def test_what_is_done_is_not_done_again(work: Path, dlspec) -> None:
    said = dlspec(*HERE, "seed=1,2")
    before = times(work)
    again = dlspec(*HERE, "seed=1,2")
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith("2 of 2 jobs are done already\n\njob ")
    assert again.out.split("\n\n")[1] == said.out.split("\n\n")[1]
    assert times(work) == before
    resumed = dlspec("resume", "sweep=sweep")
    assert (resumed.code, resumed.out) == (0, again.out)


def test_of_added_values_only_the_new_ones_run(work: Path, done: None, dlspec) -> None:
    before = times(work)
    said = dlspec(*HERE, "seed=0,1,2,3")
    assert said.code == 0
    assert "\n".join(said.out.splitlines()[:3]).count("finished  val/loss") == 2
    assert [(job["number"], job["overrides"][-1]) for job in read_sweep_json(work)["jobs"]] == [
        (0, "seed=1"), (1, "seed=2"), (2, "seed=0"), (3, "seed=3"),
    ]  # fmt: skip
    assert times(work).items() > before.items()
    assert dlspec("resume", "sweep=sweep", "seed=0,1,2,3,4").out.startswith(
        "4 of 5 jobs are done already\n[4] seed=4  "
    )


BREAKS = """
from pathlib import Path
import dlspec
from torch import nn, Tensor

@dlspec.layer
class Breaks(nn.Module):
    def __init__(self, at: int = 0) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if self.training and Path("broken").exists():
            raise ValueError("it broke")
        return x * 1.0
"""


def test_what_failed_is_tried_again(work: Path, dlspec, write: Callable[[str, str], Path], monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(write("parts_that_break.py", BREAKS).parent))
    write("conf/model/breaks.yaml", "layers:\n  - Flatten\n  - Breaks\n  - Linear: 10\n")
    words = [*HERE, "model=breaks", "imports=[parts_that_break]", "seed=1,2"]
    broken = write("broken", "")
    said = dlspec(*words)
    assert said.code == 1
    assert "[0] seed=1  failed: the training failed: ValueError: it broke (see sweep/0/log.txt)\n" in said.out
    assert "it broke" in (work / "sweep/0/log.txt").read_text()
    broken.unlink()
    asked = dlspec("resume", "sweep=sweep")
    assert asked.err == "the sweep in 'sweep' may run code; if you trust it, repeat: 'imports=[parts_that_break]'\n"
    again = dlspec("resume", "sweep=sweep", "imports=[parts_that_break]")
    assert (again.code, again.out.splitlines()[-1]) == (0, "2 jobs: 2 finished")
    assert dlspec(*words, "hydra.sweep.dir=straight").code == 0
    assert results(work) == results(work, "straight")
    monkeypatch.delitem(sys.modules, "parts_that_break")


def test_what_was_made_otherwise_is_told_and_made_again_where_that_is_wanted(work: Path, dlspec) -> None:
    dlspec(*HERE, "seed=1,2,3")

    for job, change_made in ((0, {"code": "dlspec 0.0.1"}), (1, {"data": "00000000"})):
        path = work / f"sweep/{job}/versions.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change_made))
    said = dlspec(*HERE, "seed=1,2,3,4")
    fix = "their results are kept; sweep.rerun=changed trains them again\n"
    assert f"1 of them were trained by another version of the code: {fix}" in said.out
    assert f"1 of them were trained with other data: {fix}" in said.out
    before = times(work)
    said = dlspec("resume", "sweep=sweep", "rerun=changed")
    assert said.out.startswith("2 of 4 jobs are done already\n[0] seed=1  finished")
    after = times(work)
    assert sorted(Path(name).parent.name for name in after if after[name] != before[name]) == ["0", "1"]
    assert dlspec("resume", "sweep=sweep", "rerun=changed").out.startswith("4 of 4 jobs are done already\n\n")


def test_which_sweep(work: Path, dlspec, write: Callable[[str, str], Path]) -> None:
    no_sweep = "no sweep in 'nowhere'; name a folder that contains sweep.json: resume sweep=FOLDER\n"
    assert dlspec("resume", "sweep=nowhere").err == no_sweep
    write("sweep/sweep.json", "{")
    said = dlspec("resume", "sweep=sweep")
    assert said.code == 2
    assert said.err == (
        "'sweep/sweep.json' is not a list of jobs that this version of dlspec can read; use another folder, or move "
        "this one away to start again\n"
    )


@pytest.mark.parametrize("word", ["hydra.callbacks.x._target_=a.b", "hydra.job.env_set.A=b", "'imports=[os]'"])
def test_what_a_strangers_sweep_could_run_must_be_repeated(work: Path, done: None, dlspec, word: str) -> None:
    change(work, lambda tree: tree["command"].append(word.strip("'")))
    said = dlspec("resume", "sweep=sweep")
    assert (said.code, said.err) == (2, f"the sweep in 'sweep' may run code; if you trust it, repeat: {word}\n")


@pytest.mark.parametrize(
    "key, value",
    [("folder", "../elsewhere"), ("folder", "/tmp/x"), ("folder", "."), ("number", -1), ("number", "0"), ("hash", 3),
     ("overrides", ["a", 1]), ("status", None)],
)  # fmt: skip
def test_a_strangers_list_of_jobs_leads_nowhere_else(work: Path, done: None, dlspec, key: str, value: object) -> None:
    change(work, lambda tree: tree["jobs"][0].__setitem__(key, value))
    assert "is not a list of jobs" in dlspec(*HERE, "seed=1,2").err


def test_nobody_else_sweeps_there(work: Path, done: None, dlspec) -> None:
    from dlspec.runs.lock import lock_run_folder

    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS], cwd=work, stdout=subprocess.PIPE, stdin=subprocess.PIPE, env=make_environment()
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    said = dlspec(*HERE, "seed=1,2")
    holder.communicate(b"\n")
    assert said.code == 2
    assert "'sweep' is in use: process" in said.err
    with lock_run_folder(work / "sweep"):
        pass


HOLDS = """
from pathlib import Path
from dlspec.runs.lock import lock_run_folder
with lock_run_folder(Path("sweep")):
    print("held", flush=True)
    input()
"""


# ---- what makes a job the same ---------------------------------------------------------------------------------------


def identity_of(*words: str) -> str:
    from dlspec.config.composition import start_hydra
    from dlspec.sweeps.hydra.plugins import register

    register()
    return compute_job_hash(make_preparation(compose_or_raise(["model=mlp", *words], start_hydra())).read())


@pytest.mark.parametrize(
    "word",
    ["trainer.device=cuda", "trainer.threads=3", "trainer.progress=none", "trainer.curves=false", "trainer.epochs=20",
     "trainer.checkpoint_steps=3", "trainer.tensorboard=false", "sweep.workers=3", "optimizer.lr=0.001",
     "hydra.run.dir=x"],
)  # fmt: skip
def test_how_and_where_makes_no_other_job(word: str) -> None:
    assert identity_of(word) == identity_of()


@pytest.mark.parametrize(
    "word",
    ["seed=1", "optimizer.lr=0.01", "optimizer=SGD", "trainer.epochs=21", "trainer.batch_size=8", "data.limit=50",
     "data=breast_cancer", "model.params.activation=Tanh", "loss=NLLLoss", "metrics=[F1Score]", "trainer.test=last",
     "scheduler=CosineAnnealingLR", "freeze=[{match: '0.*'}]", "optimizer.groups=[{match: '*.bias', lr: 0.1}]"],
)  # fmt: skip
def test_what_a_result_follows_from_makes_another_job(word: str) -> None:
    assert identity_of(word) != identity_of()


def test_data_are_known_by_what_they_hold() -> None:
    from dlspec.config.composition import start_hydra
    from dlspec.sweeps.hydra.plugins import register

    register()

    def checksum(*words: str) -> str:
        return compute_data_checksum(make_preparation(compose_or_raise(list(words), start_hydra())).open().data)

    assert checksum("data=digits") == checksum("data=digits")
    assert len({checksum(*words) for words in (["data=digits"], ["data=digits", "data.limit=100"],
                                               ["data=digits", "data.split_seed=1"])}) == 3  # fmt: skip


# ---- killed ----------------------------------------------------------------------------------------------------------

KILLED = ["-m", "hydra.sweep.dir=killed", "model=mlp", "optimizer.lr=1e-3,1e-2,3e-2", "seed=range(4)", *QUIET,
          "trainer.checkpoint_steps=10", "sweep.workers=2"]  # fmt: skip


def table(out: str) -> list[str]:
    """The rows, without their folders' names."""
    return [re.sub(r" +\S+$", "", line) for line in out.rstrip().split("\n\n")[-1].splitlines()[1:]]


def kill_and_resume(work: Path, epochs: int, seconds: Sequence[float], dlspec: Callable[..., CommandResult]) -> None:
    """Kills a sweep's whole process group again and again, some seconds after it began to train, and lets it end."""
    words = [*KILLED, f"trainer.epochs={epochs}"]
    straight = dlspec(*words, "hydra.sweep.dir=straight", "hydra/launcher=dlspec", "trainer.progress=none")
    assert straight.code == 0
    command, kills = words, 0
    for each in seconds:
        process = subprocess.Popen(
            [sys.executable, "-m", "dlspec", *command], cwd=work, env=make_environment(), start_new_session=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        began = time.time()
        wait_until(partial(_trains_since, work, began), process)
        time.sleep(each)
        if process.poll() is not None:  # a fast machine was done before
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        command = ["resume", "sweep=killed"] if (work / "killed/sweep.json").exists() else words
    done = subprocess.run(
        [sys.executable, "-m", "dlspec", *command], cwd=work, env=make_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert kills, "it was over before it was killed: give it more to do"
    assert table(done.stdout) == table(straight.out)
    assert results(work, "killed") == results(work, "straight")


def _trains_since(work: Path, began: float) -> bool:
    return any(each.stat().st_mtime > began for each in work.glob("killed/*/status.json"))


@pytest.mark.soak
def test_a_kill_of_a_sweep(work: Path, dlspec) -> None:
    kill_and_resume(work, 8, [0.1], dlspec)


@pytest.mark.soak
def test_twenty_kills_of_a_sweep(work: Path, dlspec) -> None:
    chance = random.Random(20)
    kill_and_resume(work, 30, [chance.uniform(0, 0.3) for _ in range(20)], dlspec)


def test_a_sweep_knows_its_jobs_when_it_is_read_back(work: Path, done: None, dlspec) -> None:
    found = read_sweep_record(work / "sweep")
    assert found is not None and found.command is not None
    assert [(each.job.number, each.job.folder.name, each.status) for each in found.entries] == [
        (0, "0", "finished"),
        (1, "1", "finished"),
    ]
    assert found.entries[0].job.hash != found.entries[1].job.hash
    assert found.entries[0].versions.data == found.entries[1].versions.data != ""
    assert "torch" in found.entries[0].versions.code
