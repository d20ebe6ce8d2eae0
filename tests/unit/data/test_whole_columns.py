"""What reads a whole column at once gives what reading each cell by itself gives."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlspec.data.encoding.parsed_numbers import parse_number_columns
from dlspec.data.prepare.kinds.cells import CellFormat, are_all_numbers, find_missing, is_number
from dlspec.data.prepare.kinds.date_cells import DATE_PARTS, read_dates
from dlspec.data.prepare.kinds.number import Number
from dlspec.data.splitting.row_numbers import number_equal_rows, number_values
from helpers.kind_table import text_column

FORMATS = (CellFormat(), CellFormat(",", "."), CellFormat(".", ","), CellFormat(",", " "), CellFormat(".", "'"))


@pytest.mark.parametrize("read", FORMATS)
@given(cells=st.lists(st.text("0123.,-+eE '\n", min_size=0, max_size=7), min_size=1, max_size=4))
def test_cells_are_all_numbers_if_each_is(read: CellFormat, cells: list[str]) -> None:
    assert are_all_numbers(cells, read) == all(is_number(cell, read) for cell in cells)


def test_a_line_break_does_not_make_two_numbers_of_a_cell() -> None:
    assert not are_all_numbers(["1\n2", "3"], CellFormat())
    assert are_all_numbers(["1", "2", "3"], CellFormat())


def test_only_none_is_missing_in_a_column_of_text() -> None:
    column = text_column("a", None, "", "0", None)
    assert find_missing(column).tolist() == [False, True, False, False, True]


def test_dates_have_the_parts_that_pandas_reads() -> None:
    cells = ["2024-02-29", None, "2021-12-31", "2024-02-29", "2024-13-01"]
    found = read_dates(text_column(*cells), DATE_PARTS)
    days = pd.to_datetime(pd.Series(cells), errors="coerce").dt
    parts = np.stack([days.year, days.month, days.day, days.day_of_week, days.hour], axis=1)
    assert np.array_equal(found.parts, parts, equal_nan=True)
    assert found.missing.tolist() == [False, True, False, False, False]
    assert found.wrong == {4: "2024-13-01"}


@given(st.lists(st.integers(-3, 3), max_size=12))
def test_values_are_numbered_by_first_appearance(values: list[int]) -> None:
    numbers, distinct = number_values(np.array(values, np.int64))
    codes, first = pd.factorize(np.array(values, np.int64))
    assert numbers.tolist() == codes.tolist()
    assert distinct == first.tolist()


def test_equal_rows_have_equal_numbers() -> None:
    columns = {"a": text_column("x", "x", None, "x", ""), "b": np.array([1, 1, 1, 2, 1])}
    assert number_equal_rows(columns, ["a", "b"]).tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("kind", [Number(), Number(scale="quantile", missing="mean"), Number(clip=(0, 5))])
def test_numbers_parsed_once_give_the_features_of_their_text(kind: Number) -> None:
    text = text_column("1.5", None, "-2", "7e1", "3", "0.1")
    parsed = parse_number_columns({"a": text}, {"a": kind}, CellFormat())["a"]
    assert parsed.dtype == np.float64
    fitted = kind.fit(text, np.arange(4), name="a")
    assert fitted.to_json() == kind.fit(parsed, np.arange(4), name="a").to_json()
    assert fitted.apply(text).values.tobytes() == fitted.apply(parsed).values.tobytes()
    assert fitted.apply(text).notes == fitted.apply(parsed).notes


@pytest.mark.parametrize(
    ("kind", "read", "cells"),
    [
        (Number(), CellFormat(), ["1", "2", "three"]),
        (Number(strip="$"), CellFormat(), ["$1", "$2", "$3"]),
        (Number(values=["1", "2", "3"]), CellFormat(), ["1", "2", "3"]),
        (Number(), CellFormat(",", "."), ["1.000", "2.000", "3,5"]),
    ],
)
def test_columns_that_need_their_text_keep_it(kind: Number, read: CellFormat, cells: list[str]) -> None:
    column = text_column(*cells)
    assert parse_number_columns({"a": column}, {"a": kind}, read)["a"] is column
