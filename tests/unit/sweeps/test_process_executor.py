"""Processes that do tasks: what ends one ends its task alone; a real sweep with a job that is killed."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dlspec.sweeps.executors.executor import TaskEnded, TaskStarted
from dlspec.sweeps.executors.executor_choice import VISIBLE_DEVICES, list_process_variables
from dlspec.sweeps.executors.process_executor import ProcessPool
from helpers.command_line import MAX_WAIT_SECONDS, QUICK, CommandResult, make_environment
from helpers.scripted_worker import ScriptedWorker
from helpers.sweep_outputs import read_sweep_json, wait_for


def ends(tasks: Sequence[str], count: int = 2) -> dict[int, TaskEnded]:
    with ProcessPool([{"WHERE": str(number)} for number in range(count)], pickle.dumps(ScriptedWorker())) as processes:
        return {event.task: event for event in processes.run(tasks, 1) if isinstance(event, TaskEnded)}


def test_tasks_are_shared_among_processes_that_stay() -> None:
    found = ends(["a", "b", "c", "d", "e"])
    results = [found[number].result for number in range(5)]
    assert [task for _, _, task in results] == ["a", "b", "c", "d", "e"]
    assert {(pid, where) for pid, where, _ in results} == {(results[0][0], "0"), (results[1][0], "1")}
    assert os.getpid() not in {pid for pid, _, _ in results}


def test_what_ends_a_process_ends_its_task_alone() -> None:
    found = ends(["kill", "a", "exit", "b", "unpicklable", "c"], count=1)
    assert [found[number].death_reason for number in (0, 2, 4)] == [
        "its process was ended by SIGKILL (out of memory?)",
        "its process ended with exit code 3",
        "its process ended with exit code 1",
    ]
    assert [found[number].result[2] for number in (1, 3, 5)] == ["a", "b", "c"]


def test_they_end_when_they_are_asked() -> None:
    with ProcessPool([{}, {}], pickle.dumps(ScriptedWorker())) as processes:
        seen: list[object] = []
        for event in processes.run(["wait", "wait", "a"], 0.05):
            seen.append(event)
            if event is None:
                processes.stop()
    assert [each for each in seen if isinstance(each, TaskStarted)] == [TaskStarted(0), TaskStarted(1)]
    ended = [each for each in seen if isinstance(each, TaskEnded)]
    assert sorted(ended, key=lambda each: each.task) == [TaskEnded(0, True), TaskEnded(1, True)]


SLOW = ["model=mlp", "trainer.curves=false", "trainer.pictures=false", "trainer.limit_batches=9", "sweep.workers=2"]


def sweep(work: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dlspec", "-m", "hydra.sweep.dir=sweep", *words]
    return subprocess.Popen(
        command, cwd=work, env=make_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_a_job_that_is_killed_is_told_and_the_others_go_on(dlspec: Callable[..., CommandResult], work: Path) -> None:
    process = sweep(work, *SLOW, "trainer.epochs=150,1,2")
    wait_for(work / "sweep/0/metrics.jsonl", process)
    holder = (work / "sweep/0/lock").read_text().split()[1]
    os.kill(int(holder), signal.SIGKILL)
    out, _ = process.communicate(timeout=MAX_WAIT_SECONDS)
    assert process.returncode == 1
    assert "[0] trainer.epochs=150  failed: its process was ended by SIGKILL (out of memory?)\n" in out
    assert "3 jobs: 2 finished, 1 failed\n" in out
    resumed = dlspec("resume", "sweep=sweep", "sweep.workers=1")
    assert resumed.code == 0
    assert resumed.out.startswith("2 of 3 jobs are done already\n")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_a_signal_saves_all_jobs(work: Path, number: signal.Signals) -> None:
    process = sweep(work, *SLOW, "trainer.epochs=9000", "seed=0,1,2")
    for name in ("0", "1"):
        wait_for(work / "sweep" / name / "metrics.jsonl", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=MAX_WAIT_SECONDS)
    assert process.returncode == 128 + number
    how = "to go on: python -m dlspec resume sweep=sweep\n"
    assert err == f"interrupted by {number.name}; {how}"
    assert "3 jobs: 2 interrupted, 1 waiting\n" in out
    assert [job["status"] for job in read_sweep_json(work)["jobs"]] == ["interrupted", "interrupted", "waiting"]
    for name in ("0", "1"):
        assert list((work / "sweep" / name / "checkpoints").glob("step-*"))
        assert '"status": "interrupted"' in (work / "sweep" / name / "result.json").read_text()


def test_all_jobs_of_a_stack_are_saved_if_the_sweep_is_killed(work: Path) -> None:
    words = ("trainer.epochs=9000", "seed=0,1,2", "hydra/launcher=vectorized", "sweep.vectorize=true")
    process = sweep(work, *SLOW, *words, "sweep.workers=1")
    for number in range(3):
        wait_for(work / f"sweep/{number}/metrics.jsonl", process)
    process.kill()
    process.communicate(timeout=MAX_WAIT_SECONDS)
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    results = [work / f"sweep/{number}/result.json" for number in range(3)]
    while not all(each.is_file() for each in results) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all('"status": "interrupted"' in each.read_text() for each in results)
    assert all(list(each.parent.glob("checkpoints/step-*")) for each in results)


PRINTS = """
from pathlib import Path
import dlspec
from torch import nn, Tensor

@dlspec.layer
class Prints(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print("said by a layer in", Path.cwd())
        return x * 1.0
"""


def test_what_a_job_prints_stands_in_its_log(
    dlspec, work: Path, write: Callable[[str, str], Path], monkeypatch
) -> None:
    monkeypatch.syspath_prepend(str(write("parts_that_print.py", PRINTS).parent))
    write("conf/model/prints.yaml", "layers:\n  - Flatten\n  - Prints\n  - Linear: 10\n")
    words = ["-m", "hydra.sweep.dir=sweep", "model=prints", "imports=[parts_that_print]", "sweep.workers=2", *QUICK]
    said = dlspec(*words, "seed=0,1")
    assert said.code == 0
    assert "said by" not in said.out + said.err
    assert f"said by a layer in {work}\n" in (work / "sweep/0/log.txt").read_text()


def test_where_jobs_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from dlspec.sweeps.executors import executor_choice as sweep_places

    monkeypatch.setattr(sweep_places, "count_cores", lambda: 5)
    assert list_process_variables(None, {"cpu"}) == [{}] * 5
    assert list_process_variables(3, {"auto"}) == [{}] * 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv(VISIBLE_DEVICES, raising=False)
    assert list_process_variables(None, {"auto"}) == [{VISIBLE_DEVICES: "0"}, {VISIBLE_DEVICES: "1"}]
    assert list_process_variables(3, {"cuda", "cpu"}) == [
        {VISIBLE_DEVICES: "0"},
        {VISIBLE_DEVICES: "1"},
        {VISIBLE_DEVICES: "0"},
    ]
    monkeypatch.setenv(VISIBLE_DEVICES, "4,7")
    assert list_process_variables(None, {"cuda"}) == [{VISIBLE_DEVICES: "4"}, {VISIBLE_DEVICES: "7"}]
    assert list_process_variables(None, {"cuda:1"}) == [{}]
    assert list_process_variables(None, {"cpu"}) == [{}] * 5
