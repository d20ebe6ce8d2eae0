"""Settings of a table that would have no effect, or that contradict each other, are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dlspec.data.sources import SOURCES, open_data
from dlspec.errors import Code, DataError

ROWS = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("effects")
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({
        "cust": [f"c{row:03x}" for row in range(ROWS)],
        "age": generator.integers(18, 90, ROWS),
        "plan": generator.choice(["basic", "pro", "team"], ROWS),
        "house": [f"h{each}" for each in generator.integers(20, size=ROWS)],
        "date": pd.date_range("2020-01-01", periods=ROWS).strftime("%Y-%m-%d"),
        "part": ["train", "train", "train", "val", "test"] * (ROWS // 5),
        "number": generator.integers(0, 4, ROWS),
        "zero": 0,
        "left": np.where(np.arange(ROWS) % 4 == 0, "yes", "no"),
    })  # fmt: skip
    frame.to_csv(path / "in.csv", index=False)
    frame[:30].to_csv(path / "new.csv", index=False)
    data = open_data(SOURCES["table"](path=str(path / "in.csv"), target="left"))
    (path / "prepare.json").write_text(json.dumps(data.preprocessing))
    return path


def open_table(folder: Path, settings: dict[str, Any]) -> Any:
    files = {key: str(folder / each) for key, each in settings.items() if each in ("in.csv", "new.csv", "prepare.json")}
    prepare = {"prepare": str(folder)} if "prepare" in settings else {}
    return open_data(
        SOURCES["table"](**{"path": str(folder / "in.csv"), "target": "left", **settings, **files, **prepare})
    )


CONDITIONS = {"validation": {"plan": "pro"}, "test": {"plan": "team"}}
REFUSED: list[tuple[dict[str, Any], str, Code]] = [
    ({"split": "part", "split_seed": 3}, "split_seed", Code.UNUSED),
    ({"time": "date", "split_seed": 3}, "split_seed", Code.UNUSED),
    ({**CONDITIONS, "split_seed": 3}, "split_seed", Code.UNUSED),
    ({"validation": "new.csv", "test": "new.csv", "split_seed": 3}, "split_seed", Code.UNUSED),
    ({"folds": "number", "fold": 1, "test": 0.0, "split_seed": 3}, "split_seed", Code.UNUSED),
    ({"group": "cust"}, "group", Code.UNUSED),
    ({"group": "left"}, "group", Code.NO_MATCH),
    ({"split": "part", "test": 0.2}, "test", Code.CONFLICT),
    ({"id": "left"}, "id", Code.CONFLICT),
    ({"weight": "age", "target": "age"}, "weight", Code.CONFLICT),
    ({"drop": ["left"]}, "drop", Code.CONFLICT),
    ({"drop": ["plan"], "only": ["age"]}, "drop", Code.UNUSED),
    ({"drop": ["plan"], "columns": {"plan": "category"}}, "drop", Code.CONFLICT),
    ({"only": ["age"], "columns": {"plan": "category"}}, "columns", Code.CONFLICT),
    ({"only": ["age", "plan"], "columns": {"plan": None}}, "columns", Code.CONFLICT),
    ({"only": ["age", "plan"], "drop": ["plan"]}, "drop", Code.CONFLICT),
    ({"weight": "zero"}, "weight", Code.BAD_DATA),
    ({"columns": {"date": {"date": {"parts": ["hour"]}}}}, "date", Code.UNUSED),
    ({"prepare": "", "target": "plan"}, "target", Code.CONFLICT),
    ({"prepare": "", "target": {"left": "class"}}, "target", Code.CONFLICT),
    ({"prepare": "", "weight": "age"}, "weight", Code.CONFLICT),
    ({"prepare": "", "id": "cust"}, "id", Code.CONFLICT),
]


@pytest.mark.parametrize(("settings", "key", "code"), REFUSED, ids=str)
def test_a_setting_without_effect_is_refused(folder: Path, settings: dict[str, Any], key: str, code: Code) -> None:
    with pytest.raises(DataError) as error:
        open_table(folder, settings)
    assert (error.value.key, error.value.finding.code) == (key, code)


@pytest.mark.parametrize(
    "settings",
    [
        {"time": "date", "group": "house"},
        {"target": ["left", "left"]},
        {"prepare": "", "decimal": ","},
        {"prepare": "", "thousands": ","},
    ],
    ids=str,
)
def test_settings_that_no_table_gives_an_effect(folder: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no effect|twice"):
        open_table(folder, settings)


ALLOWED: list[dict[str, Any]] = [
    {"split": "hash", "split_seed": 3},
    {"folds": 4, "split_seed": 3},
    {"folds": "number", "fold": 1, "split_seed": 3},
    {"split": "part", "limit": 10, "split_seed": 3},
    {"validation": "new.csv", "split_seed": 3},
    {"group": "house"},
    {"only": ["age", "left"]},
    {"only": ["age"], "drop": ["pl*"]},
    {"only": ["age", "plan"], "columns": {"*": "category"}},
    {"prepare": "", "target": None},
    {"prepare": ""},
]


@pytest.mark.parametrize("settings", ALLOWED, ids=str)
def test_a_setting_with_an_effect_is_not_refused(folder: Path, settings: dict[str, Any]) -> None:
    assert len(open_table(folder, settings).train)


def test_a_pattern_adds_no_column_that_only_leaves_out(folder: Path) -> None:
    data = open_table(folder, {"only": ["age", "plan"], "columns": {"*": "category"}, "id": "cust"})
    assert list(data.preprocessing["columns"]) == ["age", "plan"]
