"""Weights of classes that PyTorch takes without an error, or refuses with a message about something else."""

from __future__ import annotations

from typing import Any

import pytest

import dlspec
from dlspec.errors import Code, SpecError

MODELS = {  # loss: the layers before it, and the number of classes
    "CrossEntropyLoss": ([{"Linear": 3}], 3),
    "NLLLoss": ([{"Linear": 3}, "LogSoftmax"], 3),
    "MultiMarginLoss": ([{"Linear": 3}], 3),
    "BCEWithLogitsLoss": ([{"Linear": 1}], 2),
    "BCELoss": ([{"Linear": 1}, "Sigmoid"], 2),
}


def train(loss: str, setting: str, weights: Any) -> None:
    layers, classes = MODELS[loss]
    spec = {"model": {"layers": layers}, "loss": {"type": loss, setting: weights}, "trainer": {"max_steps": 1}}
    dlspec.train(spec, data={"type": "random", "shape": [6], "num_classes": classes})


@pytest.mark.parametrize(
    ("loss", "setting", "weights", "found"),
    [
        ("CrossEntropyLoss", "weight", [1, 2],
         "'weight' must have 3 numbers, one for each class of 'label', got [1.0, 2.0]"),
        ("NLLLoss", "weight", [1, 2, 3, 4], "'weight' must have 3 numbers, one for each class of 'label'"),
        ("MultiMarginLoss", "weight", [1], "'weight' must have 3 numbers, one for each class of 'label'"),
        ("BCEWithLogitsLoss", "pos_weight", [1, 2],
         "'pos_weight' must have 1 number, one for each output, got [1.0, 2.0]"),
        ("BCELoss", "weight", [1, 2, 3], "'weight' must have 1 number, one for each output"),
        ("CrossEntropyLoss", "weight", [1, -1, 1],
         "'weight' must be a list of finite numbers >= 0, got [1.0, -1.0, 1.0]"),
        ("MultiMarginLoss", "weight", [1, float("nan"), 1], "'weight' must be a list of finite numbers >= 0"),
        ("BCEWithLogitsLoss", "pos_weight", [-0.5], "'pos_weight' must be a list of finite numbers >= 0"),
        ("BCEWithLogitsLoss", "pos_weight", [float("inf")], "'pos_weight' must be a list of finite numbers >= 0"),
        ("CrossEntropyLoss", "weight", [0, 0, 0], "'weight' must have a number above 0"),
        ("BCELoss", "weight", [0], "'weight' must have a number above 0"),
    ],
)  # fmt: skip
def test_weights_that_are_refused(loss: str, setting: str, weights: list[float], found: str) -> None:
    with pytest.raises(SpecError) as caught:
        train(loss, setting, weights)
    (problem,) = caught.value.problems
    assert (problem.code, problem.path) == (Code.WRONG_VALUE, f"loss.{setting}")
    assert found in problem.found


@pytest.mark.parametrize(
    ("loss", "setting", "weights"),
    [("CrossEntropyLoss", "weight", [0, 1, 2]), ("BCEWithLogitsLoss", "pos_weight", [2.5]), ("BCELoss", "weight", [3])],
)
def test_weights_that_are_used(loss: str, setting: str, weights: list[float]) -> None:
    train(loss, setting, weights)
