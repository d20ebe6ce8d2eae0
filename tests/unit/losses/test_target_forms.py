"""The forms of a target that PyTorch and Keras users have: class names, one-hot rows, class probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import LabelEncoder
from torch import Tensor
from torch.nn import functional

import dlspec
from dlspec.data.arrays import dataset_from_arrays
from dlspec.errors import DataError, SpecError

CLASSES = np.random.default_rng(0).integers(0, 3, 60)
X = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32)
QUIET = {"epochs": 1, "progress": "none"}


def train(target: Any, **spec: Any) -> dlspec.Result:
    spec = {"layers": [{"Linear": "${data.num_outputs}"}], "trainer": QUIET, **spec}
    return dlspec.train(spec, {"x": X, "target": target})


# ---- class names -------------------------------------------------------------------------------------------------

NAMES = np.array(["cat", "dog", "ox"])[CLASSES]


@pytest.mark.parametrize("names", [NAMES, NAMES.tolist(), NAMES.astype(object), NAMES.astype(bytes)])
def test_class_names_are_numbered_as_scikit_learn_does_and_kept(names: Any) -> None:
    data = dataset_from_arrays({"x": X, "target": names}, validation=0.0, test=0.0)
    assert data.target.classes == ("cat", "dog", "ox")
    plain = dataset_from_arrays({"x": X, "target": LabelEncoder().fit_transform(NAMES)}, validation=0.0, test=0.0)
    assert torch.equal(data.train.target, plain.train.target)


def test_names_of_steps_are_classes_of_steps() -> None:
    tags = np.array(["B", "I", "O"])[np.arange(60 * 5).reshape(60, 5) % 3]
    steps = np.random.default_rng(0).normal(size=(60, 5, 4)).astype(np.float32)
    data = dataset_from_arrays({"x": steps, "target": tags}, validation=0.0, test=0.0)
    assert (data.target.shape, data.target.classes) == ((5,), ("B", "I", "O"))


def test_the_positive_of_two_names_is_that_of_a_table() -> None:
    answers = np.array(["yes", "no"])[np.arange(60) % 2]
    assert dataset_from_arrays({"x": X, "target": answers}).target.classes == ("no", "yes")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (np.array(["a", "", "b"])[CLASSES], "'target' has an empty class name in row"),
        (np.array(["a", 1, "b"], object)[CLASSES], "'target' must contain numbers, or only class names, got 1"),
    ],
)
def test_other_texts_are_refused(target: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        dataset_from_arrays({"x": X, "target": target})


# ---- one-hot rows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_one_hot_rows_are_classes_and_that_is_said(kind: Any) -> None:
    data = dataset_from_arrays({"x": X, "target": np.eye(3, dtype=kind)[CLASSES]})
    assert data.target.classes == ("0", "1", "2")
    assert "'target' is one-hot" in data.notes[0]
    plain = dataset_from_arrays({"x": X, "target": CLASSES})
    for mine, theirs in zip((data.train, data.test), (plain.train, plain.test), strict=True):
        assert torch.equal(mine.target, theirs.target)


def test_a_class_of_each_step_is_not_one_hot() -> None:
    steps = np.random.default_rng(0).normal(size=(60, 3, 4)).astype(np.float32)
    data = dataset_from_arrays({"x": steps, "target": np.eye(3, dtype=int)[CLASSES]})
    assert data.target.shape == (3,)


def test_labels_with_one_each_stay_labels() -> None:
    data = dataset_from_arrays({"x": X, "target": np.eye(3, dtype=int)[CLASSES]}, labels="target")
    assert data.target.labels == ("0", "1", "2")


# ---- probabilities -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.2}, {"weight": [1.0, 2.0, 0.5]}])
@pytest.mark.parametrize("shape", [(), (6,), (4, 5)])
def test_probabilities_are_compared_as_pytorch_does(settings: dict[str, Any], shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, *shape, generator=generator)
    target = torch.randn(50, 3, *shape, generator=generator).softmax(1)
    layer: dict[str, Any] = {"Linear": 3}
    if shape:
        layer = {f"Conv{len(shape)}d": {"out_channels": 3, "kernel_size": 1}}
    first = {"Identity": {"layout": "channels-first"}} if shape else "Tanh"
    spec = {"layers": [first, layer], "loss": {"type": "CrossEntropyLoss", **settings}}
    trained = dlspec.train(
        {**spec, "trainer": {**QUIET, "eval_batch_size": 3}, "data": {"validation": 0.0, "test": 0.3}},
        {"x": x, "target": target},
    )
    data = dataset_from_arrays({"x": x, "target": target}, validation=0.0, test=0.3)
    weight = torch.tensor(settings["weight"]) if "weight" in settings else None
    smoothing = settings.get("label_smoothing", 0.0)
    with torch.no_grad():
        output: Tensor = trained.network.eval()(data.test.tensors["x"])
    wanted = functional.cross_entropy(output, data.test.target, weight, label_smoothing=smoothing)
    assert trained.results["test/loss"] == pytest.approx(wanted.item(), rel=1e-5)


def test_one_hot_floats_train_as_the_same_classes() -> None:
    floats, classes = (
        train(target, loss="CrossEntropyLoss", data={"validation": 0.0, "test": 0.0})
        for target in (np.eye(3, dtype=np.float32)[CLASSES], CLASSES)
    )
    assert floats.results["train/loss"] == pytest.approx(classes.results["train/loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (
            np.random.default_rng(0).random((60, 3), np.float32),
            "probabilities that sum to 1, but those of 'target' sum",
        ),
        (np.array([[2.0, -1.0, 0.0]], np.float32).repeat(60, 0), "its smallest number is -1"),
        (np.random.default_rng(0).random(60, np.float32), "expects classes, but 'target' is a number"),
        (np.eye(3, dtype=bool)[CLASSES], "expects classes, but 'target' has 3 labels"),
    ],
)
def test_other_numbers_are_no_probabilities(target: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        train(target, loss="CrossEntropyLoss")
