"""The folder of a sweep: made, locked and recorded before anything else, found again, never made again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import dlspec as package
from dlspec.errors import UserError
from dlspec.runs.io import write_json
from dlspec.sweeps.executors import external_executor
from dlspec.sweeps.executors.external_executor import JobNotFinished, train_external_job
from dlspec.sweeps.records.planned_job import PlannedJob
from dlspec.sweeps.records.sweep_folder import open_sweep_folder
from dlspec.training.trainer import Trainer
from helpers.command_line import QUICK
from helpers.sweep_outputs import read_sweep_json

SWEEP = ["-m", "hydra/launcher=dlspec", "hydra.sweep.dir=a/sweep", "model=mlp", "trainer.progress=none", *QUICK]


class Holder:
    """A process that holds the folder as a sweep does that checks its specs."""

    def __init__(self, *, is_killed: bool = False) -> None:
        ready, go_on = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            with open_sweep_folder(Path("a/sweep"), command=["model=mlp"]):
                os.write(ready[1], b"held")
                os.read(go_on[0], 1)
                if is_killed:
                    os._exit(9)
            os._exit(0)
        assert os.read(ready[0], 4) == b"held"
        self._go_on = go_on[1]

    def end(self) -> None:
        os.write(self._go_on, b".")
        os.waitpid(self.pid, 0)


def test_a_second_sweep_is_refused_while_the_first_checks_its_specs(work: Path, dlspec) -> None:
    holder = Holder()
    said = dlspec(*SWEEP, "seed=1,2")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"'a/sweep' is in use: process {holder.pid} on ")
    assert dlspec("resume", "sweep=a/sweep").code == 2
    holder.end()
    assert not any(work.iterdir())  # the first one trained nothing, and leaves nothing


def test_a_sweep_that_was_killed_before_it_had_jobs_finds_its_folder(work: Path, dlspec) -> None:
    Holder(is_killed=True).end()
    assert {each.name for each in (work / "a/sweep").iterdir()} == {"lock", "sweep.json"}
    (work / "a/sweep/sweep.json").unlink()
    (work / "a/sweep/.sweep.json.abcd1234").touch()  # killed in an earlier moment
    assert dlspec(*SWEEP, "seed=1,2", "sweep.on_invalid=x").code == 2
    assert dlspec(*SWEEP, "seed=1,2").code == 0
    assert [each.name for each in (work / "a").iterdir()] == ["sweep"]
    assert not (work / "a/sweep/.sweep.json.abcd1234").exists()
    assert len(read_sweep_json(work, "a/sweep")["jobs"]) == 2


def test_a_sweep_without_jobs_is_resumed(work: Path, dlspec) -> None:
    with open_sweep_folder(work / "sweep", command=[*SWEEP[1:], "seed=1"]) as record:
        shutil.copytree(record.folder, work / "killed")
    said = dlspec("resume", "sweep=killed")
    assert (said.code, said.out.splitlines()[-1]) == (0, "1 job: 1 finished")
    assert not (work / "sweep").exists()


@pytest.mark.parametrize("wrong", ["optimizer.lr=a,b", "model.params.width=0,-1"])
def test_nothing_remains_where_all_specs_are_wrong(work: Path, dlspec, wrong: str) -> None:
    (work / "a").mkdir()
    assert dlspec(*SWEEP, wrong).code == 2
    assert [each.name for each in work.rglob("*")] == ["a"]


def test_a_folder_with_other_files_is_not_taken(work: Path, dlspec) -> None:
    (work / "a/sweep").mkdir(parents=True)
    (work / "a/sweep/notes\x1b.txt").touch()
    said = dlspec(*SWEEP, "seed=1,2")
    fix = "choose another folder, hydra.sweep.dir=FOLDER, or move its files away"
    assert (said.code, said.err) == (2, f"'a/sweep' contains files but no sweep: notes\ufffd.txt; {fix}\n")
    assert [each.name for each in (work / "a/sweep").iterdir()] == ["notes\x1b.txt"]
    (work / "a/file").touch()
    with pytest.raises(UserError, match="'a/file' is not a folder"), open_sweep_folder(Path("a/file")):
        pass


def test_in_python_a_sweep_may_share_its_folder(work: Path) -> None:
    (work / "notes.txt").touch()
    with pytest.raises(package.UserError):
        package.sweep({"model": "nope"}, {"seed": [0]}, "digits", folder=".")
    assert [each.name for each in work.iterdir()] == ["notes.txt"]


def test_a_deleted_folder_is_not_made_again(work: Path, dlspec, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = Trainer.fit

    def delete_and_fit(self: Trainer):
        shutil.rmtree("a/sweep")
        return fit(self)

    monkeypatch.setattr(Trainer, "fit", delete_and_fit)
    said = dlspec(*SWEEP, "seed=1,2,3", "hydra.sweep.subdir=x/${seed}")
    assert said.code == 1
    assert said.err.splitlines()[-1] == "the sweep's folder 'a/sweep' was deleted or moved: the sweep has stopped"
    assert "to go on" not in said.out
    assert [each.name for each in work.rglob("*")] == ["a"]


def test_a_process_of_a_launcher_does_not_make_a_deleted_folder_again(work: Path) -> None:
    job = PlannedJob((), "", folder=work / "sweep/x/0")
    write_json_later = work / "sweep/x/0/.hydra"
    write_json_later.mkdir(parents=True)  # as Hydra does before it calls the task
    write_json(write_json_later / "config.yaml", {})
    with pytest.raises(JobNotFinished, match="sweep' was deleted or moved: nothing was trained"):
        train_external_job(job, 1, work / "sweep")
    assert not any(work.iterdir())
    job.folder.mkdir(parents=True)
    (job.folder / "mine.txt").touch()
    with pytest.raises(JobNotFinished):
        external_executor.train_external_job(job, 1, work / "sweep")
    assert (job.folder / "mine.txt").exists()


def test_a_record_that_cannot_be_written_ends_nothing(
    work: Path, dlspec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from dlspec.sweeps.records import sweep_record

    def refuse(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(sweep_record, "write_json_unsynced", refuse)
    assert dlspec(*SWEEP, "seed=1,2").code == 0
    told = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert told == ["can't write a/sweep/sweep.json: No space left on device"]
    assert [job["status"] for job in json.loads((work / "a/sweep/sweep.json").read_text())["jobs"]] == ["finished"] * 2
