"""The code and data that a sweep's jobs were trained with: kept with each job, reported when other or unknown."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from signal import SIGTERM

import pytest

import dlspec as package
from dlspec.jobs import job as job_module
from dlspec.jobs import job_setup, run_resuming
from dlspec.jobs.job_hash import describe_code_version
from dlspec.runs.job_versions import JobVersions, read_versions
from dlspec.sweeps import sweep_plan
from dlspec.sweeps.executors import job_worker
from dlspec.sweeps.executors.job_worker import JobWorker
from dlspec.sweeps.records.planned_job import PlannedJob
from dlspec.training.tuning.batch_size_finder import FoundBatchSize
from helpers.command_line import QUIET, CommandResult, run_in_this_process
from helpers.interrupted_runs import CallAfterBatches, make_signal_sender
from helpers.sweep_outputs import read_sweep_json

MODEL = "layers: [{Embedding: 4}, {Linear: '${data.vocab_size}'}]"
LINES = "to be or not to be, that is the question\n" * 60
OTHER_LINES = LINES.replace("question", "qusetion")  # as many characters of the same alphabet
# Two jobs of 4 steps each.
SWEEP = ["-m", "hydra/launcher=dlspec", "model=tiny", "data=text", "data.path=lines.txt", "trainer.batch_size=8",
         "trainer.epochs=2", "trainer.limit_batches=2", "trainer.checkpoint_steps=1", "trainer.progress=none",
         "seed=1,2", *QUIET]  # fmt: skip
KILLED = [*SWEEP, "hydra.sweep.dir=sweep"]
Interrupt = Callable[..., CommandResult]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep trained in one go with the one data (`old`) and with the other (`new`)."""
    folder = tmp_path_factory.mktemp("straight")
    (folder / "conf/model").mkdir(parents=True)
    (folder / "conf/model/tiny.yaml").write_text(MODEL)
    with contextlib.chdir(folder):
        for name, text in (("old", LINES), ("new", OTHER_LINES)):
            Path("lines.txt").write_text(text)
            assert run_in_this_process(*SWEEP, f"hydra.sweep.dir={name}").code == 0
    return folder


@pytest.fixture(autouse=True)
def _files(write: Callable[[str, str], Path]) -> None:
    write("conf/model/tiny.yaml", MODEL)
    write("lines.txt", LINES)


@pytest.fixture
def done(straight: Path, work: Path) -> None:
    """The sweep was trained in the folder `sweep`."""
    shutil.copytree(straight / "old", work / "sweep")


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch, dlspec) -> Interrupt:
    """A command that is ended by a signal after this many training steps of all its jobs."""

    def call(steps: int, *words: str) -> CommandResult:
        usual, end = job_module.make_default_callbacks, CallAfterBatches("train", steps, make_signal_sender(SIGTERM))
        with monkeypatch.context() as patch:
            patch.setattr(job_module, "make_default_callbacks", lambda *args: [*usual(*args), end])
            return dlspec(*words)

    return call


def lose_versions(work: Path, *jobs: int) -> None:
    """Lose the versions, as dlspec 0.1.0 did with those of jobs that ended within a second of a kill."""
    for job in jobs:
        (work / f"sweep/{job}/versions.json").unlink()
    lose_recorded_versions(work)


def lose_recorded_versions(work: Path) -> None:
    tree = read_sweep_json(work)
    for job in tree["jobs"]:
        job |= {"code": "", "data": "", "status": "running"}
    (work / "sweep/sweep.json").write_text(json.dumps(tree))


def get_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


@pytest.mark.soak
def test_versions_that_sweep_json_does_not_have_are_in_the_jobs_folders(
    work: Path, done: None, dlspec, caplog: pytest.LogCaptureFixture
) -> None:
    """`sweep.json` is written once a second, so a kill leaves it without those of the last jobs."""
    lose_recorded_versions(work)
    (work / "lines.txt").write_text(OTHER_LINES)
    said = dlspec("resume", "sweep=sweep")
    fix = "their results are kept; sweep.rerun=changed trains them again"
    assert said.out.startswith(f"2 of 2 jobs are done already\n2 of them were trained with other data: {fix}\n\n")
    assert get_warnings(caplog) == []
    (work / "lines.txt").unlink()
    before = (work / "sweep/0/result.json").read_bytes()
    assert dlspec("resume", "sweep=sweep", "rerun=changed").code == 2
    assert (work / "sweep/0/result.json").read_bytes() == before  # a job that can't be trained keeps its result
    assert get_warnings(caplog) == []


def test_unknown_versions_are_reported_with_a_command_that_works(
    work: Path, done: None, straight: Path, dlspec, caplog: pytest.LogCaptureFixture
) -> None:
    lose_versions(work, 0, 1)
    (work / "sweep/0/metrics.jsonl").write_text("")
    assert dlspec("resume", "sweep=sweep").code == 0
    command = "python -m dlspec resume sweep=sweep rerun=changed"
    kept = f"unknown code or data of jobs 0, 1: their results are kept; to train them again run {command}"
    assert get_warnings(caplog) == [kept]
    caplog.clear()
    assert dlspec(*shlex.split(command)[3:]).out.startswith("[0] seed=1  finished")
    assert (work / "sweep/0/metrics.jsonl").read_bytes() == (straight / "old/0/metrics.jsonl").read_bytes()
    assert read_versions(work / "sweep/0") == read_versions(straight / "old/0")
    assert get_warnings(caplog) == []


def test_data_that_are_not_opened_in_time_are_reported(
    work: Path, done: None, dlspec, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "lines.txt").write_text(OTHER_LINES)
    monkeypatch.setattr(sweep_plan, "MAX_SECONDS_FOR_CHECKS", -1.0)
    said = dlspec("resume", "sweep=sweep")
    assert (said.code, said.out.startswith("2 of 2 jobs are done already\n\n")) == (0, True)
    assert get_warnings(caplog) == [
        "the data of 2 trained jobs were not opened within -1 seconds and may have changed; "
        "sweep.rerun=changed opens all, and trains jobs with changed data again"
    ]
    before = read_versions(work / "sweep/0")
    assert dlspec("resume", "sweep=sweep", "rerun=changed").code == 0  # however long it takes
    assert read_versions(work / "sweep/0") != before


def test_data_are_opened_once_for_all_networks(
    dlspec, write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("conf/model/wide.yaml", MODEL.replace("4", "8"))
    assert dlspec(*KILLED, "model=tiny,wide").code == 0
    built: list[int] = []
    build = JobWorker._build_job

    def count(self: JobWorker, job: PlannedJob) -> None:
        built.append(job.number)
        build(self, job)

    monkeypatch.setattr(JobWorker, "_build_job", count)
    write("lines.txt", OTHER_LINES)
    assert "4 of them were trained with other data" in dlspec("resume", "sweep=sweep").out
    assert built == [0]


def test_comparing_the_data_does_not_look_for_a_batch_size_again(
    work: Path, dlspec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    searches: list[object] = []

    def find(trainer: object) -> FoundBatchSize:
        searches.append(trainer)
        return FoundBatchSize(8, "the batch size is 8")

    monkeypatch.setattr(job_setup, "find_batch_size", find)
    words = [*KILLED, "trainer.batch_size=auto", "seed=1"]
    assert dlspec(*words).code == 0
    (work / "lines.txt").write_text(OTHER_LINES)
    assert "1 of them were trained with other data" in dlspec(*words).out
    assert (len(searches), get_warnings(caplog)) == (1, [])


@pytest.mark.soak
def test_in_python_unknown_versions_are_reported_too(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = {"model": "mlp", "trainer": {"max_steps": 1, "curves": False, "pictures": False, "tensorboard": False}}
    data = {"x": [[1.0, 2.0]] * 20, "target": [0, 1] * 10}
    package.sweep(spec, {"seed": [0]}, data, folder="sweep")
    versions = read_versions(work / "sweep/0")
    assert versions is not None and versions.are_known
    lose_versions(work, 0)
    package.sweep(spec, {"seed": [0]}, data, folder="sweep")
    fix = "call dlspec.sweep with this folder and rerun='changed'"
    assert get_warnings(caplog) == [f"unknown code or data of job 0: their results are kept; to train them again {fix}"]
    package.sweep(spec, {"seed": [0]}, data, folder="sweep", rerun="changed")
    assert read_versions(work / "sweep/0") == versions


def test_results_of_two_data_are_never_mixed(work: Path, straight: Path, dlspec, interrupt: Interrupt) -> None:
    assert interrupt(6, *KILLED).code == 130  # in the second job
    (work / "lines.txt").write_text(OTHER_LINES)
    said = dlspec("resume", "sweep=sweep")
    assert said.code == 0
    assert "\n1 of them were trained with other data: their results are kept;" in said.out
    told = "jobs that are not finished and were trained with other data: 1; they are trained again from the start\n"
    assert told in said.out
    for number, source in enumerate(["old", "new"]):
        name = f"{number}/metrics.jsonl"
        assert (work / "sweep" / name).read_bytes() == (straight / source / name).read_bytes()
        assert read_versions(work / f"sweep/{number}") == read_versions(straight / f"{source}/{number}")
    assert dlspec("resume", "sweep=sweep", "rerun=changed").code == 0
    boards = [(straight / name / "leaderboard.csv").read_text() for name in ("old", "new")]
    assert (work / "sweep/leaderboard.csv").read_text() == boards[1] != boards[0]


@pytest.mark.soak
def test_a_job_that_two_versions_of_the_code_trained_counts_as_changed(
    work: Path, dlspec, interrupt: Interrupt, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(job_worker, "describe_code_version", lambda: "dlspec 0.0.1")
        assert interrupt(1, *KILLED).code == 130
    started = read_versions(work / "sweep/0")  # they were written before the first checkpoint
    assert started is not None and (started.code, started.are_known) == ("dlspec 0.0.1", True)
    assert read_versions(work / "sweep/1") is None
    said = interrupt(1, "resume", "sweep=sweep")
    fix = "they are resumed; sweep.rerun=changed trains them from the start"
    assert said.out.startswith(
        f"jobs that are not finished and were trained by another version of the code: 1; {fix}\n"
    )
    both = f"dlspec 0.0.1, resumed with {describe_code_version()}"
    assert read_versions(work / "sweep/0") == JobVersions(both, started.data)
    with monkeypatch.context() as patch:
        patch.setattr(run_resuming, "describe_code_version", lambda: "dlspec 9")
        assert dlspec("resume", "run=sweep/0").code == 0
    assert read_versions(work / "sweep/0") == JobVersions(f"{both}, resumed with dlspec 9", started.data)
    assert "1 of them were trained by another version of the code" in dlspec("resume", "sweep=sweep").out
    assert dlspec("resume", "sweep=sweep", "rerun=changed").out.startswith("1 of 2 jobs are done already\n[0]")
    assert read_versions(work / "sweep/0") == read_versions(work / "sweep/1")


def test_of_version_0_1_0_the_versions_in_sweep_json_count(
    work: Path, dlspec, caplog: pytest.LogCaptureFixture
) -> None:
    fixture = Path(__file__).parents[2] / "fixtures/version_0_1_0/runs.tar.gz"
    with tarfile.open(fixture) as archive:
        archive.extractall(work, filter="data")
    assert dlspec("resume", "sweep=sweep").code == 0
    unknown = get_warnings(caplog)[0]  # of the interrupted job; the others' are in sweep.json
    assert unknown.startswith("unknown code or data of job 2: ")
    jobs = read_sweep_json(work)["jobs"]
    assert [job["code"] != "" for job in jobs] == [True, True, False, True]
    assert [job["data"] != "" for job in jobs] == [True, True, False, True]


@pytest.mark.parametrize(
    "written", ["[]", "{", '{"code": 3, "data": null}', '{"code": "%s", "data": []}' % ("x" * 10_001)]
)
def test_versions_from_a_stranger_are_unknown(tmp_path: Path, written: str) -> None:
    (tmp_path / "versions.json").write_text(written)
    assert not (read_versions(tmp_path) or JobVersions()).are_known


def test_versions_of_a_resumed_job() -> None:
    first, second = JobVersions("a", "1"), JobVersions("b", "1")
    assert first.resumed_with(first) == first
    assert first.resumed_with(second).resumed_with(second) == JobVersions("a, resumed with b", "1")
    assert first.resumed_with(second).resumed_with(first).code not in ("a", "b")
    assert JobVersions().resumed_with(first) == JobVersions()
