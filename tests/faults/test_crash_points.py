"""A process that is killed before any one of its file operations leaves a folder that the next command goes on with."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from dlspec.runs.run_discovery import find_runs
from dlspec.training.callbacks import log_files, status_file
from helpers.command_line import QUIET, run_in_this_process
from helpers.crash_points import KILLED, list_operations, run_to_end, run_until
from helpers.interrupted_runs import read_run_files

SHORT = ("model=linear", "trainer.limit_batches=4", "trainer.batch_size=16", "trainer.checkpoint_steps=3",
         "trainer.progress=none", "trainer.keep_checkpoints=1", *QUIET, "trainer.tensorboard=true")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A command that is killed, and what leads to it and from it."""

    command: tuple[str, ...]
    before: tuple[str, ...] = ()  # the command that makes the folder
    killed_before: str = ""  # an operation before which that command is killed
    following: tuple[str, ...] = ()  # the command that goes on; without one, the same again


FRESH = (*SHORT, "trainer.epochs=3", "hydra.run.dir=run")
SHORTER = (*FRESH, "trainer.epochs=2")
CHANGED = ("resume", "run=run", "trainer.epochs=3", "optimizer.lr=0.1", "resume.allow=[optimizer.lr]")
CASES = {
    "fresh": Case(FRESH),
    "resumed": Case(("resume", "run=run"), FRESH, "os.rename run/checkpoints/step-000000009.safetensors"),
    "started again": Case(("resume", "run=run"), FRESH, "os.rename run/checkpoints/step-000000003.safetensors"),
    "longer": Case(("resume", "run=run", "trainer.epochs=3"), SHORTER),
    "changed": Case(CHANGED, SHORTER),
    # Killed before the change is recorded, the run is the one before it.
    "changed once": Case(CHANGED, SHORTER, following=("resume", "run=run")),
    "without checkpoints": Case((*FRESH, "trainer.checkpoints=false")),
}


class CrashPoints:
    """Kills a case's command before each of its operations, goes on with the next command, and compares the results."""

    def __init__(self, work: Path, case: Case) -> None:
        self.work, self.case, self.run, self.start = work, case, work / "run", work.parent / "start"
        self.operations = self._prepare()
        self.right = [self._read_results()]
        if case.following:
            self.right.append(read_run_files(self.start.parent, "start"))

    def _prepare(self) -> list[str]:
        """Make the folder in which the command starts, and run the command once to its end."""
        assert run_in_this_process(*FRESH).code == 0  # imports everything, which each child would have to do
        shutil.rmtree(self.run)
        before = self.case.before
        if self.case.killed_before:
            at = list_operations(self.work, *before).index(self.case.killed_before) + 1
            shutil.rmtree(self.run)
            assert run_until(self.work, at, *before) == KILLED
        elif before:
            assert run_to_end(*before).code == 0
        if before:
            shutil.copytree(self.run, self.start)
        return list_operations(self.work, *self.case.command)

    def _read_results(self) -> tuple[bytes, ...]:
        if self.case.before and self.case.command != CHANGED:  # else there is no such run that was never stopped
            shutil.rmtree(self.run)
            assert run_to_end(*FRESH).code == 0
        return self._read_files()

    def _read_files(self) -> tuple[bytes, ...]:
        if "trainer.checkpoints=false" in self.case.command:
            return ((self.run / "metrics.jsonl").read_bytes(),)
        return read_run_files(self.work, "run")

    def check(self, operation: int, *, is_torn: bool = False) -> str:
        """Kill the command before an operation, and return what went wrong afterwards; '' if nothing did."""
        shutil.rmtree(self.run, ignore_errors=True)
        if self.case.before:
            shutil.copytree(self.start, self.run)
        killed = run_until(self.work, operation, *self.case.command, is_torn=is_torn)
        problem = "" if killed == KILLED else f"ended with code {killed}"
        said = run_to_end(*(self.case.following or self.case.command))
        if said.code == 2 and "; to go on: python -m dlspec resume run=run" in said.err:
            said = run_to_end("resume", "run=run")
        if said.code == 2 and "contains a finished run" in said.err:  # only status.json was missing
            said = run_to_end("status")
        if said.code != 0:
            return f"{problem} {said.err}"
        return problem or self._compare()

    def _compare(self) -> str:
        if self._read_files() not in self.right:
            return "other results"
        states = [str(each.state) for each in find_runs([self.run])]
        result = json.loads((self.run / "result.json").read_text())["status"]
        return "" if (states, result) == (["finished"], "finished") else f"{states} {result}"


def name_failures(points: CrashPoints, chosen: list[tuple[int, bool]]) -> list[str]:
    failures = [(at, is_torn, points.check(at, is_torn=is_torn)) for at, is_torn in chosen]
    return [f"{at} {points.operations[at - 1]}{' (torn)' * is_torn}: {text}" for at, is_torn, text in failures if text]


def list_points(operations: list[str]) -> list[tuple[int, bool]]:
    whole = [(at, False) for at in range(1, len(operations) + 1)]
    torn = [(at, True) for at, each in enumerate(operations, start=1) if each.startswith("open ")]
    return [*whole, *torn]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, where what a run writes does not depend on how long it takes."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(log_files, "SECONDS_BETWEEN_WRITES", 0)
    monkeypatch.setattr(status_file, "SECONDS_BETWEEN_STATUS_WRITES", 1_000_000)
    return work


# Operations before which a process that is killed left a folder that nothing could go on with, or no report listed.
SAMPLE = {
    "fresh": ("open run/lock", "os.rename run/spec.yaml", "os.rename run/status.json"),
    "longer": ("os.rename run/spec.yaml", "open run/log.txt"),
}


@pytest.mark.parametrize("name", SAMPLE)
def test_some_crash_points(name: str, folder: Path) -> None:
    points = CrashPoints(folder, CASES[name])
    last = {each: at for at, each in enumerate(points.operations, start=1)}  # the last operation of each name
    assert name_failures(points, [(last[each], each.startswith("open")) for each in SAMPLE[name]]) == []


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_every_crash_point(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = CrashPoints(folder, CASES[name])
    chosen = list_points(points.operations)
    failures = name_failures(points, chosen)
    with capsys.disabled():
        print(f"\n{name}: {len(chosen) - len(failures)} of {len(chosen)} crash points end equal")
    assert not failures
