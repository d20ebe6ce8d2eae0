"""Hydra's other launchers: jobs in others' processes, told, recorded and resumed as those of the pool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus

from dlspec.config.launchers import EXTRAS_BY_CHOICE
from dlspec.errors import UserError
from dlspec.runs.file_names import JOB_FILE
from dlspec.runs.job_result import JobResult, make_failed_result
from dlspec.runs.job_state import JobState
from dlspec.sweeps.executors.executor import TaskEnded, TaskStarted
from dlspec.sweeps.executors.external_executor import ExternalExecutor, JobNotFinished, _write_result
from dlspec.sweeps.executors.job_worker import JobWorker
from dlspec.sweeps.hydra.plugins import register
from dlspec.sweeps.records.planned_job import PlannedJob
from helpers.command_line import QUIET, CommandResult, make_environment
from helpers.paths import ROOT
from helpers.sweep_outputs import choose_launcher, read_sweep_json, wait_for

Launch = Callable[[Sequence[PlannedJob]], Sequence[JobReturn]]
LONG = ["trainer.max_steps=9", "trainer.limit_batches=9", *QUIET]


@pytest.fixture(autouse=True)
def _found_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where dlspec is installed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def as_in_the_pool(work: Path, dlspec: Callable[..., CommandResult], launcher: Sequence[str]) -> None:
    """One job that trains and one that fails; then one more in the same folder."""
    words = ["-m", "hydra.sweep.dir=sweep", "model=mlp", "optimizer=SGD", *LONG]
    said = dlspec(*words, *launcher, "optimizer.lr=0.1,1e30")
    assert said.code == 1, said
    first, second = sorted(said.out.partition("\n\n")[0].splitlines())
    assert first.startswith("[0] optimizer.lr=0.1  finished  val/loss 2.")
    assert second.startswith("[1] optimizer.lr=1e+30  failed: train/loss became nan in epoch 1 at step 2")
    assert said.out.endswith("2 jobs: 1 finished, 1 failed\nto go on: python -m dlspec resume sweep=sweep\n")
    assert "Traceback" in (work / "sweep/1/log.txt").read_text()
    jobs = read_sweep_json(work)["jobs"]
    assert [job["status"] for job in jobs] == ["finished", "failed"]
    assert all(jobs[0][each] for each in ("hash", "code", "data"))
    assert len((work / "sweep/leaderboard.csv").read_text().splitlines()) == 3
    assert (work / "sweep/report.html").is_file() and not list(work.glob(f"sweep/*/{JOB_FILE}"))
    strange = [each for each in launcher if "init" in each]  # ray's own settings must be repeated
    again = dlspec("resume", "sweep=sweep", "optimizer.lr=0.1,0.2", *strange)
    assert again.code == 0, again
    assert again.out.startswith("1 of 2 jobs are done already\n[2] optimizer.lr=0.2  finished  val/loss ")
    assert dlspec(*words, "hydra.sweep.dir=here", "hydra/launcher=dlspec", "optimizer.lr=0.1,0.2").code == 0
    for name in ("metrics.jsonl", "checkpoints/last.safetensors", "spec.yaml"):
        assert (work / "sweep/2" / name).read_bytes() == (work / "here/1" / name).read_bytes()


@pytest.mark.soak
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_elsewhere_are_told_as_those_of_the_pool(work: Path, dlspec, launcher: str) -> None:
    as_in_the_pool(work, dlspec, choose_launcher(launcher))


@pytest.mark.soak
@pytest.mark.filterwarnings("default")
def test_jobs_of_ray(work: Path, dlspec) -> None:
    as_in_the_pool(work, dlspec, [*choose_launcher("ray"), "+hydra.launcher.ray.init.num_cpus=2"])


# What Slurm's commands do, as far as submitit asks: a queue on this machine that runs one job after the other.
SLURM = {
    "sbatch": """
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
export SLURM_JOB_ID=100
[[ -n $last ]] && export SLURM_ARRAY_JOB_ID=100
(for SLURM_ARRAY_TASK_ID in $(seq 0 "${last:-0}"); do export SLURM_ARRAY_TASK_ID; bash "$1"; done) > queue.txt 2>&1 &
echo "Submitted batch job 100"
""",
    "srun": """
while [[ $1 == --* ]]; do [[ $1 == --output || $1 == --error ]] && shift; shift; done
exec "$@"
""",
    "sacct": "echo 'JobID|State|NodeList'",
}


@pytest.mark.soak
def test_jobs_of_slurm(work: Path, dlspec, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "bin").mkdir()
    for name, text in SLURM.items():
        (work / "bin" / name).write_text(f"#!/bin/bash\n{text}")
        (work / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{work / 'bin'}{os.pathsep}{os.environ['PATH']}")
    as_in_the_pool(work, dlspec, [*choose_launcher("submitit_slurm"), "hydra.launcher.timeout_min=5"])
    script = next(work.glob("sweep/.submitit/**/*submission.sh"))
    assert "#SBATCH --time=5\n" in script.read_text()


@pytest.mark.soak
def test_a_job_elsewhere_that_is_killed_costs_no_other(work: Path) -> None:
    words = ["model=mlp", "trainer.limit_batches=9", *QUIET, "trainer.epochs=9000,1", "seed=0"]
    process = begun(work, *choose_launcher("joblib"), *words)
    wait_for(work / "sweep/0/metrics.jsonl", process)
    os.kill(int((work / "sweep/0/lock").read_text().split()[1]), signal.SIGKILL)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "[0] trainer.epochs=9000  failed: its process was ended by SIGKILL (out of memory?)\n" in out
    assert "2 jobs: 1 finished, 1 failed\n" in out


@pytest.mark.soak
def test_a_signal_saves_all_jobs_wherever_they_are(work: Path) -> None:
    process = begun(work, *choose_launcher("joblib"), "model=mlp", "trainer.epochs=9000", *QUIET, "seed=0,1,2")
    for name in ("0", "1"):
        wait_for(work / "sweep" / name / "metrics.jsonl", process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (143, "interrupted by SIGTERM; to go on: python -m dlspec resume sweep=sweep\n")
    assert "3 jobs: 2 interrupted, 1 waiting\n" in out
    for name in ("0", "1"):
        assert list((work / "sweep" / name / "checkpoints").glob("step-*"))


def begun(work: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dlspec", "-m", "hydra.sweep.dir=sweep", *words], cwd=work, env=make_environment(),
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("key", EXTRAS_BY_CHOICE)
def test_what_is_not_installed_names_its_extra(dlspec, work: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    register()
    group = ConfigStore.instance().repo["hydra"][key.partition("/")[2]]
    for name, extra in EXTRAS_BY_CHOICE[key].items():
        monkeypatch.delitem(group, f"{name}.yaml", raising=False)
        said = dlspec("-m", f"{key}={name}", "seed=0,1")
        assert (said.code, said.out) == (2, "")
        assert f"{key}   '{name}' is not installed   pip install 'dlspec[{extra}]'\n" in said.err
    assert not any(work.iterdir())


# ---- what becomes of jobs, without any process -----------------------------------------------------------------------

FINISHED, FAILED = JobResult(JobState.FINISHED, monitored=0.5), make_failed_result("it broke")


def jobs_in(work: Path, count: int) -> list[PlannedJob]:
    found = [PlannedJob((), "", number=number, folder=work / str(number)) for number in range(count)]
    for job in found:
        job.folder.mkdir()
    return found


def events(work: Path, launch: Launch, count: int, most: int | None = None) -> list[TaskStarted | TaskEnded]:
    executor = ExternalExecutor(JobWorker(None), launch, lambda: work, most)
    return [event for event in executor.run(jobs_in(work, count), 0.0) if event is not None]


def test_a_job_is_told_of_when_it_ends_and_not_when_all_have(work: Path) -> None:
    told: list[str] = []

    def launch(jobs: Sequence[PlannedJob]) -> list[JobReturn]:
        _write_result(jobs[0].folder, FINISHED)
        until = time.monotonic() + 20
        while (jobs[0].folder / JOB_FILE).exists() and time.monotonic() < until:
            time.sleep(0.01)
        told.append("heard" if not (jobs[0].folder / JOB_FILE).exists() else "not heard")
        _write_result(jobs[1].folder, FAILED)
        return []

    assert events(work, launch, 2) == [TaskStarted(0), TaskEnded(0, FINISHED), TaskStarted(1), TaskEnded(1, FAILED)]
    assert told == ["heard"]


def test_what_a_job_could_not_write_its_launcher_tells(work: Path) -> None:
    def launch(jobs: Sequence[PlannedJob]) -> list[JobReturn]:
        wrong, odd = (JobReturn(status=JobStatus.FAILED) for _ in range(2))
        wrong.return_value, odd.return_value = JobNotFinished(FAILED), ValueError("odd")
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=FINISHED), wrong, odd]

    ends = [event.result for event in events(work, launch, 3) if isinstance(event, TaskEnded)]
    assert ends == [FINISHED, FAILED, make_failed_result("ValueError: odd", "odd")]


def test_a_lost_process_costs_the_jobs_that_it_had(work: Path) -> None:
    calls: list[list[int]] = []

    def launch(jobs: Sequence[PlannedJob]) -> list[JobReturn]:
        calls.append([job.number for job in jobs])
        _write_result(jobs[0].folder, JobResult(JobState.RUNNING))
        if len(calls) == 1:
            raise RuntimeError("a worker died")
        for job in jobs:
            _write_result(job.folder, FINISHED)
        return []

    ends = {event.task: event.result for event in events(work, launch, 3) if isinstance(event, TaskEnded)}
    assert ends[0].error == "its launcher's process was lost: RuntimeError: a worker died"
    assert (ends[1], ends[2], calls) == (FINISHED, FINISHED, [[0, 1, 2], [1, 2]])


def test_a_launcher_that_begins_nothing_is_told_once(work: Path) -> None:
    def launch(jobs: Sequence[PlannedJob]) -> list[JobReturn]:
        raise RuntimeError("no cluster here")

    with pytest.raises(UserError, match="the launcher failed to start jobs: RuntimeError: no cluster here"):
        events(work, launch, 3)


def test_batches_come_one_after_the_other(work: Path) -> None:
    calls: list[list[int]] = []

    def launch(jobs: Sequence[PlannedJob]) -> list[JobReturn]:
        calls.append([job.number for job in jobs])
        for job in jobs:
            _write_result(job.folder, FAILED)
        return []

    assert len(events(work, launch, 5, most=2)) == 10
    assert calls == [[0, 1], [2, 3], [4]]
