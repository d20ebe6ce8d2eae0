"""A large sweep begins before all of its specs are checked, and ends as if they had been."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dlspec as dlspec_package
from dlspec.errors import UserError
from dlspec.jobs.run_preparation import Preparation
from dlspec.sweeps import job_queue, sweep_run
from dlspec.sweeps.records.planned_job import JobPlan, make_unchecked_entry
from dlspec.sweeps.records.sweep_record import SweepRecord
from dlspec.sweeps.spec_checks import SpecChecks
from helpers.command_line import QUICK, QUIET, CommandResult
from helpers.sweep_outputs import read_sweep_json

Run = Callable[..., CommandResult]
SWEEP = ("-m", "hydra.sweep.dir=sweep", "model=linear", "data=random", "data.size=40", "trainer.progress=none",
         *QUICK, *QUIET)  # fmt: skip
INLINE = (*SWEEP, "hydra/launcher=dlspec")
LINE = "checked 1 of {} jobs; the rest is checked while they train\n"


@pytest.fixture(autouse=True)
def check_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check one spec before a sweep trains, and one at a time while it trains."""
    monkeypatch.setattr(sweep_run, "MAX_SECONDS_OF_FIRST_CHECKS", 0.0)
    monkeypatch.setattr(job_queue, "SECONDS_PER_CHECK", 0.0)


@pytest.fixture
def all_first(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it to check all specs first again."""
    return lambda: monkeypatch.setattr(sweep_run, "MAX_SECONDS_OF_FIRST_CHECKS", 60.0)


def list_jobs(work: Path) -> list[tuple[int, str, str, str]]:
    jobs: list[dict[str, Any]] = read_sweep_json(work)["jobs"]
    return [(each["number"], each["folder"], each["status"], each["overrides"][-1]) for each in jobs]


def hide_times(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith(("epoch ", "test ")))


@pytest.mark.soak
def test_it_ends_as_if_all_were_checked_first(work: Path, dlspec: Run, all_first: Callable[[], None]) -> None:
    late = dlspec(*INLINE, "seed=range(4)", "optimizer.lr=0.1,0.2")
    tree, leaderboard = read_sweep_json(work), (work / "sweep/leaderboard.csv").read_text()
    (work / "sweep").rename(work / "late")
    all_first()
    first = dlspec(*INLINE, "seed=range(4)", "optimizer.lr=0.1,0.2")
    assert (late.code, first.code) == (0, 0)
    assert hide_times(late.out) == LINE.format(8) + hide_times(first.out)
    assert tree == read_sweep_json(work)
    assert leaderboard == (work / "sweep/leaderboard.csv").read_text()


@pytest.mark.soak
def test_all_jobs_are_listed_before_the_first_one_trains(
    work: Path, dlspec: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[dict[str, Any]]] = []
    start = sweep_run.SweepRun._start_job

    def look_and_start(self: sweep_run.SweepRun, *arguments: Any) -> None:
        seen.append(read_sweep_json(work)["jobs"])
        start(self, *arguments)

    monkeypatch.setattr(sweep_run.SweepRun, "_start_job", look_and_start)
    assert dlspec(*INLINE, "seed=range(3)").code == 0
    assert [[(each["number"], each["folder"], bool(each["hash"])) for each in jobs] for jobs in seen] == [
        [(0, "0", True), (1, "", False), (2, "", False)],
        [(0, "0", True), (1, "1", True), (2, "", False)],
        [(0, "0", True), (1, "1", True), (2, "2", True)],
    ]


def test_processes(work: Path, dlspec: Run) -> None:
    said = dlspec(*SWEEP, "sweep.workers=2", "seed=range(3)")
    assert (said.code, said.out.startswith(LINE.format(3))) == (0, True)
    assert list_jobs(work) == [(each, str(each), "finished", f"seed={each}") for each in range(3)]


@pytest.mark.soak
def test_a_wrong_spec_stops_it_later(work: Path, dlspec: Run) -> None:
    said = dlspec(*INLINE, "seed=0,1,2", "optimizer.lr=0.1,abc")
    assert said.code == 2
    assert said.err.endswith(
        "[1] seed=0 optimizer.lr=abc\n"
        "command line   optimizer.lr (Adam)   'lr' must be a number >= 0, got 'abc'\n"
        "    optimizer.lr=abc\n"
        "                 ^^^\n"
        "1 of 2 checked jobs refused (6 jobs in all), the sweep has stopped; finished jobs are kept; "
        "add sweep.on_invalid=skip to train the others\n"
    )
    assert [each[2] for each in list_jobs(work)] == ["finished", "refused", *["waiting"] * 4]
    again = dlspec("resume", "sweep=sweep")  # that job is checked first
    assert (again.code, again.out) == (2, "")
    assert "[1] seed=0 optimizer.lr=abc\n" in again.err
    rest = dlspec("resume", "sweep=sweep", "sweep.on_invalid=skip")
    assert rest.code == 2
    assert "1 of 6 jobs are done already\n" in rest.out
    assert rest.out.count("refused: optimizer.lr (Adam) 'lr' must be") == 3 + 3  # in lines and in the table
    assert [each[:3] for each in list_jobs(work)] == [
        *((0, "0", "finished"), (1, "", "refused"), (2, "2", "finished")),
        *((3, "", "refused"), (4, "4", "finished"), (5, "", "refused")),
    ]


def test_a_value_of_each_setting_is_checked_first(tmp_path: Path) -> None:
    grid = [(f"model={model}", f"seed={seed}") for model in ("a", "b", "c") for seed in range(200)]
    checked = []

    def prepare(overrides: tuple[str, ...]) -> Any:
        checked.append(overrides)
        raise UserError("wrong")

    entries = [make_unchecked_entry(JobPlan(each, lambda each=each: prepare(each))) for each in grid]  # type: ignore[misc]
    SpecChecks(entries, SweepRecord(tmp_path)).run(4, None)
    assert checked == [("model=a", "seed=0"), ("model=b", "seed=0"), ("model=c", "seed=0"), ("model=a", "seed=1")]


@pytest.mark.soak
def test_an_edited_file_makes_other_jobs(work: Path, dlspec: Run, write: Callable[[str, str], Path]) -> None:
    write("conf/model/mine.yaml", "layers: [Flatten, {Linear: 10}]")
    words = (*INLINE, "model=mine", "seed=0,1,2")
    assert dlspec(*words).code == 0
    write("conf/model/mine.yaml", "layers: [Flatten, {Linear: 3}, {Linear: 10}]")
    said = dlspec(*words)
    assert said.code == 0
    assert "done already" not in said.out
    assert [each[:3] for each in list_jobs(work)] == [(each, str(each), "finished") for each in range(6)]


@pytest.mark.soak
def test_a_repeated_default_makes_no_other_jobs(work: Path, dlspec: Run) -> None:
    assert dlspec(*INLINE, "seed=0,1,2").code == 0
    before = {path: path.stat().st_mtime_ns for path in work.glob("sweep/*/metrics.jsonl")}
    said = dlspec(*INLINE, "optimizer.lr=0.001", "seed=0,1,2")
    assert said.code == 0
    assert "1 of 3 jobs are done already\n2 more of 3 jobs were done already\n" in said.out
    assert before == {path: path.stat().st_mtime_ns for path in work.glob("sweep/*/metrics.jsonl")}
    assert [each[:3] for each in list_jobs(work)] == [(each, str(each), "finished") for each in range(3)]


@pytest.mark.soak
def test_equal_jobs(work: Path, dlspec: Run) -> None:
    assert dlspec(*INLINE, "seed=0,0,0").code == 0
    assert [each[:3] for each in list_jobs(work)] == [(each, str(each), "finished") for each in range(3)]
    assert dlspec("resume", "sweep=sweep").out.startswith(
        f"{LINE.format(3)}1 of 3 jobs are done already\n"
        "2 more were finished with the same settings: they are checked last\n"
        "2 more of 3 jobs were done already\n\n"
    )


@pytest.mark.soak
def test_a_job_that_was_only_listed_keeps_its_number(work: Path, dlspec: Run) -> None:
    assert dlspec(*INLINE, "seed=0,1").code == 0
    tree = read_sweep_json(work)
    listed = {**tree["jobs"][1], "number": 2, "folder": "", "hash": "", "status": "waiting", "code": "", "data": ""}
    gone = {**listed, "number": 3, "overrides": [*listed["overrides"][:-1], "seed=7"]}
    listed["overrides"] = [*listed["overrides"][:-1], "seed=2"]
    (work / "sweep/sweep.json").write_text(json.dumps({**tree, "jobs": [*tree["jobs"], listed, gone]}))
    assert dlspec(*INLINE, "seed=0,1,2").code == 0
    assert list_jobs(work) == [(each, str(each), "finished", f"seed={each}") for each in range(3)]


@pytest.mark.soak
def test_a_folder_that_two_jobs_would_have_stops_it(work: Path, dlspec: Run) -> None:
    said = dlspec(*INLINE, "hydra.sweep.subdir=${optimizer.lr}", "optimizer.lr=0.1,0.2,0.1")
    assert said.code == 2
    assert "can't have the folder '0.1': another job has the same one" in said.err
    assert [each[2] for each in list_jobs(work)] == ["finished", "finished", "refused"]


@pytest.mark.soak
def test_with_rerun_changed_all_are_checked_first(work: Path, dlspec: Run) -> None:
    assert dlspec(*INLINE, "seed=0,1,2").code == 0
    said = dlspec(*INLINE, "seed=0,1,2", "sweep.rerun=changed")
    assert (said.code, said.out.startswith("3 of 3 jobs are done already\n")) == (0, True)


@pytest.mark.soak
def test_jobs_that_wait_do_not_fill_the_memory(work: Path, dlspec: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_queue, "MAX_KEPT_JOBS", 0)
    reads = []
    read = Preparation.read

    def count(self: Preparation) -> Any:
        reads.append(self)
        return read(self)

    monkeypatch.setattr(Preparation, "read", count)
    assert dlspec(*INLINE, "seed=0,1,2").code == 0
    assert len(reads) == 8  # each once when it is checked and once when it is built, the last two also when they start


def test_in_python(work: Path) -> None:
    spec = {"model": "linear", "data": {"type": "random", "size": 40}, "trainer": {"epochs": 1, "progress": "none"}}
    found = dlspec_package.sweep(spec, {"seed": range(3)}, folder="sweep", workers=1)
    assert [run.name for run in found.runs] == ["0", "1", "2"]
    with pytest.raises(UserError, match="the sweep has stopped"):
        dlspec_package.sweep(spec, {"seed": [0, 5], "optimizer.lr": [0.1, -1]}, folder="other", workers=1)
