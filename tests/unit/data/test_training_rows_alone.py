"""The preparation of sources does not change with the values of validation and test rows."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlspec.data.dataset import Dataset
from dlspec.data.sources import SOURCES, open_data, sklearn_datasets
from dlspec.data.sources.source import SplitSource


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes"])
def test_other_validation_and_test_values_leave_the_preparation_of_numbers_as_it_is(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = sklearn_datasets._read_table
    source = SOURCES[name]()
    assert isinstance(source, SplitSource)
    count = len(source.open().train) + len(source.open().validation) + len(source.open().test)
    labels = read("breast_cancer.csv", np.float64, delimiter=",", skiprows=1)[:, 30].astype(np.int64)
    training = source.parts(count, source.test, 1 - labels if name == "breast_cancer" else None).train
    others = np.setdiff1d(np.arange(count), training)

    def read_changed(*arguments: Any, **options: Any) -> Any:
        table = read(*arguments, **options).copy()
        numbers = table[:, :30] if name == "breast_cancer" else table
        numbers[others] = numbers[others] * 100 + 7
        return table

    expected = source.open()
    monkeypatch.setattr(sklearn_datasets, "_read_table", read_changed)
    changed = source.open()
    assert json.dumps(changed.preprocessing) == json.dumps(expected.preprocessing)
    assert not torch.equal(changed.test.tensors["features"], expected.test.tensors["features"])


def test_other_validation_and_test_texts_leave_the_vocabulary_as_it_is(tmp_path: Path) -> None:
    def open_texts(changed: Collection[int]) -> Dataset:
        rows = [f"word{row} {'new' if row in changed else 'old'},{'ab'[row % 2]}" for row in range(60)]
        (tmp_path / "in.csv").write_text("\n".join(["text,label", *rows]))
        return open_data(SOURCES["text_csv"](path=str(tmp_path / "in.csv")))

    expected = open_texts(())
    known = set(expected.preprocessing["text"]["words"])
    others = [row for row in range(60) if f"word{row}" not in known]
    assert len(others) == len(expected.validation) + len(expected.test)
    changed = open_texts(others)
    assert changed.preprocessing == expected.preprocessing
    assert not torch.equal(changed.test.tensors["text"], expected.test.tensors["text"])
