"""`trainer.tune`: the fastest settings that compute the same are taken, and the run is as if they had been written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from dlspec.errors import UserError
from dlspec.training.trainer import Trainer
from dlspec.training.tuning import settings_tuner
from dlspec.training.tuning.settings_tuner import TuningCandidate, list_candidates, tune_settings
from helpers.command_line import QUIET
from helpers.toy_training import make_dataset, make_network, make_trainer


class Slow(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        time.sleep(0.005)
        return input


class Draws(nn.Module):
    """Takes so many random numbers."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, input: Tensor) -> Tensor:
        torch.rand(self.count)
        return input


def make(changes: Mapping[str, Any]) -> Trainer:
    """Threads are what makes it fast; without a limit it waits at every step."""
    if "num_workers" in changes:
        raise UserError("not with this spec")
    if "allocator" in changes:
        raise RuntimeError("no such\nthing")
    settings = {key: value for key, value in changes.items() if key != "threads"}
    net = make_network() if "threads" in changes else nn.Sequential(make_network(), Slow())
    return make_trainer(net, make_dataset(train=320), settings=settings)


def tried(monkeypatch: pytest.MonkeyPatch, *changes: Mapping[str, Any]) -> settings_tuner.TuningResult:
    monkeypatch.setattr(settings_tuner, "list_candidates", lambda trainer: [TuningCandidate(each) for each in changes])
    return tune_settings(make)


def test_keeps_the_faster_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = tried(monkeypatch, {"channels_last": True}, {"threads": 1})
    assert tuned.changes == {"threads": 1}
    lines = [line.split() for line in tuned.table.splitlines()]
    assert lines[0][:4] == ["trainer.tune", "tried", "on", "cpu,"]
    assert lines[-1][0] == "threads=1" and lines[-1][-1] == "kept"
    assert lines[-2][0] == "channels_last=true" and lines[-2][-1] != "kept"


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"clip_grad_value": 1e-9, "threads": 1}, "different losses"),
        ({"allocator": "keep"}, "failed: no such"),
        ({"num_workers": 1}, None),
    ],
    ids=str,
)
def test_leaves_out(changes: Mapping[str, Any], verdict: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = tried(monkeypatch, changes)
    assert tuned.changes == {}
    if verdict is None:
        assert "num_workers" not in tuned.table
    else:
        assert tuned.table.endswith(verdict)


def test_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_tuner, "MAX_TUNING_SECONDS", 0.0)
    tuned = tried(monkeypatch, {"threads": 1})
    assert (tuned.changes, tuned.table.endswith("no time left")) == ({}, True)


def test_dropout_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code draws other numbers; here so does another number of draws before."""

    def random(changes: Mapping[str, Any]) -> Trainer:
        return make_trainer(
            nn.Sequential(Draws(1 if changes else 0), make_network(), nn.Dropout(0.5)), make_dataset(train=320)
        )

    monkeypatch.setattr(settings_tuner, "list_candidates", lambda trainer: [TuningCandidate({"threads": 1})])
    assert "different losses" not in tune_settings(random).table


def test_what_can_not_be_trained_is_left_to_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = tune_settings(lambda changes: make_trainer(nn.Linear(5, 3)))
    assert tuned.changes == {}
    assert tuned.table.startswith("trainer.tune: training failed, nothing was tried: mat1 and mat2 shapes")
    empty = tune_settings(lambda changes: make_trainer(data=make_dataset(train=0)))
    assert empty.changes == {}


def test_candidates_are_what_the_spec_leaves_open() -> None:
    def keys(**settings: Any) -> set[str]:
        return {key for each in list_candidates(make_trainer(settings=settings)) for key in each.changes}

    assert {"allocator", "num_workers", "compile"} <= keys()
    assert "channels_last" not in keys()
    assert "precision" not in keys(tune=True) and "precision" in keys(tune="precision")
    assert not keys(allocator="default", num_workers=1, compile="model", threads=1)
    net = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 1), nn.Flatten(), nn.Linear(12, 3))
    training = make_trainer(net)
    assert {"channels_last": True} not in [each.changes for each in list_candidates(training)]
    training.state.device = torch.device("cuda")
    assert {"channels_last": True} in [each.changes for each in list_candidates(training)]


def test_the_run_has_what_was_chosen(work: Path, dlspec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_tuner, "list_candidates", lambda trainer: [TuningCandidate({"num_workers": 1})])
    monkeypatch.setattr(settings_tuner, "MIN_SPEEDUP", 0.0)
    monkeypatch.setattr(settings_tuner, "MIN_SPEEDUP_PER_TURN", 0.0)
    words = ["model=linear", "trainer.epochs=1", "trainer.limit_batches=5", *QUIET]
    said = dlspec(*words, "trainer.tune=true", "hydra.run.dir=tuned")
    assert said.code == 0
    assert "num_workers=1" in said.err and "kept" in said.err
    assert "num_workers=1" in (work / "tuned/log.txt").read_text()
    saved = yaml.safe_load((work / "tuned/spec.yaml").read_text())["trainer"]
    assert (saved["tune"], saved["num_workers"]) == (False, 1)
    assert dlspec(*words, "trainer.num_workers=1", "hydra.run.dir=written").code == 0
    for name in ("metrics.jsonl", "checkpoints/last.safetensors"):
        assert (work / "tuned" / name).read_bytes() == (work / "written" / name).read_bytes()


def test_a_short_run_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = tried(monkeypatch, {"compile": "step"})
    assert tuned.changes == {}
    assert "compile=step" in tuned.table and "the run is too short" in tuned.table
