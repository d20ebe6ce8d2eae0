"""`-m`: grids, failures that stop nothing, the table, the exit code, Hydra's other launchers and sweepers."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import QUICK

MLP = ["-m", "model=mlp", "hydra.sweep.dir=sweep", *QUICK]


def jobs(out: str) -> list[list[str]]:
    """The table's rows, split at spaces."""
    lines = out.rstrip().split("\n\n")[-1].splitlines()
    return [line.split() for line in lines[1:-1]]


def test_a_grid_of_groups_and_values(dlspec, work: Path) -> None:
    said = dlspec("-m", "model=mlp,linear", "optimizer.lr=1e-3,1e-2", "seed=0", "hydra.sweep.dir=sweep", *QUICK)
    assert (said.code, said.err) == (0, "")
    rows = jobs(said.out)
    assert {(row[0], row[1], row[2], row[-1]) for row in rows} == {
        ("0", "mlp", "0.001", "sweep/0"), ("1", "mlp", "0.01", "sweep/1"),
        ("2", "linear", "0.001", "sweep/2"), ("3", "linear", "0.01", "sweep/3"),
    }  # fmt: skip
    losses = [float(row[3]) for row in rows]
    assert losses == sorted(losses)
    assert said.out.endswith("4 jobs: 4 done\n")
    assert not any(line != line.rstrip() for line in said.out.split("\n\n")[-1].splitlines())
    assert {path.name for path in (work / "sweep").iterdir()} == {"0", "1", "2", "3", "multirun.yaml"}
    assert (work / "sweep/3/.hydra/overrides.yaml").is_file()


def test_a_failing_and_a_refused_job_stop_no_other(dlspec, work: Path) -> None:
    values = "optimizer.lr=1e30,abc,0.1"
    said = dlspec(*MLP, "optimizer=SGD", values, "trainer.max_steps=9", "trainer.limit_batches=9")
    assert said.code == 1
    assert "[0] failed: train/loss became nan in epoch 1" in said.out
    assert "[1] refused: command line   optimizer.lr (SGD)   lr is 'abc', wanted a number >= 0\n" in said.out
    assert said.out.index("[1] refused") < said.out.index("[2] model=mlp")
    assert [row[0] for row in jobs(said.out)] == ["2", "0", "1"]
    assert said.out.endswith("3 jobs: 1 done, 1 refused, 1 failed\n")
    assert not (work / "sweep/1").exists()


@pytest.mark.parametrize("wrong", ["optimizer.lr=a,b", "model=nope,nil", "trainr.epochs=1,2", "run=a,b"])
def test_nothing_is_made_where_all_are_refused(dlspec, work: Path, wrong: str) -> None:
    said = dlspec(*MLP, wrong)
    assert said.code == 2
    assert said.out.endswith("2 jobs: 2 refused\n")
    assert not any(work.iterdir())


def test_jobs_of_one_name_have_two_folders(dlspec, work: Path) -> None:
    said = dlspec(*MLP, "hydra.sweep.subdir=same", "seed=1,2")
    assert said.code == 0
    assert {row[-1] for row in jobs(said.out)} == {"sweep/same", "sweep/same_2"}
    assert all((work / name / "result.json").is_file() for name in ("sweep/same", "sweep/same_2"))


def test_files_that_do_not_fit_refuse_their_job_alone(dlspec) -> None:
    said = dlspec(*MLP, "experiment=null,article_text")
    assert said.code == 2
    assert said.out.endswith("2 jobs: 1 done, 1 refused\n")


@pytest.mark.parametrize("choice", ["hydra/launcher=basic", "hydra/sweeper=basic", "hydra.sweeper.max_batch_size=1"])
def test_hydras_own_launcher_sweeper_and_batches(dlspec, work: Path, choice: str) -> None:
    said = dlspec(*MLP, choice, "seed=0,1")
    assert (said.code, len(jobs(said.out))) == (0, 2)
    assert (work / "sweep/1/metrics.jsonl").is_file()


def test_a_failure_under_hydras_launcher_is_counted(dlspec) -> None:
    long = ["trainer.max_steps=9", "trainer.limit_batches=9"]
    said = dlspec(*MLP, "hydra/launcher=basic", "optimizer=SGD", "optimizer.lr=0.1,1e30", *long)
    assert said.code == 1
    assert said.out.endswith("2 jobs: 1 done, 1 failed\n")


@pytest.mark.parametrize("asked", ['+hydra.sweeper.params.seed="1,2"', 'hydra.sweeper.params={seed: "1,2"}'])
def test_the_sweepers_params_and_mode(dlspec, asked: str) -> None:
    said = dlspec(*MLP[1:], "hydra.mode=MULTIRUN", asked)
    assert said.code == 0
    assert sorted(row[1] for row in jobs(said.out)) == ["1", "2"]


def test_the_scheduler_or_none(dlspec) -> None:
    said = dlspec(*MLP, "scheduler=null,CosineAnnealingLR")
    assert {row[1] for row in jobs(said.out)} == {"null", "CosineAnnealingLR"}


def test_sweepers_are_given_the_monitored_value(work: Path) -> None:
    from dlspec.app import sweep
    from dlspec.app.compose import CONFIG_NAME, start_hydra

    sweep.register()
    hydra = start_hydra()
    task = sweep.Task(hydra.config_loader)
    words = [*MLP[1:], "seed=0,1", "hydra.mode=MULTIRUN", "trainer.progress=none"]
    returned = hydra.multirun(CONFIG_NAME, task, words, with_log_configuration=False)
    assert [each.return_value for each in returned] == [row.outcome.results["val/loss"] for row in task.rows]


def test_ctrl_c_ends_it_with_the_table_so_far(dlspec, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlspec.training.trainer import Trainer

    fit = Trainer.fit

    def interrupted(self: Trainer):
        if self.seed == 1:
            raise KeyboardInterrupt
        return fit(self)

    monkeypatch.setattr(Trainer, "fit", interrupted)
    said = dlspec(*MLP, "seed=0,1,2")
    assert (said.code, said.err) == (130, "interrupted\n")
    assert said.out.endswith("2 jobs: 1 done, 1 interrupted\n")
