"""`trainer.batch_size=auto`: what is found fits, and the run is as if the number had been written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from dlspec.data.batches.batch_loader import BatchLoader, BatchPlan
from dlspec.jobs import job, job_setup
from dlspec.training.tuning import batch_size_finder
from dlspec.training.tuning.batch_size_finder import find_batch_size
from helpers.command_line import QUIET
from helpers.interrupted_runs import StopAfterBatches
from helpers.memory_layers import MemoryHungryLayer
from helpers.toy_training import make_dataset, make_network, make_text_split, make_trainer

FITS_ALWAYS = 10**6


@pytest.fixture(autouse=True)
def _whatever_the_machine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every size is tried, however long it takes and whatever else is in memory."""
    monkeypatch.setattr(batch_size_finder, "MIN_SPEEDUP", 0.0)
    monkeypatch.setattr(batch_size_finder, "MAX_SEARCH_SECONDS", 1e9)
    monkeypatch.setattr(batch_size_finder, "SECONDS_PER_SIZE", 0.0)
    monkeypatch.setattr(batch_size_finder, "MAX_FREE_MEMORY_FRACTION", 1e9)


@pytest.mark.parametrize(
    ("samples", "most", "size", "why"),
    [
        (700, FITS_ALWAYS, 32, "with a larger size an epoch has < 20 batches"),
        (90_000, FITS_ALWAYS, 4096, "larger sizes are not tried"),
        (100, FITS_ALWAYS, 8, "with a larger size an epoch has < 20 batches"),
        (5, FITS_ALWAYS, 5, "with a larger size an epoch has < 20 batches"),
        (10_000, 100, 64, "128 does not fit into memory"),
        (700, 5, 4, "8 does not fit into memory"),
        pytest.param(700, 0, 1, "8 does not fit into memory", marks=pytest.mark.soak),
    ],
)
def test_finds_the_largest_that_fits(samples: int, most: int, size: int, why: str) -> None:
    training = make_trainer(nn.Sequential(make_network(), MemoryHungryLayer(most)), make_dataset(train=samples))
    found = find_batch_size(training)
    assert (found.batch_size, found.explanation) == (size, f"trainer.batch_size: auto chose {size}, because {why}")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("MIN_SPEEDUP", 1e9, "16 is not faster"),
        ("MAX_SEARCH_SECONDS", -1.0, "trying larger sizes would take too long"),
        ("MAX_FREE_MEMORY_FRACTION", -1.0, "8 leaves too little free memory"),
    ],
)
def test_stops_early(name: str, value: float, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size_finder, name, value)
    found = find_batch_size(make_trainer(data=make_dataset(train=1000)))
    assert found.explanation == f"trainer.batch_size: auto chose 8, because {why}"


def test_other_errors_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        find_batch_size(make_trainer(nn.Linear(5, 3)))


def test_the_longest_samples_are_tried() -> None:
    batches = BatchLoader(make_text_split(), ("text", "text_lengths"), ("label",), BatchPlan(2), torch.device("cpu"))
    (text, lengths), _ = batches.make_longest_batch(3)
    assert lengths.tolist() == sorted(make_text_split().tensors["text_lengths"].tolist())[:-4:-1]
    assert text.shape == (3, lengths.max())


MODEL = """
layers:
  - Flatten
  - Linear: 16
  - BatchNorm1d
  - ReLU
  - Dropout: 0.3
  - Linear: 10
"""


def test_the_run_is_that_of_the_number(work: Path, dlspec, write) -> None:
    write("conf/model/small.yaml", MODEL)
    words = ["model=small", "trainer.epochs=2", "scheduler=OneCycleLR", "scheduler.max_lr=1e-2", *QUIET]
    said = dlspec(*words, "trainer.batch_size=auto", "hydra.run.dir=auto")
    assert said.code == 0
    assert said.err == "trainer.batch_size: auto chose 32, because with a larger size an epoch has < 20 batches\n"
    assert "trainer.batch_size: auto chose 32" in (work / "auto/log.txt").read_text()
    assert yaml.safe_load((work / "auto/spec.yaml").read_text())["trainer"]["batch_size"] == 32
    assert dlspec(*words, "trainer.batch_size=32", "hydra.run.dir=number").code == 0
    for name in ("metrics.jsonl", "checkpoints/last.safetensors"):
        assert (work / "auto" / name).read_bytes() == (work / "number" / name).read_bytes()
    assert "is finished" in dlspec("resume", "run=auto").err


@pytest.mark.soak
def test_a_job_that_goes_on_keeps_what_was_found(work: Path, dlspec, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["-m", "hydra/launcher=dlspec", "hydra.sweep.dir=sweep", "model=linear", "trainer.batch_size=auto"]
    words += ["seed=1", "trainer.epochs=2", "trainer.limit_batches=20", "trainer.progress=none", *QUIET]
    usual = job.make_default_callbacks
    monkeypatch.setattr(job, "make_default_callbacks", lambda *args: [*usual(*args), StopAfterBatches(25)])
    assert dlspec(*words).code != 0
    monkeypatch.setattr(job, "make_default_callbacks", usual)
    monkeypatch.setattr(job_setup, "find_batch_size", None)
    said = dlspec(*words)
    assert said.out.endswith("1 job: 1 finished\n")
    assert yaml.safe_load((work / "sweep/0/spec.yaml").read_text())["trainer"]["batch_size"] == 32


def test_a_summary_takes_the_default(dlspec) -> None:
    assert "a training step of 32 samples" in dlspec("summary", "model=mlp", "trainer.batch_size=auto").out
