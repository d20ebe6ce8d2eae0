"""The description of a data set is read back as it was, and whatever a stranger writes in it is refused."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from dlspec.data.encoding.dataset_columns import make_fitted_table
from dlspec.data.encoding.saved_dataset import make_saved_preparation, read_saved_dataset
from dlspec.data.sources import SOURCES, open_data
from dlspec.errors import DataError

VALUES = [None, 1, -1, 0, 1e300, "x", "", [], {}, [1, 2], [{}], True, 2**40, "\ud800", float("nan")]


def save(name: str, **settings: Any) -> Any:
    return json.loads(json.dumps(make_saved_preparation(open_data(SOURCES[name](**settings)))))


@pytest.mark.parametrize("name", ["digits", "diabetes", "breast_cancer", "random"])
def test_fields_targets_and_facts_are_read_back(name: str) -> None:
    data = open_data(SOURCES[name]())
    found = read_saved_dataset(save(name))
    assert found is not None and found.is_described
    assert (found.fields, found.targets, found.facts) == (data.fields, data.targets, data.facts)
    assert {key: each.dtype for key, each in found.train.tensors.items()} == {
        key: each.dtype for key, each in data.train.tensors.items()
    }


def list_paths(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, each in pairs:
        yield from list_paths(each, (*path, key))


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_a_changed_description_is_read_or_refused(name: str) -> None:
    saved, draw, refused = save(name), random.Random(0), 0
    paths = list(list_paths(saved))
    for _ in range(300):
        changed, path = copy.deepcopy(saved), draw.choice(paths)
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = draw.choice(VALUES)
        try:
            found = read_saved_dataset(changed)
            assert found is None or (found.facts and make_fitted_table(found) is not None)
        except DataError:
            refused += 1
    assert refused > 100
