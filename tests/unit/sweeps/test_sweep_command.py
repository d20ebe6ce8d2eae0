"""`-m`: grids, checks before all else, failures that stop nothing, the table, exit codes, Hydra's other launchers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlspec.errors import UserError
from dlspec.formatting import format_override
from dlspec.sweeps.records.job_folders import JobFolders
from helpers.command_line import QUICK, CommandResult
from helpers.sweep_outputs import parse_table_rows

HERE = "hydra/launcher=dlspec"
SWEEP = ["-m", "hydra.sweep.dir=sweep", *QUICK]
MLP = [*SWEEP, "model=mlp", HERE]
LONG = ["trainer.max_steps=9", "trainer.limit_batches=9"]


def record(work: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((work / "sweep/sweep.json").read_text())["jobs"]
    return found


def test_a_grid_of_groups_and_values_in_processes(dlspec, work: Path) -> None:
    said = dlspec(*SWEEP, "model=mlp,linear", "optimizer.lr=1e-3,1e-2", "seed=0", "sweep.workers=2")
    assert (said.code, said.err) == (0, "")
    rows = parse_table_rows(said.out)
    assert {(row[0], row[1], row[2], row[-1]) for row in rows} == {
        ("0", "mlp", "0.001", "sweep/0"), ("1", "mlp", "0.01", "sweep/1"),
        ("2", "linear", "0.001", "sweep/2"), ("3", "linear", "0.01", "sweep/3"),
    }  # fmt: skip
    losses = [float(row[3]) for row in rows]
    assert losses == sorted(losses)
    assert said.out.endswith("4 jobs: 4 finished\n")
    assert not any(line != line.rstrip() for line in said.out.split("\n\n")[-1].splitlines())
    names = {"0", "1", "2", "3", "multirun.yaml", "sweep.json", "lock", "report.html", "leaderboard.csv"}
    assert {path.name for path in (work / "sweep").iterdir()} == names
    overrides = (work / "sweep/3/.hydra/overrides.yaml").read_text()
    assert overrides.endswith("- model=linear\n- optimizer.lr=0.01\n- seed=0\n- sweep.workers=2\n")
    assert "hydra:\n  run:" in (work / "sweep/3/.hydra/hydra.yaml").read_text()
    assert [job["status"] for job in record(work)] == ["finished"] * 4
    told = said.out.partition("\n\n")[0].splitlines()
    assert sorted(line.split("  finished  val/loss")[0] for line in told) == [
        "[0] model=mlp optimizer.lr=0.001", "[1] model=mlp optimizer.lr=0.01",
        "[2] model=linear optimizer.lr=0.001", "[3] model=linear optimizer.lr=0.01",
    ]  # fmt: skip


def test_a_job_in_a_process_gives_what_it_gives_here(dlspec, work: Path) -> None:
    one = [*SWEEP[:1], *QUICK, "model=mlp", "seed=1,2"]
    assert dlspec(*one, "hydra.sweep.dir=apart", "sweep.workers=2").code == 0
    assert dlspec(*one, "hydra.sweep.dir=here", HERE).code == 0
    for name in ("metrics.jsonl", "checkpoints/last.safetensors", "spec.yaml"):
        assert (work / "apart/1" / name).read_bytes() == (work / "here/1" / name).read_bytes()


def test_a_failing_job_stops_no_other(dlspec, work: Path) -> None:
    said = dlspec(*MLP, *LONG, "optimizer=SGD", "optimizer.lr=1e30,0.1", "trainer.progress=none")
    assert said.code == 1
    failed, finished = said.out.splitlines()[:2]
    assert failed.startswith("[0] optimizer.lr=1e+30  failed: train/loss became nan in epoch 1")
    assert finished.startswith("[1] optimizer.lr=0.1  finished  val/loss ")
    assert [row[0] for row in parse_table_rows(said.out)] == ["1", "0"]
    counts = "2 jobs: 1 finished, 1 failed\nto go on: python -m dlspec resume sweep=sweep\n"
    assert said.out.endswith(counts)
    assert record(work)[0]["error"].startswith("train/loss became nan")


def test_it_ends_with_the_first_failure_where_that_is_wanted(dlspec, work: Path) -> None:
    said = dlspec(*MLP, "--fail-fast", *LONG, "optimizer=SGD", "optimizer.lr=1e30,0.1,0.2")
    assert said.code == 1
    assert "3 jobs: 1 failed, 2 waiting\n" in said.out
    assert [job["status"] for job in record(work)] == ["failed", "waiting", "waiting"]


def test_a_wrong_spec_stops_the_sweep_before_it_begins(dlspec, work: Path) -> None:
    said = dlspec(*MLP, "optimizer.lr=abc,0.1,0.2")
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "[0] optimizer.lr=abc\n"
        "command line   optimizer.lr (Adam)   'lr' must be a number >= 0, got 'abc'\n"
        "    optimizer.lr=abc\n"
        "                 ^^^\n"
        "1 of 3 jobs refused, nothing was trained; add sweep.on_invalid=skip to train the others\n"
    )
    assert not any(work.iterdir())


def test_what_only_building_shows_stops_it_too(dlspec, work: Path, write: Callable[[str, str], Path]) -> None:
    write("conf/model/wrong.yaml", "layers:\n  - Linear: 10\n")
    said = dlspec(*SWEEP, "model=mlp,wrong,linear", "sweep.workers=2")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("[1] model=wrong\nconf/model/wrong.yaml:2:5")
    assert [each.name for each in work.iterdir()] == ["conf"]


def test_wrong_specs_are_left_out_where_that_is_wanted(dlspec, work: Path) -> None:
    said = dlspec(*MLP, "sweep.on_invalid=skip", "optimizer.lr=abc,0.1", "trainer.progress=none")
    assert said.code == 2
    assert said.out.startswith(
        "[0] optimizer.lr=abc  refused: optimizer.lr (Adam) 'lr' must be a number >= 0, got 'abc'\n"
    )
    assert "got 'abc'\n    optimizer.lr=abc\n" in said.out
    assert said.out.endswith("2 jobs: 1 finished, 1 refused\n")
    assert [(job["status"], job["folder"]) for job in record(work)] == [("refused", ""), ("finished", "1")]
    assert not (work / "sweep/0").exists()


@pytest.mark.parametrize("wrong", ["optimizer.lr=a,b", "model=nope,nil", "trainr.epochs=1,2", "run=a,b"])
def test_nothing_is_made_where_all_are_refused(dlspec, work: Path, wrong: str) -> None:
    said = dlspec(*MLP, wrong, "sweep.on_invalid=skip")
    assert said.code == 2
    assert said.err.endswith("2 of 2 jobs refused, nothing was trained\n")
    assert not any(work.iterdir())


def test_jobs_with_the_same_mistake_are_told_together(dlspec) -> None:
    said = dlspec(*MLP, "seed=range(30)", "+model.wdith=3")
    assert said.err.count("model.wdith   ") == 1
    assert "[0] seed=0\n[1] seed=1\n" in said.err
    assert "\n[19] seed=19\ncommand line " in said.err
    assert said.err.endswith("the first 20 of 30 jobs refused, nothing was trained\n")


@pytest.mark.parametrize(
    ("subdir", "folders"),
    [
        pytest.param("a/${seed}x", ["a/1x", "a/2x"], marks=pytest.mark.soak),
        (
            "${hydra.job.override_dirname}",
            [f"model=mlp,seed={seed},{','.join(sorted(QUICK)).replace('false', 'False')}" for seed in (1, 2)],
        ),
        ('job ${hydra:job.num}: é, it\'s "b"', ['job 0: é, it\'s "b"', 'job 1: é, it\'s "b"']),
    ],
)
def test_jobs_have_the_folders_that_the_user_named(dlspec, work: Path, subdir: str, folders: list[str]) -> None:
    said = dlspec(*MLP, format_override("hydra.sweep.subdir", subdir), "seed=1,2")
    assert said.code == 0
    found = [job["folder"] for job in record(work)]
    assert found == folders
    assert all((work / "sweep" / each / "result.json").is_file() for each in found)


@pytest.mark.parametrize(
    ("subdir", "problem"),
    [
        ("a/${model.params.width}", "job 1 (seed=2) can't have the folder 'a/128': another job has the same one"),
        ("a/../../b${seed}", "job 0 (seed=1) can't have the folder 'a/../../b1': it contains an empty name or dots"),
        ("/tmp/${seed}", "job 0 (seed=1) can't have the folder '/tmp/1': it must lie in the sweep's folder"),
        ("x" * 300, f"job 0 (seed=1) can't have the folder '{'x' * 50} ... {'x' * 25}': File name too long"),
        (
            "a\nb${seed}",
            "job 0 (seed=1) can't have the folder 'a\ufffdb1': it contains characters that a name can't have",
        ),
        (".${seed}", "job 0 (seed=1) can't have the folder '.1': reports and sweeps use such a name"),
        ("sweep.json", "job 0 (seed=1) can't have the folder 'sweep.json': reports and sweeps use such a name"),
    ],
)
def test_a_folder_that_a_job_can_not_have_is_refused_before_anything_trains(
    dlspec, work: Path, subdir: str, problem: str
) -> None:
    said = dlspec(*MLP, format_override("hydra.sweep.subdir", subdir), "seed=1,2")
    assert said.code == 2
    assert problem in said.err
    assert said.err.endswith("such as hydra.sweep.subdir='${hydra:job.num}'\n")
    assert not list((work / "sweep").glob("**/spec.yaml"))


def test_job_folders(tmp_path: Path) -> None:
    """Only a job's number gets another number appended; a name of the user's is that name."""
    folders = JobFolders(tmp_path, [tmp_path / "0", tmp_path / "a/b"])
    (tmp_path / "2").mkdir()
    names = [folders.choose(str(number), number, "").name for number in range(3)]
    assert names == ["0_2", "1", "2_2"]
    assert folders.choose("c/d", 3, "") == tmp_path / "c/d"
    for name in ("a", "0/x", "c/d/e"):
        with pytest.raises(UserError, match="it would lie in another job's folder, or that one in it"):
            folders.choose(name, 4, "seed=1")
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="it exists already, and is not a folder of this sweep"):
        folders.choose("there", 4, "seed=1")


def test_files_that_do_not_fit_refuse_their_job_alone(dlspec) -> None:
    said = dlspec(*MLP, "experiment=null,article_text", "sweep.on_invalid=skip")
    assert said.code == 2
    assert said.out.endswith("2 jobs: 1 finished, 1 refused\n")


@pytest.mark.parametrize(
    "choice",
    [
        ("hydra/launcher=basic", "hydra/sweeper=basic"),
        ("hydra.sweeper.max_batch_size=1", HERE),
        pytest.param(("hydra/launcher=basic",), marks=pytest.mark.soak),
        pytest.param(("hydra/sweeper=basic", HERE), marks=pytest.mark.soak),
        pytest.param(("hydra.sweeper.max_batch_size=1", "hydra/launcher=basic"), marks=pytest.mark.soak),
    ],
    ids=" ".join,
)
def test_hydras_own_launcher_sweeper_and_batches(dlspec, work: Path, choice: tuple[str, ...]) -> None:
    said = dlspec(*SWEEP, "model=mlp", *choice, "seed=0,1")
    assert (said.code, len(parse_table_rows(said.out))) == (0, 2)
    assert (work / "sweep/1/metrics.jsonl").is_file()
    assert {row[-1] for row in parse_table_rows(said.out)} == {"sweep/0", "sweep/1"}


@pytest.mark.parametrize("sweeper", ["dlspec", pytest.param("basic", marks=pytest.mark.soak)])
def test_a_failure_under_hydras_launcher_is_counted(dlspec, sweeper: str) -> None:
    launcher = ["hydra/launcher=basic", f"hydra/sweeper={sweeper}"]
    said = dlspec(*SWEEP, "model=mlp", *launcher, *LONG, "optimizer=SGD", "optimizer.lr=0.1,1e30")
    assert said.code == 1
    assert sweeper == "basic" or "2 jobs: 1 finished, 1 failed\n" in said.out  # that one ends with the error
    assert "[1] " in said.out and "failed: train/loss became nan" in said.out


@pytest.mark.parametrize("asked", ['+hydra.sweeper.params.seed="1,2"', 'hydra.sweeper.params={seed: "1,2"}'])
def test_the_sweepers_params_and_mode(dlspec, asked: str) -> None:
    said = dlspec(*MLP[1:], "hydra.mode=MULTIRUN", asked)
    assert said.code == 0
    assert sorted(row[1] for row in parse_table_rows(said.out)) == ["1", "2"]


def test_the_scheduler_or_none(dlspec) -> None:
    said = dlspec(*MLP, "scheduler=null,CosineAnnealingLR")
    assert {row[1] for row in parse_table_rows(said.out)} == {"null", "CosineAnnealingLR"}


def test_sweepers_are_given_the_monitored_value(work: Path) -> None:
    from dlspec.config.composition import CONFIG_NAME, start_hydra
    from dlspec.sweeps.hydra.plugins import register
    from dlspec.sweeps.hydra.sweep_task import SweepTask

    register()
    hydra = start_hydra()
    words = [*MLP[1:], "seed=0,1", "hydra.mode=MULTIRUN", "trainer.progress=none"]
    with SweepTask(hydra.config_loader) as task:
        returned = hydra.multirun(CONFIG_NAME, task, words, with_log_configuration=False)
        assert [each.return_value for each in returned] == [entry.result.monitored for entry in task.entries]


def test_ctrl_c_ends_it_with_the_table_so_far(dlspec, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlspec.training.trainer import Trainer

    fit = Trainer.fit

    def interrupted(self: Trainer):
        if self.data.seed == 1:
            raise KeyboardInterrupt
        return fit(self)

    monkeypatch.setattr(Trainer, "fit", interrupted)
    said: CommandResult = dlspec(*MLP, "seed=0,1,2")
    how = "to go on: python -m dlspec resume sweep=sweep\n"
    assert (said.code, said.err) == (130, f"interrupted by SIGINT; {how}")
    assert said.out.endswith(f"3 jobs: 1 finished, 1 interrupted, 1 waiting\n{how}")


def test_settings_of_the_sweep_are_checked(dlspec, work: Path) -> None:
    said = dlspec(*MLP, "sweep.on_invalid=ignore", "seed=1,2")
    assert said.code == 2
    assert "sweep.on_invalid   'on_invalid' must be stop or skip, got 'ignore'" in said.err
    assert not any(work.iterdir())
