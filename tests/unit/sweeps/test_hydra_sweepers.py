"""Other sweepers than dlspec's, and batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from helpers.command_line import QUICK, QUIET
from helpers.sweep_outputs import choose_launcher, parse_table_rows, read_sweep_json

BASE = ["-m", "hydra.sweep.dir=sweep", "model=mlp", "optimizer=SGD"]
LONG = ["trainer.max_steps=9", "trainer.limit_batches=9", *QUIET]


@pytest.mark.parametrize("sweeper", ["dlspec", pytest.param("basic", marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "launcher", ["pool", *(pytest.param(name, marks=pytest.mark.soak) for name in ("basic", "joblib"))]
)
def test_all_batches_run_after_a_failing_job_too(dlspec, work: Path, launcher: str, sweeper: str) -> None:
    launchers = choose_launcher("joblib") if launcher == "joblib" else [f"hydra/launcher={launcher}"]
    words = [*BASE, *launchers, f"hydra/sweeper={sweeper}", "hydra.sweeper.max_batch_size=2", *LONG]
    said = dlspec(*words, "optimizer.lr=1e30,0.1,0.2")
    assert said.code == 1
    assert "3 jobs: 2 finished, 1 failed\n" in said.out
    assert [(job["number"], job["status"]) for job in read_sweep_json(work)["jobs"]] == [
        (0, "failed"), (1, "finished"), (2, "finished"),
    ]  # fmt: skip
    assert len((work / "sweep/leaderboard.csv").read_text().splitlines()) == 4
    again = dlspec("resume", "sweep=sweep", "optimizer.lr=0.1,0.2,0.3")
    assert again.code == 0
    assert again.out.startswith("2 of 3 jobs are done already\n")
    assert (work / "sweep/3/result.json").is_file()


OLD = pytest.mark.filterwarnings("default")  # optuna 2 warns about itself


@pytest.fixture
def optuna() -> list[str]:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs dlspec[optuna]")
    return [*BASE, "hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=1", "hydra.sweeper.n_jobs=2"]


@OLD
@pytest.mark.parametrize("launcher", ["pool", "basic"])
def test_optuna_is_given_the_best_of_the_monitored_result(dlspec, work: Path, optuna: list[str], launcher: str) -> None:
    words = [f"hydra/launcher={launcher}", "hydra.sweeper.n_trials=3", *QUICK]
    said = dlspec(*optuna, *words, "optimizer.lr=interval(0.001, 0.5)")
    assert (said.code, len(parse_table_rows(said.out))) == (0, 3)
    found = yaml.safe_load((work / "sweep/optimization_results.yaml").read_text())
    best = parse_table_rows(said.out)[0]
    assert (best[1], best[2]) == (str(found["best_params"]["optimizer.lr"]), f"{found['best_value']:.4g}")
    again = dlspec("resume", "sweep=sweep")
    assert (again.code, again.out.count("jobs are done already")) == (0, 2)
    assert len(read_sweep_json(work)["jobs"]) == 3


@OLD
def test_a_failed_trial_is_counted(dlspec, work: Path, optuna: list[str]) -> None:
    words = ["hydra/launcher=basic", "hydra.sweeper.n_trials=4", *LONG, "optimizer.lr=choice(1e30, 0.1)"]
    said = dlspec(*optuna, *words, "hydra.sweeper.max_failure_rate=1")
    assert said.code == 1
    assert "failed: train/loss became nan" in said.out
    assert {job["status"] for job in read_sweep_json(work)["jobs"]} == {"finished", "failed"}
    stopped = dlspec(*optuna, *words, "hydra.sweep.dir=stopped")
    assert stopped.code == 1
    assert " failed\nto go on: python -m dlspec resume sweep=stopped\n" in stopped.out
