"""`loss.weight=balanced` and `trainer.sampling=balanced`: weights of classes from the training rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from dlspec.data.arrays import dataset_from_arrays
from dlspec.data.dataset import Dataset
from dlspec.errors import Code, SpecError
from dlspec.jobs.job_setup import make_job
from dlspec.jobs.python_spec import prepare_spec

ROWS = 200


def make_data(target: Any) -> Dataset:
    x = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    return dataset_from_arrays({"x": x, "target": target})


THREE = np.array([0] * 140 + [1] * 40 + [2] * 20)
TWO = (np.arange(ROWS) % 10 == 0).astype(np.int64)
LABELS = np.random.default_rng(1).random((ROWS, 3)) < np.array([0.5, 0.2, 0.1])


def read_loss(data: Dataset, outputs: int, loss: Any) -> dict[str, Any]:
    found: dict[str, Any] = (
        prepare_spec({"layers": [{"Linear": outputs}], "loss": loss}, data).prepare().resolved["loss"]
    )
    return found


@pytest.mark.parametrize("loss", [{"type": "auto", "weight": "balanced"}, {"CrossEntropyLoss": {"weight": "balanced"}}])
def test_weights_are_those_of_scikit_learn(loss: Any) -> None:
    data = make_data(THREE)
    found = read_loss(data, 3, loss)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=data.train.target.numpy())
    assert found["type"] == "CrossEntropyLoss" and found["weight"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("key", ["weight", "pos_weight"])
def test_of_two_classes_the_second_is_weighted(key: str) -> None:
    data = make_data(TWO)
    counts = torch.bincount(data.train.target).tolist()
    found = read_loss(data, 1, {"type": "auto", key: "balanced"})
    assert found["pos_weight"] == pytest.approx([counts[0] / counts[1]], rel=1e-5)


@pytest.mark.parametrize("key", ["weight", "pos_weight"])
def test_null_is_not_balanced(key: str) -> None:
    data = make_data(TWO)
    assert read_loss(data, 1, {"type": "auto", key: None}) == read_loss(data, 1, {"type": "auto"})


def test_each_label_is_weighted() -> None:
    data = make_data(LABELS)
    positive = data.train.target.sum(0)
    found = read_loss(data, 3, {"type": "BCEWithLogitsLoss", "pos_weight": "balanced"})
    assert found["pos_weight"] == pytest.approx(((len(data.train) - positive) / positive).tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("target", "outputs", "loss"),
    [
        (np.random.default_rng(0).normal(size=ROWS).astype(np.float32), 1, {"type": "auto", "weight": "balanced"}),
        (THREE, 3, {"type": "auto", "pos_weight": "balanced"}),
        (THREE, 3, {"type": "MSELoss", "weight": "balanced"}),
        (TWO, 1, {"type": "SoftMarginLoss", "weight": "balanced"}),
    ],
    ids=["numbers", "pos_weight of three classes", "MSELoss", "SoftMarginLoss"],
)
def test_losses_that_cannot_be_balanced(target: Any, outputs: int, loss: Any) -> None:
    with pytest.raises(SpecError) as error:
        read_loss(make_data(target), outputs, loss)
    (problem,) = error.value.problems
    assert problem.code is Code.UNSUPPORTED and problem.path.startswith("loss")


@pytest.mark.parametrize("place", ["loss", "model"])
def test_each_of_several_losses_is_balanced_by_its_own_target(place: str) -> None:
    x = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    data = dataset_from_arrays({"x": x, "target": {"size": THREE, "rare": TWO, "labels": LABELS}})
    losses = {
        "size": {"CrossEntropyLoss": {"weight": "balanced", "output": "size", "target": "size"}},
        "rare": {"type": "BCEWithLogitsLoss", "pos_weight": "balanced", "output": "rare", "target": "rare"},
        "labels": {"type": "BCEWithLogitsLoss", "output": "labels", "target": "labels"},
    }
    layers = [{"Linear": 4, "name": "hidden"}, *({"Linear": size, "from": "hidden", "name": name}
              for name, size in (("size", 3), ("rare", 1), ("labels", 3)))]  # fmt: skip
    model = {"layers": layers, "outputs": ["size", "rare", "labels"]}
    spec = {"model": {**model, "loss": losses}} if place == "model" else {**model, "loss": losses}
    found = prepare_spec(spec, data).prepare().resolved["loss"]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=data.train.targets["size"].numpy())
    counts = torch.bincount(data.train.targets["rare"]).tolist()
    assert found["size"]["weight"] == pytest.approx(expected, rel=1e-5)
    assert found["rare"]["pos_weight"] == pytest.approx([counts[0] / counts[1]], rel=1e-5)
    assert found["labels"]["pos_weight"] is None


def test_the_message_names_the_loss_that_cannot_be_balanced() -> None:
    losses = {
        "main": {"type": "CrossEntropyLoss", "weight": "balanced"},
        "other": {"type": "MultiMarginLoss", "weight": "balanced"},
    }
    with pytest.raises(SpecError) as error:
        read_loss(make_data(THREE), 3, losses)
    assert [each.path for each in error.value.problems] == ["loss.other.weight"]


def test_sampling_draws_each_class_equally_often() -> None:
    trainer = {"epochs": 1, "checkpoints": False, "progress": "none", "sampling": "balanced", "device": "cpu"}
    job = make_job(
        prepare_spec({"layers": [{"Linear": 3}], "trainer": trainer}, make_data(THREE)), shows_progress=False
    )
    batches = job.trainer.batches.make_training_batches()
    drawn = torch.cat([targets[0] for _, targets in batches.iterate_shuffled(0, 1)])
    assert sorted(torch.bincount(drawn).tolist()) == [46, 47, 47]
    assert "test/accuracy" in job.run().test


def test_sampling_without_classes_is_refused() -> None:
    numbers = np.random.default_rng(0).normal(size=ROWS).astype(np.float32)
    with pytest.raises(SpecError) as error:
        prepare_spec({"layers": [{"Linear": 1}], "trainer": {"sampling": "balanced"}}, make_data(numbers)).prepare()
    assert [each.path for each in error.value.problems] == ["trainer.sampling"]
