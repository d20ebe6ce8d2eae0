"""A job's hash: what older versions wrote is recognized, and a setting that was added makes no other job of it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dlspec.config.composition import start_hydra
from dlspec.jobs import job_hash as job_identity
from dlspec.jobs import trainer_reading
from dlspec.jobs.added_settings import ADDED_SETTINGS, AddedSetting, drop_added_defaults
from dlspec.jobs.composed_spec import compose_or_raise, make_preparation
from dlspec.jobs.job_hash import compute_job_hash
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.sweeps.hydra.plugins import register

RUNS = Path(__file__).parents[2] / "fixtures" / "version_0_1_0" / "runs.tar.gz"


class LaterTrainer(TrainerSpec):
    """The settings of a later version's trainer."""

    label_noise: float = 0.0


@pytest.fixture
def recorded(work: Path) -> list[dict[str, Any]]:
    """The jobs of a sweep that version 0.1.0 began."""
    with tarfile.open(RUNS) as archive:
        archive.extractall(work, filter="data")
    jobs: list[dict[str, Any]] = json.loads((work / "sweep/sweep.json").read_text())["jobs"]
    return jobs


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer has one more setting, which the table names."""
    monkeypatch.setattr(trainer_reading, "TrainerSpec", LaterTrainer)
    added = (*ADDED_SETTINGS, AddedSetting("trainer.label_noise", 0.0, "0.2.0"))
    monkeypatch.setattr(job_identity, "ADDED_SETTINGS", added)


def hash_of(overrides: Sequence[str]) -> str:
    register()
    return compute_job_hash(make_preparation(compose_or_raise(overrides, start_hydra())).read())


def test_the_jobs_of_version_0_1_0_are_recognized(recorded: list[dict[str, Any]]) -> None:
    assert [hash_of(job["overrides"]) for job in recorded] == [job["hash"] for job in recorded]


def test_jobs_with_other_warmups_are_other_jobs(work: Path) -> None:
    words = ["model=linear", "scheduler=StepLR", "scheduler.step_size=1"]
    found = [hash_of([*words, *more]) for more in ((), ("scheduler.warmup=5",), ("scheduler.warmup=50",))]
    assert len(set(found)) == 3


def test_a_setting_that_was_added_makes_no_other_job(recorded: list[dict[str, Any]], later: None) -> None:
    overrides, hash_ = recorded[0]["overrides"], recorded[0]["hash"]
    assert hash_of(overrides) == hash_of([*overrides, "+trainer.label_noise=0.0"]) == hash_
    assert hash_of([*overrides, "+trainer.label_noise=0.1"]) != hash_


def test_no_old_sweep_trains_again_for_a_setting_that_was_added(
    recorded: list[dict[str, Any]], later: None, work: Path, dlspec
) -> None:
    done = [work / f"sweep/{job}/metrics.jsonl" for job in (0, 1)]
    before = [path.stat().st_mtime_ns for path in done]
    said = dlspec("resume", "sweep=sweep")
    assert said.code == 0, said.err
    assert said.out.startswith("2 of 4 jobs are done already\n")
    assert [path.stat().st_mtime_ns for path in done] == before


@pytest.mark.parametrize(
    ("key", "default", "tree", "left"),
    [
        ("a", None, {"a": None, "b": None}, {"b": None}),
        ("a", 1, {"a": True, "b": {"a": 1}}, {"a": True, "b": {"a": 1}}),
        ("data.scale", (1, 2), {"data": {"scale": [1, 2], "size": 3}}, {"data": {"size": 3}}),
        ("m.*.bias", True, {"m": [{"bias": True}, {"bias": False}]}, {"m": [{}, {"bias": False}]}),
        ("m.**.n", 0, {"n": 0, "m": {"n": 0, "a": [{"n": 0, "b": {"n": 0}}]}}, {"n": 0, "m": {"a": [{"b": {}}]}}),
        ("m.**.A.n", 0, {"m": [{"A": {"n": 0}}, {"B": {"n": 0}}]}, {"m": [{"A": {}}, {"B": {"n": 0}}]}),
        ("a.b", 0, {"a": "b", "c": {"a": {"b": 0}}}, {"a": "b", "c": {"a": {"b": 0}}}),
    ],
)
def test_settings_are_left_out_at_their_defaults_alone(key: str, default: Any, tree: Any, left: Any) -> None:
    assert drop_added_defaults(tree, [AddedSetting(key, default, "0.2.0")]) == left
