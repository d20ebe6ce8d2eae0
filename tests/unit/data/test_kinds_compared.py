"""Kinds of columns beside scikit-learn's preprocessing and pandas' parsing of the same cells."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    LabelEncoder,
    MinMaxScaler,
    MultiLabelBinarizer,
    OneHotEncoder,
    QuantileTransformer,
    StandardScaler,
)

from dlspec.data.prepare.kinds import COLUMN_KINDS, TARGET_KINDS, CellFormat, FittedColumn, read_kind
from dlspec.data.prepare.kinds.cells import read_numbers
from helpers.kind_table import list_column, text_column

GENERATOR = np.random.default_rng(7)
COUNT = 400
TRAINING = np.sort(GENERATOR.permutation(COUNT)[:250])
VALUES = np.where(GENERATOR.random(COUNT) < 0.1, np.nan, np.round(np.exp(GENERATOR.normal(size=COUNT)) * 10 - 5, 3))
NUMBERS = text_column(*(None if np.isnan(value) else repr(value) for value in VALUES.tolist()))


def fit(written: Any, column: Any, is_target: bool = False) -> FittedColumn:
    return read_kind(written, TARGET_KINDS if is_target else COLUMN_KINDS, "columns.a").fit(column, TRAINING, name="a")


def signed_log(values: Any) -> Any:
    return np.sign(values) * np.log1p(np.abs(values))


SCALERS = {
    "standard": StandardScaler(),
    "minmax": MinMaxScaler(),
    "log": make_pipeline(FunctionTransformer(signed_log), StandardScaler()),
    "none": FunctionTransformer(),
}


@pytest.mark.parametrize("scale", SCALERS)
@pytest.mark.parametrize(("missing", "strategy"), [("median", "median"), ("mean", "mean"), ("zero", "constant")])
def test_numbers_are_those_of_scikit_learn(scale: str, missing: str, strategy: str) -> None:
    imputer = SimpleImputer(strategy=strategy, fill_value=0 if strategy == "constant" else None)
    table = VALUES[:, None]
    theirs = make_pipeline(imputer, SCALERS[scale]).fit(table[TRAINING]).transform(table)
    ours = fit({"number": {"scale": scale, "missing": missing}}, NUMBERS).apply(NUMBERS).values
    np.testing.assert_allclose(ours[:, 0], theirs[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ours[:, 1], np.isnan(VALUES))


def test_quantiles_are_those_of_scikit_learn_as_normal_scores() -> None:
    """scikit-learn puts the extremes at 0 and 1, dlspec half a value inside, where normal scores are finite."""
    known = VALUES[~np.isnan(VALUES)]
    column = text_column(*map(repr, known.tolist()))
    training = np.arange(len(known))
    fitted = read_kind({"number": {"scale": "quantile"}}, COLUMN_KINDS, "").fit(column, training)
    theirs = QuantileTransformer(n_quantiles=len(known)).fit(known[:, None])
    share = np.clip(theirs.transform(known[:, None])[:, 0], 0.5 / len(known), 1 - 0.5 / len(known))
    expected = [NormalDist().inv_cdf(each) for each in share.tolist()]
    np.testing.assert_allclose(fitted.apply(column).values[:, 0], expected, rtol=1e-5, atol=1e-6)
    assert abs(fitted.apply(column).values.mean()) < 0.01 and abs(fitted.apply(column).values.std() - 1) < 0.02


def test_quantiles_between_and_beyond_the_training_values() -> None:
    values = GENERATOR.normal(size=5_000) ** 3
    column = text_column(*map(repr, values.tolist()))
    fitted = read_kind({"number": {"scale": "quantile"}}, COLUMN_KINDS, "").fit(column, np.arange(2_500))
    theirs = QuantileTransformer(output_distribution="normal", n_quantiles=1000).fit(values[:2_500, None])
    expected = theirs.transform(values[:, None])[:, 0]
    found = fitted.apply(column).values[:, 0]
    inner = np.abs(expected) < 2
    np.testing.assert_allclose(found[inner], expected[inner], atol=0.02)
    assert np.abs(found).max() <= NormalDist().inv_cdf(1 - 0.5 / 2_500) + 1e-6


def test_one_hots_are_those_of_scikit_learn() -> None:
    words = GENERATOR.choice(["red", "green", "blue", "violet"], COUNT, p=[0.5, 0.3, 0.15, 0.05])
    words[np.setdiff1d(np.arange(COUNT), TRAINING)[:3]] = "new"
    fitted = fit("category", text_column(*words))
    theirs = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(words[TRAINING, None])
    expected = pd.DataFrame(theirs.transform(words[:, None]), columns=theirs.categories_[0])
    encoded = fitted.apply(text_column(*words))
    np.testing.assert_array_equal(encoded.values, expected[list(fitted.feature_names)])
    assert encoded.notes == {"unknown": 3}
    frequent = pd.Series(words[TRAINING]).value_counts()
    assert list(fitted.feature_names) == list(frequent.index)


def test_dates_are_those_of_pandas() -> None:
    moments = pd.Series(pd.to_datetime(GENERATOR.integers(0, 2_000_000_000, COUNT), unit="s"))
    fitted = fit("date", text_column(*moments.dt.strftime("%Y-%m-%d %H:%M:%S")))
    parts = fitted.read(text_column(*moments.dt.strftime("%Y-%m-%dT%H:%M:%S.123456Z")))
    for number, part in enumerate(("year", "month", "day", "day_of_week", "hour")):
        np.testing.assert_array_equal(parts[:, number], getattr(moments.dt, part))
    values = fitted.apply(text_column(*moments.dt.strftime("%Y-%m-%d %H:%M"))).values
    years = moments.dt.year.to_numpy()
    np.testing.assert_allclose(values[:, 0], (years - years[TRAINING].mean()) / years[TRAINING].std(), atol=1e-6)
    angle = 2 * np.pi * (moments.dt.month.to_numpy() - 1) / 12
    np.testing.assert_allclose(values[:, 1:3], np.stack([np.sin(angle), np.cos(angle)], axis=1), atol=1e-6)


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%m/%d/%y", "%d %b %Y", "%Y%m%d"])
def test_formats_are_those_of_pandas(form: str) -> None:
    dates = pd.Series(pd.date_range("1990-01-01", periods=COUNT, freq="17D"))
    cells = dates.dt.strftime(form)
    fitted = fit({"date": {"format": form}}, text_column(*cells))
    expected = pd.to_datetime(cells, format=form)
    np.testing.assert_array_equal(fitted.read(text_column(*cells))[:, 0], expected.dt.year)


def test_classes_are_those_of_scikit_learn() -> None:
    words = GENERATOR.choice(["b", "c", "a"], COUNT)
    expected = LabelEncoder().fit_transform(words)
    np.testing.assert_array_equal(fit("class", text_column(*words), True).apply(text_column(*words)).values, expected)


def test_labels_are_those_of_scikit_learn() -> None:
    lists = [GENERATOR.choice(["x", "y", "z"], GENERATOR.integers(1, 4), replace=False).tolist() for _ in range(COUNT)]
    expected = MultiLabelBinarizer().fit_transform(lists)
    for column in (list_column(*lists), text_column(*("|".join(each) for each in lists))):
        np.testing.assert_array_equal(fit("labels", column, True).apply(column).values, expected)


def test_words_are_counted_as_scikit_learn_does() -> None:
    texts = [" ".join(GENERATOR.choice(["alpha", "beta", "gamma", "delta"], 5)) for _ in range(COUNT)]
    fitted = fit("text", text_column(*texts))
    counter = CountVectorizer().fit([texts[row] for row in TRAINING])
    tokens = fitted.apply(text_column(*texts)).values
    words = fitted.to_json()["words"]
    ours = np.stack([(tokens == number).sum(axis=1) for number in range(2, 2 + len(words))], axis=1)
    order = [counter.vocabulary_[word] for word in words]
    np.testing.assert_array_equal(ours, counter.transform(texts).toarray()[:, order])


CELLS_OF_PANDAS = ["1", "-1.5", "+2", "1e5", ".5", "5.", "0012", "1E-3", "123456789.25", "0.1", "1e-300"]


def test_plain_numbers_are_read_as_pandas_reads_them() -> None:
    found = read_numbers(text_column(*CELLS_OF_PANDAS))
    np.testing.assert_array_equal(found.values, pd.to_numeric(pd.Series(CELLS_OF_PANDAS)).to_numpy(np.float64))


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        (["1.234,5", "-0,25", "1.234.567", "3"], CellFormat(",", ".")),
        (["1,234.5", "-0.25", "1,234,567", "3"], CellFormat(".", ",")),
        (["1'234.5", "12'345"], CellFormat(".", "'")),
        (["2,5", "-3,125e2"], CellFormat(",", None)),
    ],
)
def test_numbers_of_other_countries_are_read_as_pandas_reads_them(
    cells: list[str], read: CellFormat, tmp_path: Any
) -> None:
    (tmp_path / "in.csv").write_text("a\n" + "\n".join(cells))
    table = pd.read_csv(tmp_path / "in.csv", sep=";", decimal=read.decimal, thousands=read.thousands)
    np.testing.assert_array_equal(read_numbers(text_column(*cells), read).values, table["a"])


NO_NUMBERS = [
    "nan",
    "inf",
    "-Infinity",
    "1_000",
    "0x1F",
    "1e",
    "--1",
    "1,000",
    "1.2.3",
    "١٢",
    "²",
    "1 2",
    "1e400",
    "1e39",
]


@pytest.mark.parametrize("cell", [*NO_NUMBERS, "", "-", "+", ".", "1-2", "１"])
def test_what_is_not_a_number(cell: str) -> None:
    for cells in ((cell,), ("1", cell, "2.5")):
        found = read_numbers(text_column(*cells))
        assert list(found.wrong.values()) == [cell] and not found.missing.any()


@pytest.mark.parametrize(
    ("cell", "expected"), [("1,2,3", None), ("1234,567", None), (",123", None), ("1,234", 1234), ("12", 12)]
)
def test_thousands_are_groups_of_three(cell: str, expected: float | None) -> None:
    found = read_numbers(text_column(cell), CellFormat(".", ","))
    assert found.wrong == {0: cell} if expected is None else found.values[0] == expected


MARKED = [
    ("$1,234", 1234),
    ("12 %", 12),
    ("-$5", -5),
    ("€ 1,000.5", 1000.5),
    ("$", None),
    ("5\u00a0%", 5),
    ("5 kg", None),
]


@pytest.mark.parametrize(("cell", "expected"), MARKED)
def test_marks_around_numbers(cell: str, expected: float | None) -> None:
    found = read_numbers(text_column(cell), CellFormat(".", ","), "$%€")
    assert found.wrong == {0: cell} if expected is None else found.values[0] == expected
