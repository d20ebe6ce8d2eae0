"""A large seeded table of 20 columns as CSV and Parquet, and what pandas and scikit-learn make of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

TARGET = "churned"
DATES = ("joined", "paid")
CIRCLES = {"month": 12, "day": 31, "day_of_week": 7}


def make_large_table(rows: int, seed: int = 0) -> pd.DataFrame:
    """Make 7 columns of decimals, two with gaps, 4 of integers, 6 of categories, 2 of dates, and a target."""
    import pandas as pd

    draw, columns = np.random.default_rng(seed), {}
    for number in range(7):
        values = pd.Series(draw.normal(100 * number, 10, rows).round(3))
        columns[f"amount {number}"] = values.mask(draw.random(rows) < (0.05 if number < 2 else 0))
    for number in range(4):
        columns[f"count {number}"] = draw.integers(0, 200 + 1_000 * number, rows)
    for number, count in enumerate((2, 3, 8, 12, 20, 50)):
        columns[f"group {number}"] = np.array([f"value {value}" for value in range(count)])[
            draw.integers(0, count, rows)
        ]
    for name in DATES:
        days = pd.Timestamp("2019-01-01") + pd.to_timedelta(draw.integers(0, 1_800, rows), unit="D")
        columns[name] = days.strftime("%Y-%m-%d")
    columns[TARGET] = np.where(draw.random(rows) < 0.3, "yes", "no")
    return pd.DataFrame(columns)


def prepare_by_sklearn(path: Path) -> Tensor:
    """Read a file by pandas, prepare it as dlspec does by scikit-learn, and return the first training batch.

    Gaps are filled and marked, numbers standardized, categories one-hot, dates their parts on circles. All three splits
    are made, stratified, and become float32 tensors.
    """
    import pandas as pd
    import torch
    from sklearn.model_selection import train_test_split

    table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    classes = (table.pop(TARGET) == "yes").to_numpy(np.float32)
    table = _split_dates(table)
    rest, test = train_test_split(np.arange(len(table)), test_size=0.2, stratify=classes, random_state=0)
    train, validation = train_test_split(rest, test_size=0.125, stratify=classes[rest], random_state=0)
    prepared = _make_preparation(table).fit(table.iloc[train])
    splits = [torch.from_numpy(prepared.transform(table.iloc[rows]).astype(np.float32, copy=False))
              for rows in (train, validation, test)]  # fmt: skip
    return splits[0][torch.randperm(len(train))[:32]]


def _split_dates(table: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    for name in DATES:
        days = pd.to_datetime(table.pop(name)).dt
        table[f"{name} year"] = days.year
        for part, period in CIRCLES.items():
            angle = getattr(days, part) * (2 * np.pi / period)
            table[f"{name} {part} sin"], table[f"{name} {part} cos"] = np.sin(angle), np.cos(angle)
    return table


def _make_preparation(table: pd.DataFrame) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    categories = [name for name in table if name.startswith("group")]
    numbers = [name for name in table if name not in categories]
    scaled = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
    return make_column_transformer((scaled, numbers), (encoder, categories))
