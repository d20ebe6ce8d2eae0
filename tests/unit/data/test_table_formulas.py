"""Conditions over columns, braces, joins, and tables from data in Python, compared with pandas and re."""

from __future__ import annotations

import datetime
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from dlspec.data.tables.brace_pattern import parse_braces
from dlspec.data.tables.column_values import NumberFormat
from dlspec.data.tables.file_pattern import list_files
from dlspec.data.tables.file_texts import read_file_texts
from dlspec.data.tables.python_rows import table_from_python
from dlspec.data.tables.row_formulas import choose_rows, extract_columns, join_tables
from dlspec.data.tables.table import Table
from dlspec.errors import Code, DataError

PEOPLE = table_from_python(
    [
        {"age": "30", "label": "pos", "capital gain": "1", "x": "5", "tags": ["a", "b"]},
        {"age": "41", "label": "neg", "capital gain": None, "x": "4", "tags": ["b"]},
        {"age": None, "label": "unsup", "capital gain": "3", "x": None, "tags": None},
        {"age": "18", "label": None, "capital gain": "4", "x": "abc", "tags": []},
    ]
)
CHOSEN = {
    "age > 20": [0, 1],
    "20 < age <= 40": [0],
    "30 == age": [0],
    "age == 30.0": [0],
    "-age < -20": [0, 1],
    "age + 1 > 31": [1],
    "age / 2 > 20": [1],
    'age >= 18 and label != "unsup"': [0, 1, 3],
    '(age > 40) or (label == "unsup")': [1, 2],
    "not age > 20": [2, 3],
    "label == null": [3],
    "label != null": [0, 1, 2],
    "null == age": [2],
    'label != "pos"': [1, 2, 3],
    'label in ["pos", "neg"]': [0, 1],
    'label not in ["pos", "neg"]': [2, 3],
    '"e" in label': [1],
    '"b" in tags': [0, 1],
    "len(tags) == 1": [1],
    "len(label) == 5": [2],
    'column("capital gain") < 4': [0, 2],
    "x == 4": [1],
    "x != 4": [0, 2, 3],
    'label > "n"': [0, 1, 2],
    "label == label": [0, 1, 2, 3],
    'age < column("capital gain")': [],
    None: [0, 1, 2, 3],
}


@pytest.mark.parametrize("where", CHOSEN)
def test_a_condition_chooses_rows(where: str | None) -> None:
    if not CHOSEN[where]:
        with pytest.raises(DataError) as caught:
            choose_rows(PEOPLE, where)
        assert caught.value.finding.code == Code.NO_MATCH
        return
    assert np.flatnonzero(choose_rows(PEOPLE, where)).tolist() == CHOSEN[where]


def test_conditions_equal_those_of_pandas() -> None:
    random_numbers = np.random.default_rng(0)
    frame = pandas.DataFrame({"a": random_numbers.integers(0, 9, 500), "b": random_numbers.normal(size=500)})
    frame["c"] = random_numbers.choice(["x", "y", "z"], 500)
    texts = table_from_python([{name: str(cell) for name, cell in row.items()} for row in frame.to_dict("records")])
    for where in ("a > 4 and b < 0", "a * 2 - 1 >= b", "c == 'x' or not a == 3", "a in [1, 2] and c != 'y'", "b < a"):
        expected = frame.eval(where).to_numpy()
        assert np.array_equal(choose_rows(table_from_python(frame), where), expected)
        assert np.array_equal(choose_rows(texts, where), expected)


def test_numbers_as_files_write_them() -> None:
    table = table_from_python({"a": ["1.234,5", "7", "1,5"]})
    chosen = choose_rows(table, "a > 5", NumberFormat(decimal=",", thousands="."))
    assert chosen.tolist() == [True, True, False]


REFUSED = {
    "age": Code.FORMULA_REFUSED,
    "age >": Code.FORMULA_SYNTAX,
    "(age > 1": Code.FORMULA_SYNTAX,
    "1 < 2": Code.FORMULA_REFUSED,
    "label is null": Code.FORMULA_REFUSED,
    "age.real > 1": Code.FORMULA_REFUSED,
    '__import__("os").getcwd() == ""': Code.UNKNOWN_FUNCTION,
    "(lambda: age)() > 1": Code.UNKNOWN_FUNCTION,
    "[row for row in age] == 1": Code.FORMULA_REFUSED,
    "len(age)": Code.FORMULA_REFUSED,
    "lable == 'pos'": Code.UNKNOWN_FIELD,
    "label == pos": Code.UNKNOWN_FIELD,
    "x > 3": Code.WRONG_TYPE,
    "tags > 3": Code.WRONG_TYPE,
    "age < 10": Code.NO_MATCH,
    "age == 1" + " or age == 1" * 100: Code.TOO_LARGE,
    "not " * 100 + "age == 1": Code.TOO_LARGE,
    "age == 1" + "0" * 30: Code.TOO_LARGE,
}


@pytest.mark.parametrize("where", REFUSED)
def test_a_condition_is_refused(where: str) -> None:
    with pytest.raises(DataError) as caught:
        choose_rows(PEOPLE, where)
    assert caught.value.finding.code == REFUSED[where]
    assert caught.value.key == "where"


# ---- braces ----------------------------------------------------------------------------------------------------------


def test_braces_match_as_the_shortest_regular_expression() -> None:
    numbers = random.Random(0)
    for _ in range(3_000):
        first, last = numbers.choice(["", "a", "ab"]), numbers.choice(["", "a", "b"])
        literals = [first, *(numbers.choice(["a", "b", "ab"]) for _ in range(numbers.randint(0, 2))), last]
        names = [f"n{at}" for at in range(len(literals) - 1)]
        pattern = literals[0] + "".join(f"{{{name}}}{text}" for name, text in zip(names, literals[1:], strict=True))
        expression = literals[0] + "".join(
            f"(?P<{name}>.+?){text}" for name, text in zip(names, literals[1:], strict=True)
        )
        text = "".join(numbers.choice("abc") for _ in range(numbers.randint(0, 8)))
        match = re.fullmatch(expression, text)
        assert parse_braces(pattern, "path").match(text) == (match.groupdict() if match else None), (pattern, text)


def test_a_brace_that_occurs_twice_catches_one_text() -> None:
    pattern = parse_braces("{label}/{label}_{n}", "path")
    assert pattern.match("cat/cat_1") == {"label": "cat", "n": "1"}
    assert pattern.match("cat/dog_1") is None


@pytest.mark.parametrize("pattern", ["{a", "a}", "{}", "{a}{b}", "{a b", "{1}", "{a/b}", "{_" * 3, "{a}_" * 200])
def test_wrong_braces(pattern: str) -> None:
    with pytest.raises(DataError):
        parse_braces(pattern, "path")


def write_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"text of {name}\r\n")


def list_columns(table: Table) -> dict[str, list[Any]]:
    return {name: column.tolist() for name, column in table.columns.items()}


def test_files_are_rows(tmp_path: Path) -> None:
    files = ["test/pos/0_7.txt", "train/neg/1_2.txt", "train/pos/0_9.txt"]
    write_files(tmp_path, *files, "README", "train/urls.txt", "train/pos/.DS_Store", "train/pos/deep/1_1.txt")
    table, notes = list_files("{part}/{label}/{n}_{stars}.txt", tmp_path)
    assert list_columns(table) == {
        "part": ["test", "train", "train"],
        "label": ["pos", "neg", "pos"],
        "n": ["0", "1", "0"],
        "stars": ["7", "2", "9"],
        "file": [str(tmp_path / name) for name in files],
    }
    assert (notes.files, notes.missed_files) == (3, 4)
    assert read_file_texts(table).columns["text"].tolist() == [f"text of {name}" for name in files]


def test_folders_of_any_depth(tmp_path: Path) -> None:
    write_files(tmp_path, "1.txt", "a/2.txt", "a/b/3.txt", "a/b/x.csv")
    table, _ = list_files(f"{tmp_path}/{{where/}}{{n}}.txt")
    assert table.columns["where"].tolist() == [None, "a", "a/b"]
    assert table.columns["n"].tolist() == ["1", "2", "3"]
    assert list_files(f"{tmp_path}/*/{{n}}.txt")[0].columns["n"].tolist() == ["2"]


def test_names_in_either_normal_form(tmp_path: Path) -> None:
    write_files(tmp_path, "cafe\u0301/1.txt")
    table, _ = list_files("caf{a}/{n}.txt", tmp_path)
    assert table.columns["a"].tolist() == ["é"]
    assert Path(table.columns["file"][0]).is_file()
    assert len(list_files("café/{n}.txt", tmp_path)[0]) == 1
    assert len(list_files("caf\u0065\u0301/{n}.txt", tmp_path)[0]) == 1


def test_links_to_folders_end(tmp_path: Path) -> None:
    write_files(tmp_path, "a/1.txt")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert len(list_files("{where/}{n}.txt", tmp_path)[0]) == 1


@pytest.mark.parametrize("pattern", ["{n}.jpg", "none/{n}.txt", "{a/}", "{a/}{b/}{n}.txt", "{file}.txt", "", "."])
def test_files_are_refused(pattern: str, tmp_path: Path) -> None:
    write_files(tmp_path, "1.txt")
    with pytest.raises(DataError) as caught:
        list_files(pattern, tmp_path)
    assert caught.value.key == "path"


def test_extracted_columns() -> None:
    names = table_from_python({"Name": ["Braund, Mr. Owen", "Cumings, Mrs. John (Florence)", "x", None]})
    table = extract_columns(names, {"Name": "{last}, {title}. {first}"})
    assert table.columns["last"].tolist() == ["Braund", "Cumings", None, None]
    assert table.columns["title"].tolist() == ["Mr", "Mrs", None, None]
    assert table.columns["first"].tolist() == ["Owen", "John (Florence)", None, None]


EXTRACT = {"{Name}, {x}": Code.NAME_TAKEN, "{a};{b}": Code.NO_MATCH, "abc": Code.BAD_DATA}


@pytest.mark.parametrize("pattern", EXTRACT)
def test_extracting_is_refused(pattern: str) -> None:
    with pytest.raises(DataError) as caught:
        extract_columns(table_from_python({"Name": ["Braund, Mr. Owen"]}), {"Name": pattern})
    assert caught.value.finding.code == EXTRACT[pattern]


# ---- joins -----------------------------------------------------------------------------------------------------------


def test_a_join_equals_pandas_merge() -> None:
    ratings = pandas.DataFrame({"user": list("abcab"), "movie": list("xyzyx"), "stars": list("12345")})
    movies = pandas.DataFrame({"year": list("789"), "movie": list("zyx")})
    joined = join_tables(table_from_python(ratings), table_from_python(movies), "movies.csv")
    expected = ratings.merge(movies, on="movie", how="left", validate="many_to_one")
    assert list_columns(joined) == {name: expected[name].tolist() for name in expected}


JOINS: dict[str, tuple[dict[str, list[Any]], Code]] = {
    "no partner": ({"movie": ["x"], "year": ["1"]}, Code.NO_MATCH),
    "two partners": ({"movie": ["x", "y", "x"], "year": ["1", "2", "3"]}, Code.AMBIGUOUS),
    "no common column": ({"film": ["x", "y"]}, Code.UNKNOWN_FIELD),
    "numbers": ({"movie": [1, 2]}, Code.WRONG_TYPE),
}


@pytest.mark.parametrize("name", JOINS)
def test_a_join_is_refused(name: str) -> None:
    movies, code = JOINS[name]
    with pytest.raises(DataError) as caught:
        join_tables(table_from_python({"movie": ["x", "y"]}), table_from_python(movies), "movies.csv")
    assert (caught.value.key, caught.value.finding.code) == ("join", code)


# ---- data in Python --------------------------------------------------------------------------------------------------

DAY = datetime.date(2020, 1, 2)


def test_a_frame_of_pandas() -> None:
    frame = pandas.DataFrame(
        {
            "n": [1, 2, 3],
            "x": [1.5, None, 2.0],
            " s ": ["a", " cafe\u0301", None],
            "b": [True, False, True],
            "day": pandas.to_datetime(["2020-01-02", None, "2020-01-03"]),
            "c": pandas.Categorical(["u", None, "u"]),
            "big": pandas.array([1, None, 3], dtype="Int64"),
        },
        index=[5, 5, 7],
    )
    table = table_from_python(frame)
    assert table.columns["n"].tolist() == [1, 2, 3]
    assert np.array_equal(table.columns["x"], [1.5, np.nan, 2.0], equal_nan=True)
    assert table.columns["s"].tolist() == ["a", "café", None]
    assert table.columns["b"].tolist() == ["true", "false", "true"]
    assert table.columns["day"].tolist() == ["2020-01-02", None, "2020-01-03"]
    assert table.columns["c"].tolist() == ["u", None, "u"]
    assert np.array_equal(table.columns["big"], [1, np.nan, 3], equal_nan=True)
    assert table.locate(2) == "row 3"


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_other_frames(library: str) -> None:
    module = pytest.importorskip(library)
    columns = {"n": [1, 2], "s": ["a", None], "day": [DAY, None], "l": [[1, 2], None]}
    table = table_from_python(module.DataFrame(columns) if library == "polars" else module.table(columns))
    assert list_columns(table) == {"n": [1, 2], "s": ["a", None], "day": ["2020-01-02", None], "l": [[1, 2], None]}


def test_features_and_target() -> None:
    table = table_from_python((np.arange(6.0).reshape(3, 2), ["a", "b", "a"]))
    assert list_columns(table) == {"column_1": [0, 2, 4], "column_2": [1, 3, 5], "target": ["a", "b", "a"]}
    frame = pandas.DataFrame({"x": [1, 2], "churned": ["y", "n"]})
    assert list_columns(table_from_python((frame[["x"]], frame["churned"]))) == frame.to_dict("list")
    images = table_from_python((torch.zeros(2, 3, 4, 4), torch.tensor([0, 1])))
    assert images.columns["features"].shape == (2, 3, 4, 4)


def test_rows() -> None:
    table = table_from_python([{"a": 1, "b": DAY}, {"a": 2.5, "c": [1, 2]}, {"a": None, "b": "x"}])
    assert np.array_equal(table.columns["a"], [1, 2.5, np.nan], equal_nan=True)
    assert table.columns["b"].tolist() == ["2020-01-02", None, "x"]
    assert table.columns["c"].tolist() == [None, [1, 2], None]


WRONG_DATA: dict[str, Any] = {
    "text": "churn.csv",
    "number": 5,
    "list of numbers": [1, 2],
    "nothing": [],
    "no columns": {},
    "no rows": {"a": []},
    "lengths": {"a": [1, 2], "b": [1]},
    "objects": {"a": [object(), 1]},
    "huge integer": {"a": [10**30, 1]},
    "surrogate": {"a": ["\ud800"]},
    "names": pandas.DataFrame([[1, 2]], columns=["a", " a"]),
    "text as a column": {"a": "abc"},
}


@pytest.mark.parametrize("name", WRONG_DATA)
def test_data_in_python_is_refused(name: str) -> None:
    with pytest.raises(DataError) as caught:
        table_from_python(WRONG_DATA[name])
    assert caught.value.key == "data"
