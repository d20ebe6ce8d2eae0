"""Results by the values of a column, and the worst errors of a pass."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dlspec.data.tables.table import TEXT
from dlspec.inference.evaluation.bootstrap import Interval
from dlspec.inference.evaluation.group_results import MISSING, OTHER, evaluate_groups, find_groups
from dlspec.inference.evaluation.worst_errors import WorstErrors


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
