"""A sweep whose processes are killed before any file operation is resumed to the results of an uninterrupted one."""

from __future__ import annotations

import gc
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from dlspec.sweeps import job_queue, sweep_run
from helpers.command_line import QUIET, run_in_this_process
from helpers.sweep_crashes import Victims, run_until

MODEL = "layers: [{Embedding: 4}, {Linear: '${data.vocab_size}'}]"
LINES = "to be or not to be, that is the question\n" * 60
SWEEP = ("-m", "model=tiny", "data=text", "data.path=lines.txt", "trainer.batch_size=8", "trainer.epochs=2",
         "trainer.limit_batches=1", "trainer.keep_checkpoints=1", "trainer.checkpoint_steps=1", "trainer.progress=none",
         "optimizer.lr=0.1,0.01", "hydra.sweep.dir=sweep", *QUIET)  # fmt: skip
INLINE = (*SWEEP, "hydra/launcher=dlspec")
PROCESSES = (*SWEEP, "sweep.workers=2")
STACKED = (*SWEEP, "sweep.workers=1", "sweep.vectorize=true")
RESUME = ("resume", "sweep=sweep")
AGAIN = (*RESUME, "rerun=changed")


@dataclass(frozen=True)
class Case:
    """A command that is killed, and the state that it starts from."""

    command: tuple[str, ...]
    victims: Victims = "all"
    first: tuple[str, ...] = ()  # a command that is killed before
    killed_before: str = ""  # the operation before which it is killed; '' if it ends
    other_data: bool = False  # whether the data are replaced then
    checks_late: bool = False  # whether the second job's spec is checked while the first job trains


HALF = "os.rename 1/checkpoints/step-000000002.safetensors"  # the first job is done, the second one is not
CASES = {
    "inline": Case(INLINE),
    "inline, resumed": Case(RESUME, first=INLINE, killed_before=HALF),
    "inline, with other data": Case(AGAIN, first=INLINE, killed_before=HALF, other_data=True),
    "inline, checked late": Case(INLINE, checks_late=True),
    "inline, checked late, resumed": Case(RESUME, first=INLINE, killed_before=HALF, checks_late=True),
    "processes": Case(PROCESSES),
    "processes, resumed": Case(RESUME, first=PROCESSES, killed_before=HALF),
    "stacked": Case(STACKED),
    "stacked, resumed": Case(RESUME, first=STACKED, killed_before=HALF),
    "stacked, the stack's process killed": Case(STACKED, victims="job"),
    "processes, the sweep's killed": Case(PROCESSES, victims="sweep"),
    "processes, a job's killed": Case(PROCESSES, victims="job"),
}
# Operations before which a kill once lost what was trained, or the folder.
SAMPLE = ("os.mkdir .", "os.rename sweep.json", "os.rename 0/versions.json", "os.rename 0/status.json")


@pytest.fixture
def check_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check one spec before a sweep trains, and one at a time while it trains."""
    monkeypatch.setattr(sweep_run, "MAX_SECONDS_OF_FIRST_CHECKS", 0.0)
    monkeypatch.setattr(job_queue, "SECONDS_PER_CHECK", 0.0)


class CrashPoints:
    """Kills a case's command before an operation, gives the next command, and compares the results."""

    def __init__(self, work: Path, case: Case) -> None:
        self.case, self.folder, self.start = case, work / "sweep", work / "start"
        (work / "conf/model").mkdir(parents=True)
        (work / "conf/model/tiny.yaml").write_text(MODEL)
        (work / "lines.txt").write_text(LINES)
        assert run_in_this_process(*INLINE).code == 0  # imports everything, which each child would have to do
        gc.freeze()  # and is not copied to the children
        self._make_start(work)
        self.operations = self._list_operations(*case.command, victims=case.victims)
        self.leaderboard = self._read_leaderboard()

    def _make_start(self, work: Path) -> None:
        if self.case.first:
            operations = self._list_operations(*self.case.first)
            self._restore()
            run_until(self.folder, operations.index(self.case.killed_before) + 1, *self.case.first)
            shutil.copytree(self.folder, self.start)
        if self.case.other_data:
            (work / "lines.txt").write_text(LINES.replace("question", "qusetion"))

    def _restore(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.start.exists():
            shutil.copytree(self.start, self.folder)

    def _list_operations(self, *words: str, victims: Victims = "all") -> list[str]:
        self._restore()
        log = self.folder.parent / "operations.txt"
        log.write_text("")
        said = run_until(self.folder, None, *words, victims=victims, log=log)
        assert said.code == 0, said.out
        return log.read_text().splitlines()

    def _read_leaderboard(self) -> str:
        """Return the leaderboard of the sweep in one go."""
        shutil.rmtree(self.folder)
        assert run_in_this_process(*INLINE).code == 0
        return (self.folder / "leaderboard.csv").read_text()

    def check(self, operation: int) -> str:
        """Kill the command before an operation, and return what went wrong afterwards; '' if nothing did."""
        self._restore()
        killed = run_until(self.folder, operation, *self.case.command, victims=self.case.victims)
        if self.case.victims != "job" and killed.code not in (-9, 0):  # 0: this time it had fewer operations
            return f"it was not killed: {killed}"
        is_resumed = operation % 2 and (self.folder / "sweep.json").exists()
        command = RESUME if is_resumed and self.case.command != AGAIN else self.case.command
        said = run_until(self.folder, None, *command)
        return self._compare() if said.code == 0 else f"{command[0]} ended with code {said.code}: {said.out}"

    def _compare(self) -> str:
        if (self.folder / "leaderboard.csv").read_text() != self.leaderboard:
            return "other results: " + (self.folder / "leaderboard.csv").read_text()
        versions = [json.loads((self.folder / f"{job}/versions.json").read_text()) for job in (0, 1)]
        if versions[0] != versions[1] or not all(versions[0].values()):
            return f"unknown versions: {versions}"
        beside = {each.name for each in self.folder.parent.iterdir()} - BESIDE
        left = [str(each) for each in self.folder.rglob(".*") if each.name != ".hydra"]
        return f"left over: {beside} {left}" if beside or left else ""


BESIDE = {"conf", "lines.txt", "sweep", "start", "said.txt", "operations.txt", "outputs"}


def test_some_crash_points(work: Path) -> None:
    points = CrashPoints(work, CASES["inline"])
    chosen = [points.operations.index(each) + 1 for each in SAMPLE]
    assert {each: points.check(each) for each in chosen} == dict.fromkeys(chosen, "")


@pytest.mark.soak
def test_some_crash_points_of_a_stack(work: Path) -> None:
    points = CrashPoints(work, CASES["stacked"])
    count = len(points.operations)
    chosen = [count // 3, count // 2, count - 8]  # while both are set up, while they train, when one has ended
    assert {each: points.check(each) for each in chosen} == dict.fromkeys(chosen, "")


def test_crash_points_around_a_late_check(work: Path, check_late: None) -> None:
    points = CrashPoints(work, CASES["inline, checked late"])
    made = points.operations.index("os.mkdir 1") + 1
    written = max(index for index, each in enumerate(points.operations[:made]) if each == "os.rename sweep.json") + 1
    assert {each: points.check(each) for each in (written, written + 1, made)} == dict.fromkeys(
        (written, written + 1, made), ""
    )


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_every_crash_point(
    name: str, work: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if CASES[name].checks_late:
        request.getfixturevalue("check_late")
    points = CrashPoints(work, CASES[name])
    chosen = range(1, len(points.operations) + 1)
    problems = {each: problem for each in chosen if (problem := points.check(each))}
    with capsys.disabled():
        print(f"{name}: {len(chosen) - len(problems)} of {len(chosen)} kills end with equal results")
    assert {f"{each} {points.operations[each - 1]}": problem for each, problem in problems.items()} == {}
