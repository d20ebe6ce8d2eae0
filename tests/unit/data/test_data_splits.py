"""Splits: what they promise, over generated data sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlspec.data.split_indices import SplitPlan, choose_proportionally, split_rows

CLASSES = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(
    lambda values: np.unique(values, return_inverse=True)[1]
)
SHARES = st.sampled_from([0.0, 0.1, 0.2, 0.45])


@settings(max_examples=200, deadline=None)
@given(CLASSES, st.integers(0, 9), SHARES, SHARES)
def test_every_row_is_in_one_part(classes: np.ndarray, seed: int, validation: float, test: float) -> None:
    parts = split_rows(len(classes), SplitPlan(seed, validation, test), classes)
    rows = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(rows.tolist()) == list(range(len(classes)))
    assert set(classes[parts.train]) == set(classes)
    assert (validation > 0 or len(parts.validation) == 0) and (test > 0 or len(parts.test) == 0)


@settings(max_examples=200, deadline=None)
@given(CLASSES, st.integers(0, 9), SHARES, SHARES)
def test_groups_are_not_torn(groups: np.ndarray, seed: int, validation: float, test: float) -> None:
    classes = np.arange(len(groups)) % 3
    parts = split_rows(len(groups), SplitPlan(seed, validation, test), classes, groups)
    found = [set(groups[rows].tolist()) for rows in (parts.train, parts.validation, parts.test)]
    assert found[0] and not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])
    assert found[0] | found[1] | found[2] == set(groups.tolist())


@pytest.mark.parametrize(("count", "sizes"), [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (8, (5, 1, 2))])
def test_tiny(count: int, sizes: tuple[int, int, int]) -> None:
    parts = split_rows(count, SplitPlan(0, 0.1, 0.2))
    assert (len(parts.train), len(parts.validation), len(parts.test)) == sizes


def test_proportions() -> None:
    classes = np.repeat([0, 1, 2], [700, 200, 100])
    parts = split_rows(1000, SplitPlan(0, 0.1, 0.2), classes)
    found = [np.bincount(classes[rows]).tolist() for rows in (parts.train, parts.validation, parts.test)]
    assert found == [[490, 140, 70], [70, 20, 10], [140, 40, 20]]


def test_every_class_trains() -> None:
    classes = np.array([0] * 20 + [1, 2, 3])
    parts = split_rows(23, SplitPlan(0, 0.2, 0.3), classes)
    assert set(classes[parts.train]) == {0, 1, 2, 3}
    assert (len(parts.validation), len(parts.test)) == (5, 7)


def test_the_test_part_does_not_depend_on_validation() -> None:
    one, two = (split_rows(100, SplitPlan(3, share, 0.2)) for share in (0.1, 0.5))
    assert one.test.tolist() == two.test.tolist()


def test_a_small_limit_is_part_of_a_large_one_and_proportional() -> None:
    classes = np.repeat([0, 1], [80, 20])
    train = split_rows(100, SplitPlan(0, 0.1, 0.2, limit=10), classes).train
    assert np.bincount(classes[train]).tolist() == [8, 2]
    assert set(train) <= set(split_rows(100, SplitPlan(0, 0.1, 0.2), classes).train)


def test_choose_is_seeded() -> None:
    classes = np.zeros(100, np.int64)
    one, same, other = (
        choose_proportionally(classes, 10, 0, np.random.default_rng(seed)).tolist() for seed in (0, 0, 1)
    )
    assert one == same != other


def test_a_group_counts_as_its_rarest_class() -> None:
    # Rows 0 and 1 are one group; class 1 stands nowhere else and so must train.
    classes, groups = np.array([0, 1] + [0] * 18), np.array([0, 0, *range(1, 19)])
    for seed in range(20):
        assert {0, 1} <= set(split_rows(20, SplitPlan(seed, 0.4, 0.4), classes, groups).train.tolist())
