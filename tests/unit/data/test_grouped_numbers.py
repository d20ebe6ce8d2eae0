"""`number: {per: COLUMN}`: groups of rows are filled and scaled by themselves, compared with pandas."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from dlspec.data.dataset import Dataset
from dlspec.data.encoding.encoded_rows import encode_rows
from dlspec.data.encoding.fitted_table import FittedTable, check_columns
from dlspec.data.prepare.kinds import COLUMN_KINDS, fitted_from_json, read_kind
from dlspec.data.prepare.kinds.grouped_number import FittedGroupedNumber, fit_grouped_number
from dlspec.data.sources import SOURCES, open_data
from dlspec.errors import Code, DataError
from helpers.kind_table import text_column

SHOPS = ["a", "b", "a", None, "b", "c", "a", "b", "a", "d", None, "c"]
LOADS = [1.0, 50.0, 3.0, 4.0, None, 9.0, None, 90.0, 5.5, 7.0, None, None]
TRAINING = np.arange(9)  # c is in one row of them, d in none
FRAME = pd.DataFrame({"shop": SHOPS, "load": LOADS}).astype({"load": float})
CELLS = text_column(*(None if cell is None else f"{cell:g}" for cell in LOADS))
GROUPS = text_column(*SHOPS)


def fit(**settings: Any) -> FittedGroupedNumber:
    kind = read_kind({"number": {"per": "shop", **settings}}, COLUMN_KINDS, "")
    return fit_grouped_number(kind, CELLS, GROUPS, TRAINING, name="load")  # type: ignore[arg-type]


def compute_by_pandas(scale: str) -> NDArray[np.float64]:
    """Fill by the median of the group, then scale by the mean and deviation, or the range, of the group's rows."""
    training = FRAME.iloc[TRAINING]
    values = []
    for shop, load in zip(SHOPS, FRAME["load"], strict=True):
        group = training[training["shop"] == shop] if shop in ("a", "b") else training
        known = group["load"].fillna(group["load"].median())
        filled = group["load"].median() if np.isnan(load) else load
        shift, divisor = {"standard": (known.mean(), known.std(ddof=0)), "minmax": (known.min(), np.ptp(known))}[scale]
        values.append((filled - shift) / divisor)
    return np.array(values)


@pytest.mark.parametrize("scale", ["standard", "minmax"])
def test_each_group_is_filled_and_scaled_as_by_pandas(scale: str) -> None:
    found = fit(scale=scale).apply(CELLS, GROUPS)
    np.testing.assert_allclose(found.values[:, 0], compute_by_pandas(scale), rtol=1e-6)
    np.testing.assert_array_equal(found.values[:, 1], FRAME["load"].isna())
    assert found.notes == {"ungrouped": 5}


@pytest.mark.parametrize("scale", ["standard", "log", "minmax", "quantile"])
def test_one_group_is_what_a_number_of_its_rows_alone_is(scale: str) -> None:
    is_a = np.array([shop == "a" for shop in SHOPS])
    alone = read_kind({"number": {"scale": scale}}, COLUMN_KINDS, "")
    expected = alone.fit(CELLS[is_a], np.arange(4), name="load").apply(CELLS[is_a]).values
    np.testing.assert_array_equal(fit(scale=scale).apply(CELLS, GROUPS).values[is_a], expected)


@pytest.mark.parametrize("scale", ["standard", "log", "minmax", "quantile"])
@pytest.mark.parametrize("clip", [None, [2, 60]])
def test_saved_and_read_back_and_as_a_module(scale: str, clip: Any) -> None:
    fitted = fit(scale=scale, clip=clip)
    expected = fitted.apply(CELLS, GROUPS).values
    again = fitted_from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    assert isinstance(again, FittedGroupedNumber) and again.to_json() == fitted.to_json()
    np.testing.assert_array_equal(again.apply(CELLS, GROUPS).values, expected)
    module = fitted.module()
    np.testing.assert_allclose(module(torch.from_numpy(fitted.read(CELLS, GROUPS))).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("key", "value"), [("groups", ["a"]), ("whole", {"kind": "text"}), ("scales", 3), ("per", 3)])
def test_a_damaged_file_is_an_error(key: str, value: Any) -> None:
    with pytest.raises(DataError, match="saved preparation"):
        fitted_from_json({**fit().to_json(), key: value})


# ---- in a table ------------------------------------------------------------------------------------------------------


def make_rows() -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    return [
        {"shop": "ab"[row % 2], "load": float(generator.normal(100 if row % 2 else 0, 5)),
         "other": float(generator.normal()), "sold": "yes" if row % 3 else "no"}
        for row in range(60)
    ]  # fmt: skip


def write_csv(path: Any, rows: list[dict[str, Any]]) -> str:
    pd.DataFrame(rows).to_csv(path, index=False)
    return str(path)


def open_csv(path: str, per: str = "shop", **settings: Any) -> Dataset:
    columns = {"load": {"number": {"per": per}}}
    return open_data(SOURCES["table"](**{"path": path, "target": "sold", "columns": columns, **settings}))


def test_new_rows_are_encoded_with_the_groups_of_training(tmp_path: Any) -> None:
    data = open_csv(write_csv(tmp_path / "shops.csv", make_rows()))
    assert abs(float(data.train.tensors["features"].mean(0)[2])) < 1e-5  # shop has two features, then load
    saved = FittedTable.from_json(json.loads(json.dumps(data.preprocessing)))
    columns = {"shop": text_column("a", "b"), "load": text_column("0", "100"), "other": text_column("0", "0")}
    features = encode_rows(saved, columns, np.arange(2), with_targets=False).fields["features"]
    assert (np.abs(features[:, 2]) < 1).all()
    with pytest.raises(DataError, match="no column 'shop'"):
        check_columns(saved, {name: column for name, column in columns.items() if name != "shop"})


def test_the_groups_need_not_be_an_input(tmp_path: Any) -> None:
    data = open_csv(write_csv(tmp_path / "shops.csv", make_rows()), drop=["shop"])
    assert data.fields[0].shape == (2,)
    assert not any("groups without" in note for note in data.notes)


@pytest.mark.parametrize(
    ("per", "settings", "code"),
    [
        ("shopp", {}, Code.UNKNOWN_FIELD),
        ("sold", {}, Code.CONFLICT),
        ("load", {}, Code.WRONG_VALUE),
        ("other", {}, Code.BAD_DATA),  # all different: no group has two rows
    ],
)
def test_columns_that_can_not_be_groups(tmp_path: Any, per: str, settings: Any, code: Code) -> None:
    with pytest.raises(DataError) as error:
        open_csv(write_csv(tmp_path / "shops.csv", make_rows()), per=per, **settings)
    assert (error.value.finding.code, error.value.key) == (code, "columns.load.number.per")
