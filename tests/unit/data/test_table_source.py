"""The sources `table` and `files`: from rows to fields, targets and splits."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlspec.config.composition import compose
from dlspec.data.dataset import Dataset, Split
from dlspec.data.encoding.encoded_rows import encode_rows
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.sources import SOURCES, open_data
from dlspec.data.sources.table_settings import TableSettings
from dlspec.data.tables.read_options import ReadOptions
from dlspec.data.tables.reading import read_table
from dlspec.errors import Code, DataError

COUNT = 120
Row = dict[str, Any]


def make_rows(count: int = COUNT) -> list[Row]:
    """Rows of customers, with gaps."""
    generator = np.random.default_rng(0)
    return [
        {
            "id": f"c{row:03}x", "age": "" if row % 10 == 3 else int(generator.integers(18, 90)),
            "plan": ("basic", "pro", "team")[int(generator.integers(3))],
            "spent": round(float(generator.normal(50, 20)), 2),
            "house": f"h{int(generator.integers(30))}", "factor": row % 3, "left": "yes" if row % 4 == 0 else "no",
        }
        for row in range(count)
    ]  # fmt: skip


def write_rows(path: Path, rows: list[Row]) -> str:
    lines = [",".join(rows[0]), *(",".join(str(cell) for cell in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def table(tmp_path: Path) -> str:
    return write_rows(tmp_path / "customers.csv", make_rows())


def open_table(path: str, **settings: Any) -> Dataset:
    return open_data(SOURCES["table"](**{"path": path, "target": "left", **settings}))


def splits_of(data: Dataset) -> list[Split]:
    return [data.train, data.validation, data.test]


def refuse(path: str, **settings: Any) -> DataError:
    with pytest.raises(DataError) as error:
        open_table(path, **settings)
    return error.value


def test_kinds_are_inferred_and_shown(table: str) -> None:
    data = open_table(table, drop=["house", "factor"])
    (field,) = data.fields
    # age with its indicator of gaps, plan as three one-hots, spent
    assert (field.name, field.shape) == ("features", (6,))
    assert data.target.classes == ("no", "yes")
    notes = "\n".join(data.notes)
    assert "customers.csv: 120 rows" in notes and "number age, spent" in notes and "id (an id" in notes
    assert "84 training, 12 validation, 24 test" in notes


def test_the_features_are_those_of_numpy(table: str) -> None:
    data = open_table(table, only=["spent", "plan"])
    rows = {round(row["spent"], 2): row for row in make_rows()}
    spent = data.train.tensors["features"][:, -1].double().numpy()
    values = np.array([row["spent"] for row in make_rows()])
    scale = data.preprocessing["columns"]["spent"]["scale"]
    found = np.round(spent * scale["divisor"] + scale["shift"], 2)
    assert scale["shift"] == pytest.approx(found.mean(), abs=0.01)
    assert scale["divisor"] == pytest.approx(found.std(), abs=0.01)
    assert set(found.tolist()) <= set(np.round(values, 2).tolist())
    categories = data.preprocessing["columns"]["plan"]["categories"]
    one_hot = data.train.tensors["features"][:, :3].argmax(1).tolist()
    assert [categories[index] for index in one_hot] == [rows[value]["plan"] for value in found.tolist()]


def test_values_of_other_splits_change_no_statistics(tmp_path: Path) -> None:
    parts = [("train", "train", "val", "test")[row % 4] for row in range(COUNT)]
    rows = [{**row, "part": part, "words": f"the plan {row['plan']} of {number}"}
            for number, (row, part) in enumerate(zip(make_rows(), parts, strict=True))]  # fmt: skip
    fitted = []
    for changes in ({}, {"age": 1e6, "plan": "gold", "spent": -1e6, "words": "gold words are others"}):
        changed = [{**row, **(changes if row["part"] != "train" else {})} for row in rows]
        data = open_table(write_rows(tmp_path / "parts.csv", changed), split="part", drop=["house", "factor"])
        assert [len(each) for each in splits_of(data)] == [60, 30, 30]
        fitted.append(json.dumps(data.preprocessing["columns"]))
    assert fitted[0] == fitted[1]


def test_fields_name_groups_of_columns(table: str) -> None:
    written = {"who": ["plan", "house"], "numbers": ["age", "sp*"]}
    data = open_table(table, fields=written, columns={"house": "category"}, drop=["factor"])
    fields = {each.name: each for each in data.fields}
    assert fields.keys() == {"who", "numbers"}
    assert (fields["who"].layout, fields["who"].shape, fields["numbers"].shape) == ("tokens", (2,), (3,))
    tokens = data.train.tensors["who"]
    sizes = [2 + len(data.preprocessing["columns"][name]["categories"]) for name in ("plan", "house")]
    assert fields["who"].vocab_size == sum(sizes)
    assert tokens[:, 0].max() < sizes[0] <= tokens[:, 1].min() and tokens[:, 1].max() < sum(sizes)


def test_weights_are_kept_for_loss_and_metrics(table: str) -> None:
    data = open_table(table, weight="factor")
    assert "factor" not in data.preprocessing["columns"]
    weights = torch.cat([each.tensors[data.target.weights] for each in splits_of(data)])
    assert torch.bincount(weights.long()).tolist() == [40, 40, 40]
    assert refuse(table, weight="plan").finding.code is Code.BAD_DATA
    assert refuse(table, weight="wieght").finding.code is Code.UNKNOWN_FIELD


def test_groups_stay_together(table: str) -> None:
    data = open_table(table, group="house", columns={"house": "category"}, fields={"house": ["house"]}, validation=0.3)
    houses = [set(each.tensors["house"][:, 0].tolist()) - {1} for each in splits_of(data)]
    assert houses[0] and not houses[0] & (houses[1] | houses[2])  # houses of the other splits are unknown to training
    assert "house" not in open_table(table, group="house").preprocessing["columns"]


def test_cells_that_cannot_be_read_are_refused_or_left_out(tmp_path: Path) -> None:
    rows = make_rows()
    rows[7]["spent"], rows[9]["spent"] = "soon", "later"
    path = write_rows(tmp_path / "bad.csv", rows)
    text = str(refuse(path))
    assert "bad.csv:9" in text and "bad.csv:11" in text
    data = open_table(path, bad_rows="skip")
    assert sum(map(len, splits_of(data))) == COUNT - 2
    assert data.preprocessing["columns"]["spent"]["kind"] == "number"
    assert "bad.csv:9" in str(refuse(path, columns={"spent": "number"}))


@pytest.mark.parametrize(("missing", "count", "train"), [("drop", 108, 108), ("ignore", COUNT, COUNT)])
def test_rows_without_a_target(missing: str, count: int, train: int, tmp_path: Path) -> None:
    rows = [{**row, "left": "" if index % 10 == 0 else row["left"]} for index, row in enumerate(make_rows())]
    path = write_rows(tmp_path / "gaps.csv", rows)
    data = open_table(path, target={"left": {"class": {"missing": missing}}})
    assert sum(map(len, splits_of(data))) == count
    if missing == "ignore":
        weights = torch.cat([each.tensors[data.target.weights] for each in splits_of(data)])
        assert torch.bincount(weights.long()).tolist() == [12, COUNT - 12]
    assert refuse(path).finding.code is Code.BAD_DATA


def test_names_that_are_no_identifiers(tmp_path: Path) -> None:
    rows = [{"capital.gain": row["spent"], "the note": f"some words {index} of {row['plan']}", "is left?": row["left"]}
            for index, row in enumerate(make_rows())]  # fmt: skip
    path = write_rows(tmp_path / "names.csv", rows)
    data = open_table(path, target="is left?", columns={"capital.gain": {"number": {"scale": "log"}}})
    assert [each.name for each in data.fields] == ["features", "the_note"]
    assert data.target.name == "is_left_" and data.preprocessing["columns"]["capital.gain"]["kind"] == "number"


def test_two_fields_of_one_name_are_refused(tmp_path: Path) -> None:
    texts = [f"some words of row {index}" for index in range(COUNT)]
    rows = [{"a b": text, "a.b": text[::-1], "y": index % 2} for index, text in enumerate(texts)]
    error = refuse(write_rows(tmp_path / "twice.csv", rows), target="y")
    assert (error.key, error.finding.code) == ("fields", Code.NAME_TAKEN)


@pytest.mark.parametrize(
    ("key", "settings", "code"),
    [
        ("target", {"target": "lefft"}, Code.UNKNOWN_FIELD),
        ("target", {"target": None}, Code.MISSING_VALUE),
        ("columns", {"columns": {"agee": "number"}}, Code.UNKNOWN_FIELD),
        ("drop", {"drop": ["x*"]}, Code.NO_MATCH),
        ("columns", {"only": ["id"]}, Code.MISSING_VALUE),
        ("columns", {"columns": {"left": "category"}}, Code.CONFLICT),
        ("group", {"group": "huose"}, Code.UNKNOWN_FIELD),
        ("test", {"test": {"plan": "free"}}, Code.BAD_DATA),
        ("path", {"path": None}, Code.MISSING_VALUE),
        ("fields", {"fields": {"a": ["age"], "b": ["age"]}}, Code.NAME_TAKEN),
        ("fields", {"fields": {"a b": ["age"]}}, Code.INVALID_NAME),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_the_table(key: str, settings: dict[str, Any], code: Code, table: str) -> None:
    error = refuse(**{"path": table, **settings})
    assert (error.key, error.finding.code) == (key, code)


@pytest.mark.parametrize(
    "settings",
    [
        {"validation": 0.5, "test": 0.5}, {"folds": 1}, {"folds": 3, "fold": 3}, {"fold": 1}, {"folds": "part"},
        {"folds": 3, "validation": 0.1}, {"split": "hash", "time": "day"}, {"columns": {"a": "nubmer"}},
        {"columns": {"a": "class"}}, {"target": {"a": "category"}}, {"columns": {"a": {"number": {"scal": "log"}}}},
        {"columns": {"a": "audio"}}, {"test": {"a": {"to": 3}}}, {"prepare": "runs/x", "drop": ["a"]}, {"stream": True},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_settings_are_refused_without_a_file(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        SOURCES["table"](path="no.csv", **settings)


def test_splits_of_other_files(tmp_path: Path) -> None:
    rows = make_rows()
    paths = [write_rows(tmp_path / f"{name}.csv", part) for name, part in (("train", rows[:80]), ("test", rows[80:]))]
    data = open_table(paths[0], test=paths[1])
    assert [len(each) for each in splits_of(data)] == [72, 8, 40]
    without = [{key: cell for key, cell in row.items() if key != "plan"} for row in rows[80:]]
    assert refuse(paths[0], test=write_rows(tmp_path / "other.csv", without)).key == "test"


def test_a_class_without_training_rows_is_told(tmp_path: Path) -> None:
    rows = [{**row, "plan": "gold" if number >= 110 else row["plan"]} for number, row in enumerate(make_rows())]
    data = open_table(write_rows(tmp_path / "gold.csv", rows), target="plan", test={"plan": "gold"})
    assert [note for note in data.notes if "no training row" in note and "gold" in note]
    assert not [note for note in open_table(write_rows(tmp_path / "gold.csv", rows)).notes if "no training row" in note]


def test_folds_differ_in_their_validation_rows_alone(table: str) -> None:
    found = [open_table(table, folds=4, fold=fold, test=0.2, id="id") for fold in range(4)]
    assert [len(each.validation) for each in found] == [24] * 4
    assert len({tuple(each.target.classes) for each in found}) == 1


def test_rows_are_chosen_joined_and_extracted(table: str, tmp_path: Path) -> None:
    (tmp_path / "houses.csv").write_text("house,rooms\n" + "".join(f"h{n},{n % 7}\n" for n in range(30)))
    data = open_table(table, where="spent > 50", join=[{"path": "houses.csv"}], extract={"id": "c{number}x"},
                      columns={"number": "number", "rooms": "number"}, drop=["house"])  # fmt: skip
    assert {"number", "rooms"} <= set(data.preprocessing["columns"])
    assert sum(map(len, splits_of(data))) == sum(row["spent"] > 50 for row in make_rows())
    assert refuse(table, where="spent > 5000").key == "where"


def test_what_was_fitted_encodes_the_rows_again(table: str) -> None:
    data = open_table(table, fields={"plan": ["plan"]})
    saved = FittedTable.from_json(json.loads(json.dumps(data.preprocessing)))
    columns = read_table(table, ReadOptions())[0].columns
    every = encode_rows(saved, columns, np.arange(COUNT))
    rows = {tuple(row) for row in every.fields["features"].tolist()}
    assert {tuple(row) for row in data.test.tensors["features"].tolist()} <= rows
    assert every.targets["left"].sum() == sum(int(each.target.sum()) for each in splits_of(data))


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"columns": {}}, {"fields": []}, {"stacks": {"a": 3}}, {"weight": 3}]
)
def test_a_damaged_preparation_is_refused(change: dict[str, Any], table: str) -> None:
    with pytest.raises(DataError):
        FittedTable.from_json({**open_table(table).preprocessing, **change})


def test_an_outline_has_the_facts_of_all_rows(table: str) -> None:
    source = SOURCES["table"](path=table, target="left")
    whole, outline = open_data(source), open_data(source.shrink())
    assert whole.facts == outline.facts and whole.fields == outline.fields
    assert [len(each) for each in splits_of(outline)] == [2, 2, 2]
    assert whole.preprocessing == outline.preprocessing


def test_inferred_kinds_are_written_into_the_spec(table: str) -> None:
    data = open_table(table)
    again = open_data(SOURCES["table"](**{"path": table, **data.resolved}))
    assert data.resolved["columns"]["age"] == "number" and data.resolved["columns"]["id"] is None
    assert data.resolved["target"] == {"left": "class"}
    assert torch.equal(data.train.tensors["features"], again.train.tensors["features"])
    assert dict(again.resolved) == dict(data.resolved)


def test_the_target_can_be_a_field_to_reconstruct(table: str) -> None:
    data = open_table(table, target="features", drop=["left"])
    assert not data.targets and data.effective_targets[0].name == "features"


def write_reviews(folder: Path) -> str:
    for number in range(40):
        part, label = ("train" if number < 28 else "test"), ("neg", "pos")[number % 2]
        file = folder / part / label / f"{number}_{number % 5}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"review {number} of a {'good' if number % 2 else 'bad'} film\n")
    (folder / "readme.md").write_text("not a review")
    return f"{folder}/{{part}}/{{label}}/{{n}}_{{stars}}.txt"


def test_files_are_rows(tmp_path: Path) -> None:
    path = write_reviews(tmp_path)
    data = open_data(SOURCES["files"](path=path, target="label", columns={"text": {"text": {"max_length": 4}}}))
    (field,) = data.fields
    assert (field.name, field.shape, field.has_lengths) == ("text", (4,), True)
    assert [len(each) for each in splits_of(data)] == [25, 3, 12]
    assert "1 files do not match" in "\n".join(data.notes) or "1 file" in "\n".join(data.notes)
    stars = open_data(
        SOURCES["files"](path=path, target={"stars": "value"}, columns={"text": "text", "label": "category"})
    )
    assert [each.name for each in stars.fields] == ["features", "text"] and stars.target.kind == "numbers"


def test_options_of_tables_are_refused_for_files() -> None:
    with pytest.raises(ValueError):
        SOURCES["files"](path="{a}.txt", delimiter=";")


def test_every_setting_is_described() -> None:
    for name in ("table", "files"):
        assert all(each.description for each in SOURCES[name].model_fields.values())
    assert issubclass(SOURCES["table"], TableSettings)


def write_sentences(path: Path) -> str:
    generator = np.random.default_rng(0)
    lines = []
    for row in range(60):
        words = [f"w{number}" for number in generator.integers(0, 9, int(generator.integers(1, 6))).tolist()]
        tags = [("N", "V")[len(word + str(row)) % 2] for word in words]
        topics = sorted({("a", "b", "c")[number] for number in generator.integers(0, 3, 2).tolist()})
        lines.append(json.dumps({"words": words, "tags": tags, "topics": topics, "reply": " ".join(["yes", *words]),
                                 "pair": [row, 2 * row], "price": row / 7}))  # fmt: skip
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize(
    ("target", "kind", "shape", "lengths"),
    [
        ({"tags": "tags"}, "classes", (5,), "words"),
        ({"topics": "labels"}, "numbers", (3,), ""),
        ({"reply": "text"}, "classes", (7,), "reply"),
        ({"pair": "numbers"}, "numbers", (2,), ""),
        ({"price": {"value": {"scale": "minmax"}}}, "numbers", (), ""),
        ({"price": {"value": {"scale": "log"}}}, "numbers", (), ""),
        ({"price": {"value": {"scale": "quantile"}}}, "numbers", (), ""),
    ],
    ids=str,
)
def test_targets_of_every_kind(target: Row, kind: str, shape: tuple[int, ...], lengths: str, tmp_path: Path) -> None:
    path = write_sentences(tmp_path / "sentences.jsonl")
    words = {"words": {"text": {"tokenizer": "given"}}}
    data = open_table(path, target=target, columns=words, only=["words"])
    found = data.target
    assert (found.kind, found.shape, found.lengths) == (kind, shape, lengths)
    assert found.next_of == ("reply" if "reply" in target else "")
    for split in splits_of(data):
        assert split.target.shape == (len(split), *shape)
        assert split.target.dtype == (torch.int64 if kind == "classes" else torch.float32)
    if "price" in target:
        assert found.scale is not None
        prices = found.scale.invert(torch.cat([split.target for split in splits_of(data)]))
        assert torch.allclose(prices.sort().values, torch.arange(60) / 7, atol=1e-5)


@pytest.mark.parametrize("name", ["visits", "visits a week", "visits, {a} week"])
def test_the_argument_for_a_number_as_it_is_does_that(tmp_path: Path, name: str) -> None:
    numbers = [row * row % 17 for row in range(40)]
    lines = [f'spent,"{name}"', *(f"{row / 3:.2f},{number}" for row, number in enumerate(numbers))]
    (tmp_path / "visits.csv").write_text("\n".join(lines) + "\n")
    path = str(tmp_path / "visits.csv")
    scaled = open_table(path, target={name: "value"}).target
    (argument,) = shlex.split(scaled.unscaled_setting)
    data = compose(["data=table", f"data.path={path}", argument]).tree["data"]
    raw = open_table(path, target=data["target"])
    assert scaled.scale is not None and raw.target.scale is None
    found = torch.cat([each.targets[raw.target.name] for each in splits_of(raw)])
    assert sorted(found.tolist()) == sorted(numbers)


def test_the_argument_for_classes_of_numbers_makes_them_numbers(tmp_path: Path) -> None:
    lines = ["spent,visits,name", *(f"{row / 3:.2f},{row % 5},{'ab'[row % 2]}" for row in range(40))]
    (tmp_path / "visits.csv").write_text("\n".join(lines) + "\n")
    path = str(tmp_path / "visits.csv")
    classes = open_table(path, target="visits").target
    (argument,) = shlex.split(classes.unscaled_setting)
    data = compose(["data=table", f"data.path={path}", argument]).tree["data"]
    raw = open_table(path, target=data["target"]).target
    assert (classes.kind, raw.kind, raw.scale) == ("classes", "numbers", None)
    assert open_table(path, target={"visits": "class"}).target.unscaled_setting == ""
    assert open_table(path, target="name").target.unscaled_setting == ""


def test_the_fix_for_a_target_among_the_inputs_works(table: str) -> None:
    columns = {"age": "number", "spent": "number"}
    error = refuse(table, target="spent", columns=columns)
    (argument,) = re.findall("'(data.columns=[^']*)'", str(error))
    left_out = compose(["data=table", "data.path=x.csv", argument]).tree["data"]["columns"]
    assert open_table(table, target="spent", columns={**columns, **left_out}).target.kind == "numbers"
    assert open_table(table, target="spent", columns={"[as]*": "number"}).target.kind == "numbers"


@pytest.mark.parametrize(
    ("header", "is_told"),
    [("5.1,3.5,setosa", True), ("1,0,7,0,x", True), ("place,1990,1991,1992", False)],
)
def test_a_file_without_header_is_suspected(tmp_path: Path, header: str, is_told: bool) -> None:
    (tmp_path / "in.csv").write_text(f"{header}\n" * 3)
    assert ("data.header=false" in str(refuse(str(tmp_path / "in.csv"), target="species"))) == is_told


def test_no_such_argument_where_it_would_drop_a_target(table: str) -> None:
    assert {each.unscaled_setting for each in open_table(table, target=["spent", "left"]).targets} == {""}
    assert open_table(table).target.unscaled_setting == ""
