"""What `inspect` says about data: kinds and why, splits and balance, and what to check before training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import spearmanr

import dlspec
from dlspec.data.encoding import column_choice
from dlspec.data.inspection.column_notices import find_exact_sum, find_rare_categories
from dlspec.data.inspection.notices import find_equal_rows, find_telling_columns
from dlspec.data.prepare.kinds.cells import PLAIN
from dlspec.data.prepare.kinds.inference import infer_kind
from dlspec.data.sources import SOURCES, open_data
from dlspec.data.tables.table import TEXT
from dlspec.errors import SpecError

ROWS = 200


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    churned = generator.random(ROWS) < 0.3
    return pd.DataFrame({
        "customer": np.arange(1000, 1000 + ROWS),
        "age": np.where(generator.random(ROWS) < 0.1, np.nan, generator.integers(18, 80, ROWS)),
        "plan": generator.choice(["basic", "plus", "pro"], ROWS),
        "joined": pd.date_range("2020-01-01", periods=ROWS).strftime("%Y-%m-%d"),
        "ended": np.where(churned, "gone", "here"),
        "note": "x",
        "churned": np.where(churned, "yes", "no"),
    })  # fmt: skip


@pytest.fixture(scope="module")
def churn(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspect") / "churn.csv"
    frame.to_csv(path, index=False)
    return path


def test_columns_are_those_that_pandas_counts(frame: pd.DataFrame, churn: Path) -> None:
    found = {each.name: each for each in dlspec.inspect(str(churn), target="churned").columns}
    assert {name: each.missing for name, each in found.items()} == frame.isna().sum().to_dict()
    assert {name: each.distinct for name, each in found.items()} == frame.nunique().to_dict()
    roles = {name: (each.role, each.kind) for name, each in found.items()}
    assert roles == {
        "customer": ("left out", ""), "age": ("input", "number"), "plan": ("input", "category"),
        "joined": ("input", "date"), "ended": ("input", "category"), "note": ("left out", ""),
        "churned": ("target", "class"),
    }  # fmt: skip
    assert found["age"].values == f"{frame.age.min():g} to {frame.age.max():g}, median {frame.age.median():g}"
    assert found["joined"].values == f"{frame.joined.min()} to {frame.joined.max()}"
    assert "an id" in found["customer"].reason


def test_numbers_are_compared_as_numbers_and_shown_in_full(tmp_path: Path) -> None:
    (tmp_path / "houses.csv").write_text("price,size\n34063,5\n34063.0,5.0\n1250000,7.25\n")
    price, size = dlspec.inspect(str(tmp_path / "houses.csv")).columns
    assert (price.distinct, price.values) == (2, "34063 to 1250000, median 34063")
    assert (size.distinct, size.values) == (2, "5 to 7.25, median 5")


def test_a_frame_and_its_file_are_inspected_alike(frame: pd.DataFrame, churn: Path) -> None:
    of_file, of_frame = dlspec.inspect(str(churn), target="churned"), dlspec.inspect(frame, target="churned")
    assert (of_file.splits, of_file.balance, of_file.notices) == (of_frame.splits, of_frame.balance, of_frame.notices)
    assert sum(of_file.splits.values()) == of_file.rows == ROWS
    assert sum(of_file.balance["churned"].values()) == of_file.splits["training"]


def test_kinds_are_inferred_once(churn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def infer(name: str, *arguments: Any) -> Any:
        seen.append(name)
        return infer_kind(name, *arguments)

    monkeypatch.setattr(column_choice, "infer_kind", infer)
    dlspec.inspect(str(churn), target="churned")
    assert sorted(seen) == ["age", "customer", "ended", "joined", "note", "plan"]


def test_what_a_run_has_fitted_is_shown(frame: pd.DataFrame, churn: Path, tmp_path: Path) -> None:
    data = open_data(SOURCES["table"](path=str(churn), target="churned", drop=["ended"]))
    (tmp_path / "prepare.json").write_text(json.dumps(data.preprocessing))
    found = dlspec.inspect(str(churn), target="churned", prepare=str(tmp_path))
    assert [each.name for each in found.columns if each.role == "input"] == ["age", "plan", "joined"]
    assert found.columns[1].reason == f"fitted by {tmp_path}" and found.columns[4].role == "left out"


def test_numbers_that_are_left_out_are_shown_as_numbers(frame: pd.DataFrame, churn: Path) -> None:
    found = {each.name: each for each in dlspec.inspect(str(churn), target="churned", only=["plan"]).columns}
    assert found["age"].values == f"{frame.age.min():g} to {frame.age.max():g}, median {frame.age.median():g}"


def test_a_column_that_tells_the_target_is_noticed(churn: Path) -> None:
    (notice,) = dlspec.inspect(str(churn), target="churned").notices
    assert notice.startswith("'ended' almost tells 'churned' by itself (100.0 %)") and "data.drop=[ended]" in notice


TELLING: list[tuple[str, str, Any, Any, bool]] = [
    ("number", "class", lambda x: x, lambda x: x > 0.3, True),
    ("number", "class", lambda x: -x, lambda x: x > 0.3, True),
    ("number", "class", lambda x: x, lambda x: np.sin(40 * x) > 0, False),
    ("number", "value", lambda x: x**3, lambda x: np.exp(x), True),
    ("number", "value", lambda x: x, lambda x: np.sin(40 * x), False),
    ("category", "class", lambda x: (10 * x).astype(int), lambda x: (10 * x).astype(int) % 2, True),
    ("category", "class", lambda x: x, lambda x: x > 0.3, False),  # a value a row tells any target
]


@pytest.mark.parametrize(("kind", "target_kind", "column", "target", "is_told"), TELLING)
def test_which_columns_tell_the_target(kind: str, target_kind: str, column: Any, target: Any, is_told: bool) -> None:
    x = np.random.default_rng(1).random(500)
    columns = {
        "x": np.array([str(each) for each in column(x)], TEXT),
        "y": np.array([str(each) for each in target(x)], TEXT),
    }
    found = list(find_telling_columns(columns, {"x": kind}, "y", target_kind, PLAIN))
    assert bool(found) is is_told
    if target_kind == "value":
        assert bool(abs(spearmanr(column(x), target(x)).statistic) > 0.99) is is_told


def test_equal_rows_and_contradictions_are_counted() -> None:
    table = pd.DataFrame({"a": ["1", "1", "1", "2"], "b": ["x", "x", "x", "x"], "y": ["n", "n", "p", "n"]})
    columns = {name: np.array(table[name].tolist(), TEXT) for name in table}
    repeated = int(table.duplicated(["a", "b"]).sum())
    first, second = find_equal_rows(columns, ["a", "b"], ["y"])
    assert first.startswith(f"{repeated} rows repeat") and second.startswith("1 of them")
    assert not list(find_equal_rows({"a": columns["a"][2:], "y": columns["y"][2:]}, ["a"], ["y"]))


def test_without_a_target_only_columns_are_shown(churn: Path) -> None:
    found = dlspec.inspect(str(churn))
    assert (len(found.columns), found.splits) == (7, {}) and "data.target=COLUMN" in found.notes[-1]


def test_other_data_are_inspected_field_by_field() -> None:
    digits = dlspec.inspect("digits")
    assert [(each.name, each.role) for each in digits.columns] == [("image", "input"), ("digit", "target")]
    assert (digits.model, digits.rows) == ("cnn", 1797)
    arrays = dlspec.inspect({"x": np.zeros((20, 3)), "target": np.arange(20) % 2})
    assert arrays.rows == 20 and arrays.model == "mlp"


def test_wrong_settings_are_refused(churn: Path) -> None:
    with pytest.raises(SpecError, match="churnd"):
        dlspec.inspect(str(churn), target="churnd")


def test_the_command_prints_writes_and_shows_what_trains(dlspec, churn: Path, tmp_path: Path) -> None:
    written = tmp_path / "conf" / "data" / "mine.yaml"
    given = ["data=table", f"data.path={churn}", "data.target=churned"]
    said = dlspec("inspect", *given, f"--write={written}")
    assert said.code == 0 and "check: 'ended'" in said.out and "python -m dlspec model=mlp data=mine" in said.out
    tree = yaml.safe_load(written.read_text())
    assert (tree["type"], tree["target"], tree["columns"]["age"]) == ("table", {"churned": "class"}, "number")
    assert dlspec("validate", "model=mlp", "data=mine", f"--config-dir={tmp_path / 'conf'}").code == 0
    again = dlspec("inspect", *given, f"--write={written}")
    assert (again.code, "exists already" in again.err) == (2, True)
    values = json.loads(dlspec("inspect", *given, "--json").out)
    assert (values["rows"], values["model"]) == (ROWS, "mlp")


def as_cells(frame: pd.DataFrame) -> dict[str, Any]:
    return {name: np.array([str(each) for each in frame[name]], TEXT) for name in frame}


def test_columns_whose_sum_is_the_target_are_noticed() -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.integers(0, 50, (300, 4)), columns=["temp", "casual", "registered", "hour"])
    frame["count"] = frame.casual + frame.registered
    kinds = dict.fromkeys(["temp", "casual", "registered", "hour"], "number")
    (notice,) = find_exact_sum(as_cells(frame), kinds, "count", PLAIN)
    assert notice.startswith("casual and registered together give 'count' exactly")
    assert notice.endswith("'data.drop=[casual,registered]'")
    frame["count"] += generator.integers(0, 2, 300)
    assert not list(find_exact_sum(as_cells(frame), kinds, "count", PLAIN))


def test_categories_that_hardly_repeat_are_noticed() -> None:
    frame = pd.DataFrame({"ticket no": [f"A/5 {row}" for row in range(200)], "port": ["S", "C"] * 100})
    frame["cabin"] = [f"B{row % 150}" for row in range(200)]
    kinds = dict.fromkeys(frame, "category")
    (notice,) = find_rare_categories(as_cells(frame), kinds)
    assert notice.startswith("most values of ticket no and cabin occur once")
    assert '\'data.drop=["ticket no","cabin"]\'' in notice
    assert not list(find_rare_categories(as_cells(frame.assign(cabin="B1")), {"port": "category", "cabin": "category"}))


def test_classes_with_a_point_at_the_end_are_one_spelling(tmp_path: Path) -> None:
    (tmp_path / "adult.csv").write_text("age,income\n" + "39,<=50K\n50,>50K\n28,<=50K.\n37,>50K.\n" * 5)
    with pytest.raises(SpecError, match=r"'<=50K' and '<=50K\.' of 'income' differ only in their spelling") as refused:
        dlspec.inspect(str(tmp_path / "adult.csv"), target="income")
    line = str(refused.value).split("map cells to classes: '")[1].split("' in the YAML file")[0]
    found = dlspec.inspect(str(tmp_path / "adult.csv"), **yaml.safe_load(line))
    assert list(found.balance["income"]) == ["<=50K", ">50K"]
