"""Results by the values of a column, and the worst errors of a pass."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dlspec.data.dataset import Target
from dlspec.data.tables.table import TEXT
from dlspec.inference.evaluation.bootstrap import Interval
from dlspec.inference.evaluation.group_results import (
    MISSING,
    OTHER,
    describe_one_sided_groups,
    evaluate_groups,
    find_groups,
)
from dlspec.inference.evaluation.target_results import ClassResults, NumberResults, TargetRows
from dlspec.inference.evaluation.worst_errors import WorstErrors
from dlspec.plots.image_plots import make_class_colors


def test_groups_are_those_of_pandas() -> None:
    generator = np.random.default_rng(0)
    countries, errors = generator.choice(["DE", "FR", ""], 200, p=[0.7, 0.2, 0.1]).tolist(), generator.random(200)
    cells = np.array([each or None for each in countries], TEXT)
    found = evaluate_groups(cells, lambda rows: {"error": Interval(float(errors[rows].mean()))})
    expected = pd.Series(errors).groupby(countries).agg(["size", "mean"]).sort_values("size", ascending=False)
    assert [each.value for each in found] == expected.index.tolist()
    assert [each.rows for each in found] == expected["size"].tolist()
    assert [each.metrics["error"].value for each in found] == pytest.approx(expected["mean"].tolist())


def test_rare_groups_are_marked_and_the_rest_is_joined() -> None:
    cells = np.array(["a"] * 12 + ["b"] * 9 + ["c", "d"])
    groups = evaluate_groups(cells, lambda rows: {}, at_most=3)
    assert [(each.value, each.rows, each.is_rare, each.is_joined) for each in groups] == [
        ("a", 12, False, False), ("b", 9, True, False), (OTHER, 2, True, True)
    ]  # fmt: skip
    assert groups[2].to_json() == {"value": OTHER, "rows": 2, "rare": True, "metrics": {}, "joined": True}


def test_groups_of_numbers_and_lists() -> None:
    assert [value for value, _, _ in find_groups(np.array([1.5, np.nan, 1.5]))] == ["1.5", MISSING]
    lists = np.empty(2, object)
    lists[:] = [["a", "b"], None]
    assert [value for value, _, _ in find_groups(lists)] == ["a|b", MISSING]


def test_groups_without_a_positive_row_are_named() -> None:
    cells = np.array((["a", "b", "b", "c", None] * 10) + ["rare"], TEXT)
    target, truth = Target("label", "classes", (), ("ham", "spam")), np.array([0, 0, 1, 1, 0] * 10 + [0])
    lines = list(describe_one_sided_groups("size", cells, [target], {"label": truth}))
    assert lines == [
        "no row with size a, (missing) has the label spam: metrics such as f1_score are 0 there, and say nothing"
    ]
    assert not list(describe_one_sided_groups("size", cells, [target], {"label": np.ones(51, np.int64)}))


def test_the_worst_errors_are_kept_in_order() -> None:
    badness = np.random.default_rng(0).random(1000).round(2)
    badness[::3] = 0
    worst = WorstErrors(5)
    for start in range(0, 1000, 100):
        worst.add(badness[start : start + 100].tolist(), start, lambda index: {"index": index})
    expected = sorted(np.flatnonzero(badness).tolist(), key=lambda row: (-badness[row], row))[:5]
    assert [each.position for each in worst.list()] == expected
    assert [each.details["index"] for each in worst.list()] == [row % 100 for row in expected]


def test_samples_without_an_error_are_no_errors() -> None:
    worst = WorstErrors()
    worst.add([0.0, float("nan"), 0.5], 0, lambda index: {})
    assert [each.position for each in worst.list()] == [2]


def open_picture(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_errors_of_class_maps_have_both_maps() -> None:
    truth = torch.tensor([[0, 1, 2], [2, 1, 0]]).repeat(20, 12)  # (40, 36), not enlarged
    predicted = truth.clone()
    predicted[:4] = 1
    results = ClassResults(Target("mask", "classes", (40, 36), ("sky", "sea", "sand")))
    right = torch.nn.functional.one_hot(torch.stack([truth, predicted]).flatten(), 3).float()
    results.add(TargetRows([right, torch.cat([truth.flatten()] * 2)], np.array([1440, 1440]), 5))
    (error,) = results.errors.list()
    assert error.position == 6
    assert error.details["error"] == pytest.approx(float((truth != predicted).float().mean()))
    colors = (make_class_colors(3) * 255).round().numpy()
    assert np.array_equal(open_picture(error.details["truth"]), colors[truth.numpy()])
    assert np.array_equal(open_picture(error.details["prediction"]), colors[predicted.numpy()])


def test_errors_of_images_have_both_images() -> None:
    truth = torch.arange(2 * 40 * 36).reshape(2, 1, 40, 36) / 2880
    results = NumberResults(Target("image", "numbers", (1, 40, 36)), 2)
    predicted = truth * torch.tensor([1.0, 0.5])[:, None, None, None]
    results.add(TargetRows([predicted.flatten(), truth.flatten()], np.array([1440, 1440]), 0))
    (error,) = results.errors.list()
    assert np.array_equal(open_picture(error.details["truth"]), (truth[1, 0].double() * 255).round().numpy())
    assert np.array_equal(open_picture(error.details["prediction"]), (predicted[1, 0].double() * 255).round().numpy())
