"""Rows that are scaled already, or in another unit, are noticed; ordinary rows are not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from dlspec.data.dataset import Dataset, Field, Split
from dlspec.data.encoding.dataset_columns import make_fitted_table
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.sources.source import SOURCES, open_data
from dlspec.data.sources.table_dataset import make_table_dataset
from dlspec.data.sources.table_rows import TableRows
from dlspec.data.sources.table_source import TableSource
from dlspec.data.tables.python_rows import table_from_python
from dlspec.inference.rows.value_ranges import NumberCheck, describe_unlike_numbers

Columns = Mapping[str, np.ndarray]
GENERATOR = np.random.default_rng(0)


def restore(data: Dataset) -> FittedTable:
    """What a run saves of its preparation, read again."""
    fitted = make_fitted_table(data)
    assert fitted is not None
    return FittedTable.from_json(fitted.to_json())


def list_frame(load: Callable[..., Any], **settings: Any) -> Columns:
    frame = load(as_frame=True, **settings).data
    return {name: frame[name].to_numpy() for name in frame}


def make_table() -> tuple[FittedTable, Columns]:
    """Columns of a customer: heavy tails, mostly zeros, a constant, whole numbers, years."""
    columns = {
        "income": GENERATOR.lognormal(10, 1, 600), "gain": GENERATOR.pareto(1, 600) * (GENERATOR.random(600) < 0.1),
        "version": np.full(600, 3.0), "children": GENERATOR.integers(0, 4, 600).astype(float),
        "year": np.sort(GENERATOR.integers(1990, 2025, 600)), "age": GENERATOR.normal(45, 15, 600).round(),
    }  # fmt: skip
    answers = np.where(columns["age"] > 45, "yes", "no")
    table = table_from_python({**columns, "churned": answers})
    return restore(make_table_dataset(TableSource(target="churned"), TableRows(table), "table")), columns


def make_images() -> tuple[FittedTable, Columns]:
    """Images from 0 to 1 that were given as arrays, which are used as they are."""
    images = (GENERATOR.random((300, 1, 8, 8)) * (GENERATOR.random((300, 1, 8, 8)) < 0.2)).astype(np.float32)
    split = Split({"x": torch.from_numpy(images)}, {})
    data = Dataset("arrays", (Field("x", (1, 8, 8), "channels-first"),), (), split, split, split)
    return restore(data), {"x": images}


CASES: dict[str, Callable[[], tuple[FittedTable, Columns]]] = {
    "digits": lambda: (restore(open_data(SOURCES["digits"]())), {"image": load_digits().images}),
    "tumours": lambda: (restore(open_data(SOURCES["breast_cancer"]())), list_frame(load_breast_cancer)),
    "patients": lambda: (restore(open_data(SOURCES["diabetes"]())), list_frame(load_diabetes, scaled=False)),
    "table": make_table,
    "images": make_images,
}


def choose_rows(columns: Columns) -> Iterator[Columns]:
    """Rows as files have them: single ones, neighbours, some at random, and sorted by a column."""
    count = len(next(iter(columns.values())))
    for size in (1, 2, 4, 5, 8, 20, 100):
        yield from ({name: each[start : start + size] for name, each in columns.items()} for start in (0, 100, 200))
        for name, column in list(columns.items())[:6]:
            order = np.argsort(column.reshape(count, -1).mean(1))
            rows = [order[:size], order[-size:], GENERATOR.choice(count, size)]
            yield from ({each: cells[part] for each, cells in columns.items()} for part in rows)
            assert name in columns


@pytest.mark.parametrize("case", CASES)
def test_ordinary_rows_cause_no_warning(case: str) -> None:
    fitted, columns = CASES[case]()
    assert [found for part in choose_rows(columns) if (found := describe_unlike_numbers(fitted, part))] == []
    assert describe_unlike_numbers(fitted, columns) is None


def standardize(columns: Columns) -> Columns:
    return {name: (each - each.mean()) / (each.std() or 1) for name, each in columns.items()}


def scale_to_unit(columns: Columns) -> Columns:
    return {name: (each - each.min()) / (np.ptp(each) or 1) for name, each in columns.items()}


def multiply(factor: float) -> Callable[[Columns], Columns]:
    return lambda columns: {name: each * factor for name, each in columns.items()}


@pytest.mark.parametrize(("case", "change"), [
    ("digits", multiply(1 / 16)), ("digits", multiply(16)), ("images", multiply(255)), ("tumours", standardize),
    ("tumours", scale_to_unit), ("tumours", multiply(100)), ("patients", standardize), ("patients", scale_to_unit),
])  # fmt: skip
def test_rows_of_another_scale_are_noticed(case: str, change: Callable[[Columns], Columns]) -> None:
    fitted, columns = CASES[case]()
    changed = change(columns)
    for size in (4, 50, 200):
        part = {name: each[:size] for name, each in changed.items()}
        found = describe_unlike_numbers(fitted, part)
        assert found is not None and "\n" not in found
    if case == "digits":
        most = columns["image"].max() * (1 / 16 if found.find(" 1,") > 0 else 16)
        assert found.startswith(f"the numbers of 'image' lie between 0 and {most:.4g}, ")
        assert "those of the training between 0 and 16; " in found


def test_a_warning_is_given_once(caplog: pytest.LogCaptureFixture) -> None:
    fitted, columns = CASES["digits"]()
    check = NumberCheck()
    with caplog.at_level(logging.WARNING):
        check.warn_once(fitted, columns)
        assert not caplog.records
        for _ in range(2):
            check.warn_once(fitted, {"image": columns["image"] / 16})
    assert len(caplog.records) == 1
