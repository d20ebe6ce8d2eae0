"""A table as a file, and as a frame of pandas, polars or pyarrow: the same tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dlspec.data.dataset import Dataset
from dlspec.data.sources.table_source import TableSource
from dlspec.jobs.rows_in_python import make_table_of_rows

ROWS = 120


def make_frame() -> pd.DataFrame:
    draw = np.random.default_rng(3)
    days = pd.Timestamp("2022-01-31") + pd.to_timedelta(draw.integers(0, 700, ROWS), unit="D")
    return pd.DataFrame(
        {
            "amount": pd.Series(draw.normal(5, 2, ROWS).round(3)).mask(draw.random(ROWS) < 0.1),
            "count": draw.integers(0, 400, ROWS),
            "plan": pd.Series(draw.choice(["basic", "plus", "pro"], ROWS)).mask(draw.random(ROWS) < 0.1),
            "joined": days,
            "is_new": draw.random(ROWS) < 0.3,
            "churned": draw.choice(["no", "yes"], ROWS, p=[0.7, 0.3]),
        }
    )


def assert_same(found: Dataset, expected: Dataset) -> None:
    assert [field.name for field in found.fields] == [field.name for field in expected.fields]
    for split in ("train", "validation", "test"):
        ours, theirs = getattr(found, split), getattr(expected, split)
        for name, tensor in {**theirs.tensors, **theirs.targets}.items():
            assert torch.equal({**ours.tensors, **ours.targets}[name], tensor), (split, name)


@pytest.fixture(scope="module")
def from_csv(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("frames") / "rows.csv"
    frame = make_frame()
    frame.assign(is_new=frame.is_new.map({True: "true", False: "false"})).to_csv(path, index=False)
    return TableSource(path=str(path), target="churned").open()


def test_a_frame_of_pandas(from_csv: Dataset) -> None:
    assert_same(make_table_of_rows(make_frame(), {"target": "churned"}), from_csv)


def test_a_frame_of_polars(from_csv: Dataset) -> None:
    polars: Any = pytest.importorskip("polars")
    frame = polars.from_pandas(make_frame())
    assert_same(make_table_of_rows(frame, {"target": "churned"}), from_csv)


def test_a_table_of_pyarrow(from_csv: Dataset) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_pandas(make_frame(), preserve_index=False)
    assert_same(make_table_of_rows(table, {"target": "churned"}), from_csv)


def test_parquet_files_of_pandas_and_polars(from_csv: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    polars: Any = pytest.importorskip("polars")
    make_frame().to_parquet(tmp_path / "pandas.parquet")
    polars.from_pandas(make_frame()).write_parquet(tmp_path / "polars.parquet")
    for name in ("pandas", "polars"):
        assert_same(TableSource(path=str(tmp_path / f"{name}.parquet"), target="churned").open(), from_csv)
