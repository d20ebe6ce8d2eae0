"""Kinds are inferred in a fixed order; what is not clear is refused with the cells and a line that works as printed."""

from __future__ import annotations

import re
import shlex
from typing import Any

import numpy as np
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from dlspec.data.prepare.kinds import (
    COLUMN_KINDS,
    TARGET_KINDS,
    CellFormat,
    InferredKind,
    infer_kind,
    infer_target_kind,
    read_kind,
)
from dlspec.errors import DataError
from helpers.kind_table import list_column, text_column

ROWS = range(1, 101)
NUMBERS = [str(row * 1.5) for row in ROWS]


def kind_name(found: InferredKind) -> str:
    return "refused" if found.kind is None and found.refused else found.kind.name if found.kind else "left out"


# In the order in which kinds are inferred.
COLUMNS: dict[str, tuple[list[str | None], str]] = {
    "empty": ([None] * 4, "left out"),
    "one value": (["x"] * 9, "left out"),
    "one number": (["1"] * 9, "left out"),
    "one value or a gap": (["x", None, "x"], "category"),
    "ISO dates": ([f"2024-01-{row % 28 + 1:02d}" for row in ROWS], "date"),
    "ISO moments": ([f"2024-01-{row % 28 + 1:02d}T12:{row % 60:02d}:00Z" for row in ROWS], "date"),
    "months": ([f"20{row % 20 + 10}-{row % 12 + 1:02d}" for row in ROWS], "date"),
    "eight digits that are dates": ([f"2024{row % 12 + 1:02d}15" for row in ROWS], "date"),
    "eight digits that rise": ([f"{20240000 + row}" for row in ROWS], "left out"),
    "eight digits, one no date": ([*(f"2024{row % 12 + 1:02d}15" for row in ROWS), "20241399"], "number"),
    "an id from 1": ([str(row) for row in ROWS], "left out"),
    "an id with gaps": ([str(row * row) for row in ROWS], "left out"),
    "an id with leading zeros": ([f"{row:04d}" for row in ROWS], "left out"),
    "an id of one length": ([str(10_000 + row * 7919 % 90_000) for row in ROWS], "left out"),
    "four digits in any order": ([str(1_000 + row * 7919 % 9_000) for row in ROWS], "number"),
    "five digits that repeat": ([str(10_000 + row % 7) for row in ROWS], "number"),
    "numbers": (NUMBERS, "number"),
    "numbers with gaps": ([*NUMBERS, None, None], "number"),
    "scientific": ([f"{row * 7 % 13}e-{row % 99:02d}" for row in ROWS], "number"),
    "zeros and ones": (["0", "1"] * 50, "number"),
    "minus one and one": (["-1", "1"] * 50, "number"),
    "long exponents": ([f"{row % 5}e-{row % 3 + 100}" for row in ROWS], "category"),
    "leading zeros": ([f"0{row % 40 + 100}" for row in ROWS], "category"),
    "yes and no": (["yes", "no"] * 50, "category"),
    "fifty values": ([f"v{row % 50}" for row in ROWS], "category"),
    "fewer than 1 % of the rows": ([f"v{row % 60}" for row in range(6_100)], "category"),
    "three words": ([f"the quick {row}" for row in ROWS], "text"),
    "names": ([f"name{row}" for row in ROWS], "left out"),
    "names that repeat": ([f"name{row % 90}" for row in ROWS], "category"),
    "numbers with a few question marks": ([*NUMBERS, "?"], "number"),
    "numbers with many question marks": ([*NUMBERS, *"?" * 30], "refused"),
    "numbers with many dashes": ([*NUMBERS, *"-" * 30], "refused"),
    "decimal commas": ([f"{row},{row % 7}" for row in ROWS], "refused"),
    "thousands": ([f"{row},{row * 7 % 900 + 100}" for row in ROWS], "refused"),
    "thousands with points and commas": ([f"{row}.{row * 7 % 900 + 100},50" for row in ROWS], "refused"),
    "thousands with spaces": ([f"{row} {row * 7 % 900 + 100}" for row in ROWS], "refused"),
    "thousands with quotes": ([f"{row}'{row * 7 % 900 + 100}" for row in ROWS], "refused"),
    "dollars": ([f"${row},{row * 7 % 900 + 100}" for row in ROWS], "refused"),
    "dollars and dashes": ([*(f"${row}" for row in ROWS), *"-" * 9], "refused"),
    "percent": ([f"{row % 9} %" for row in ROWS], "refused"),
    "American dates": ([f"{row % 12 + 1:02d}/{row % 28 + 1:02d}/2024" for row in ROWS], "refused"),
    "German dates": ([f"{row % 28 + 1}.{row % 12 + 1}.2024" for row in ROWS], "refused"),
    "dates as text": ([f"{row % 28 + 1} Jan 2024" for row in ROWS], "refused"),
    "American moments": ([f"{row % 12 + 1}/{row % 28 + 1}/2024 11:{row % 60:02d} PM" for row in ROWS], "refused"),
    "mixed dates": (["2024-01-01", "01/02/2024", "2024-02-02", "31.12.2024"] * 9, "refused"),
    "versions": ([f"1.{row % 7}.{row % 3}-rc" for row in ROWS], "category"),
    "times of day": ([f"{row % 24:02d}:00" for row in ROWS], "category"),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_kinds_of_columns(name: str) -> None:
    cells, expected = COLUMNS[name]
    assert kind_name(infer_kind("a", text_column(*cells))) == expected


def read_lines(fix: str) -> list[dict[str, Any]]:
    """The settings of `data` that a fix names, as the command line would read them."""
    arguments = [each for each in shlex.split(fix) if each.startswith("data.")]
    parsed = OverridesParser.create().parse_overrides(arguments)
    return [{each.key_or_group.removeprefix("data."): each.value()} for each in parsed]


@pytest.mark.parametrize("name", [name for name, (_, kind) in COLUMNS.items() if kind == "refused"])
def test_a_refused_column_is_read_with_what_the_fix_says(name: str) -> None:
    cells, _ = COLUMNS[name]
    found = infer_kind("the name", text_column(*cells))
    first, *others = re.split(r" or (?=')|, or ", found.fix)
    given: dict[str, Any] = {}
    for each in read_lines(first):
        given |= each
    if "mixed" in name:
        assert given == {"columns": {"the name": "category"}} or not given
        return
    column = text_column(*(None if cell in given.get("missing", ()) else cell for cell in cells))
    read = CellFormat(given.get("decimal", "."), given.get("thousands"))
    written = given.get("columns", {}).get("the name")
    kind = read_kind(written, COLUMN_KINDS, "") if written else infer_kind("the name", column, read).kind
    assert kind is not None and kind.name in ("number", "date")
    assert not kind.fit(column, np.arange(len(column)), read=read).apply(column).problems
    assert read_lines(others[-1]) == [{"columns": {"the name": "category"}}]


def test_the_few_cells_that_are_not_numbers_are_listed() -> None:
    found = infer_kind("age", text_column(*NUMBERS, "?", None, "old"))
    assert kind_name(found) == "number" and list(found.refused) == [100, 102]
    assert found.kind is not None
    fitted = found.kind.fit(text_column(*NUMBERS, "?"), np.arange(50))
    assert list(fitted.apply(text_column(*NUMBERS, "?")).problems) == [100]


def test_below_95_percent_they_are_no_numbers() -> None:
    words = ["a", "b", "c", "d", "e"]
    assert kind_name(infer_kind("a", text_column(*NUMBERS[:95], *words))) == "number"
    assert kind_name(infer_kind("a", text_column(*NUMBERS[:94], *words))) == "left out"


@pytest.mark.parametrize("name", ["capital.gain", "per cent (%)", "a,b", "a:b", "a=b", "a [b] {c}"])
def test_any_name_can_be_written(name: str) -> None:
    found = infer_kind(name, text_column(*(f"{row % 9} %" for row in ROWS)))
    assert read_lines(found.fix.split(", or ")[0]) == [{"columns": {name: {"number": {"strip": "%"}}}}]


@pytest.mark.parametrize("name", ["größe", "it's", 'the "best"', "a#b"])
def test_other_names_are_written_in_yaml(name: str) -> None:
    found = infer_kind(name, text_column(*(f"{row % 9} %" for row in ROWS)))
    line = found.fix.removeprefix("write '").partition("' in the YAML file of the data")[0]
    assert yaml.safe_load(line) == {"columns": {name: {"number": {"strip": "%"}}}}


def test_a_separator_of_thousands_that_is_given() -> None:
    cells = [f"{row},{row * 7 % 900 + 100}" for row in ROWS]
    assert kind_name(infer_kind("a", text_column(*cells), CellFormat(".", ","))) == "number"


def test_arrays_and_lists() -> None:
    assert kind_name(infer_kind("a", np.array([0.5, 0.25, 1e-300, 3]))) == "number"
    assert kind_name(infer_kind("a", np.arange(9))) == "left out"
    assert kind_name(infer_kind("a", np.array([True, False, True]))) == "category"
    assert kind_name(infer_kind("a", np.zeros((3, 4)))) == "numbers"
    assert kind_name(infer_kind("a", list_column([1, 2], [3], None))) == "numbers"
    found = infer_kind("a", list_column(["x", "y"], [], ["z"]))
    assert found.kind is not None and found.kind.model_dump()["tokenizer"] == "given"


# ---- targets ---------------------------------------------------------------------------------------------------------

TARGETS: dict[str, tuple[list[str | None], str]] = {
    "two words": (["ham", "spam"] * 9, "class"),
    "two numbers": (["3.5", "7.25"] * 9, "class"),
    "zero and one": (["0", "1"] * 9, "class"),
    "minus one and one": (["-1", "1"] * 9, "class"),
    "three words": (["a", "b", "c"] * 9, "class"),
    "from 0": ([str(row % 10) for row in ROWS], "class"),
    "from 1": ([str(row % 20 + 1) for row in ROWS], "class"),
    "from 2": ([str(row % 10 + 2) for row in ROWS], "value"),
    "with a gap": (["0", "1", "3"] * 9, "value"),
    "twenty-one": ([str(row % 21) for row in ROWS], "value"),
    "numbers": (NUMBERS, "value"),
    "leading zeros": (["01", "02", "03"] * 9, "class"),
    "dollars": ([f"${row}" for row in ROWS], "refused"),
    "question marks": ([*NUMBERS, *"?" * 30], "refused"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_kinds_of_targets(name: str) -> None:
    cells, expected = TARGETS[name]
    found = infer_target_kind("y", text_column(*cells))
    assert kind_name(found) == expected
    if found.otherwise:
        (line,) = read_lines(found.otherwise)
        other = read_kind(line["target"]["y"], TARGET_KINDS, "target.y")
        assert other.name != expected or other.model_dump()["positive"] == "ham"


@pytest.mark.parametrize("cells", [["a"] * 5, [None] * 5, ["a", None]])
def test_a_target_with_nothing_to_learn(cells: list[str | None]) -> None:
    with pytest.raises(DataError) as caught:
        infer_target_kind("y", text_column(*cells))
    assert caught.value.key == "target"


WORD_PAIRS = [("no", "yes"), ("false", "true"), ("No", "Yes"), ("neg", "pos"), ("-", "+")]
NUMBER_PAIRS = [("0", "1"), ("-1", "1"), ("1", "2"), ("0.0", "1.0"), ("2", "10")]


@pytest.mark.parametrize(("negative", "positive"), WORD_PAIRS + NUMBER_PAIRS)
def test_the_positive_one_of_a_known_pair(negative: str, positive: str) -> None:
    kind = read_kind("class", TARGET_KINDS, "")
    for cells in ([negative] * 3 + [positive], [negative] + [positive] * 3):
        fitted = kind.fit(text_column(*cells), np.arange(2))
        assert fitted.invert(np.array([0, 1])).tolist() == [negative, positive]


def test_the_positive_one_is_the_rarer_one_or_as_written() -> None:
    column = text_column("spam", "ham", "ham", "ham")
    kind = read_kind("class", TARGET_KINDS, "")
    assert kind.fit(column, np.arange(1)).invert(np.arange(2)).tolist() == ["ham", "spam"]
    kind = read_kind({"class": {"positive": "ham"}}, TARGET_KINDS, "")
    assert kind.fit(column, np.arange(1)).invert(np.arange(2)).tolist() == ["spam", "ham"]
    with pytest.raises(DataError):
        read_kind({"class": {"positive": "eggs"}}, TARGET_KINDS, "").fit(column, np.arange(1))


@pytest.mark.parametrize(
    "cells", [["a"] * 5, ["ham", "HAM", "spam"], ["1", "1.0", "2"], [str(row) for row in range(60)]]
)
def test_what_can_not_be_classes(cells: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read_kind("class", TARGET_KINDS, "").fit(text_column(*cells), np.arange(2), name="y")
    assert caught.value.key == "target"


def test_spellings_are_mapped_by_what_the_fix_says() -> None:
    column = text_column("ham", "HAM", "spam", "Spam", "ok, (fine)")
    with pytest.raises(DataError) as caught:
        read_kind("class", TARGET_KINDS, "").fit(column, np.arange(3), name="y")
    (line,) = read_lines(str(caught.value).partition("map cells to classes: ")[2])
    fitted = read_kind(line["target"]["y"], TARGET_KINDS, "").fit(column, np.arange(3))
    encoded = fitted.apply(column)
    assert not encoded.problems and len(set(encoded.values.tolist())) == 3


def test_lists_as_a_target() -> None:
    assert kind_name(infer_target_kind("y", list_column([1.0, 2], [3, 4]))) == "numbers"
    with pytest.raises(DataError, match="tags, one for each step, or labels"):
        infer_target_kind("y", list_column(["a"], ["b", "c"]))
