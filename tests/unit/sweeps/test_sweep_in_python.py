"""`dlspec.sweep` in Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dlspec
from helpers.command_line import make_environment

QUICK = {"trainer": {"max_steps": 2, "limit_batches": 2, "curves": False, "pictures": False, "tensorboard": False}}
X = np.random.default_rng(0).random((40, 4), dtype=np.float32)
ARRAYS = {"x": X, "target": np.arange(40) % 3}


def test_a_grid_over_a_mapping(work: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    over = {"model": ["mlp", "linear"], "optimizer.lr": np.array([0.1, 0.2]), "seed": range(1)}
    found = dlspec.sweep({**QUICK, "optimizer": "SGD"}, over, "digits", folder="sweep", workers=2)
    assert torch.equal(torch.rand(1), expected)
    assert [run.status for run in found.runs] == ["finished"] * 4
    assert [run.overrides for run in found.runs] == [
        ("model=mlp", "optimizer.lr=0.1", "seed=0"), ("model=mlp", "optimizer.lr=0.2", "seed=0"),
        ("model=linear", "optimizer.lr=0.1", "seed=0"), ("model=linear", "optimizer.lr=0.2", "seed=0"),
    ]  # fmt: skip
    assert found.runs[1].spec["optimizer"]["lr"] == 0.2
    alone = dlspec.train({**QUICK, "model": "linear", "optimizer": {"type": "SGD", "lr": 0.2}}, "digits")
    assert alone.results["val/loss"] == pytest.approx(found.runs[3].results["val/loss"])
    assert (work / "sweep/report.html").is_file()


def test_called_again_it_does_what_is_left(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = {"model": "mlp", **QUICK}
    dlspec.sweep(spec, {"seed": [0, 1]}, ARRAYS, folder="sweep", workers=2)
    capsys.readouterr()
    found = dlspec.sweep(spec, {"seed": [0, 1, 2]}, ARRAYS, folder="sweep")
    assert capsys.readouterr().out.startswith("2 of 3 jobs are done already\n")
    assert len(found.runs) == 3
    with pytest.raises(dlspec.UserError, match=r"can't sweep over 'data\.limit': the data were given in Python"):
        dlspec.sweep(spec, {"data.limit": [5]}, ARRAYS, folder="sweep")
    other = {**ARRAYS, "x": X + 1}
    assert len(dlspec.sweep(spec, {"seed": [0]}, other, folder="sweep").runs) == 4


def test_overrides_and_a_folder_of_its_own(work: Path) -> None:
    spec = ["model=mlp", "trainer.max_steps=1", "trainer.curves=false", "trainer.pictures=false"]
    found = dlspec.sweep(spec, {"model.params.activation": ["Tanh"], "trainer.batch_size": [8]}, "digits")
    (run,) = found.runs
    assert run.spec["model"]["params"]["activation"] == "Tanh"
    assert run.folder is not None and run.folder.parent.name.endswith("_sweep")


@pytest.mark.parametrize(
    "over, text",
    [
        ({}, "nothing to sweep over"),
        ({"seed": 3}, r"over\['seed'\] must be a list of values"),
        ({"seed": "3"}, r"over\['seed'\] must be a list of values"),
        (
            {"optimizer.lr": [0.1, "a"]},
            r"\[1\] optimizer.lr=a\noptimizer.lr \(Adam\)   'lr' must be a number >= 0, got 'a'",
        ),
        ({"model": ["nope"]}, "unknown model 'nope'"),
        ({"seed": [object()]}, "a spec can't contain"),
        ({"optimizer.groups": [[{"match": "*.bias", "lr": "a"}]]}, "'lr' must be a number >= 0, got 'a'"),
        ({"model.layers.9.Linear": [3]}, r"model.layers.9.Linear   no entry '9' in a list of \d"),
    ],
)
def test_refuses(work: Path, over: Any, text: str) -> None:
    with pytest.raises(dlspec.UserError, match=text):
        dlspec.sweep({"model": "mlp", **QUICK}, over, "digits", folder="sweep")
    assert not (work / "sweep").exists()


@pytest.mark.soak
def test_a_script_that_guards_nothing_sweeps_once(work: Path) -> None:
    (work / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=work, env=make_environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("begun") == 1
    assert done.stdout.endswith("2 finished\n")


SCRIPT = """
import dlspec
print("begun", flush=True)
trainer = {"max_steps": 2, "curves": False, "pictures": False, "tensorboard": False}
found = dlspec.sweep({"model": "mlp", "trainer": trainer}, {"seed": [0, 1]}, "digits", folder="sweep", workers=2)
print(len(found.runs), found.runs[0].status)
"""
