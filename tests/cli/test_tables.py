"""Tables from the command line: train with no YAML, resume, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import dlspec as library
from helpers.command_line import QUIET

COMMAND = ["model=mlp", "data=table", "data.path=churn.csv", "data.target=churned", "trainer.epochs=2", *QUIET]


@pytest.fixture
def churn(work: Path) -> Path:
    generator = np.random.default_rng(0)
    ages, plans = generator.integers(18, 80, 60).tolist(), generator.choice(["basic", "pro"], 60).tolist()
    rows = [f"{age},{plan},{'yes' if age > 50 else 'no'}" for age, plan in zip(ages, plans, strict=True)]
    path = work / "churn.csv"
    path.write_text("age,plan,churned\n" + "\n".join(rows) + "\n")
    return path


def only_run() -> Path:
    (folder,) = Path("runs").glob("*/*")
    return folder


def test_a_table_trains_with_no_yaml_written(churn: Path, dlspec: Any) -> None:
    trained = dlspec(*COMMAND)
    assert trained.code == 0
    lines = trained.err.splitlines()
    assert lines[0].startswith("churn.csv: 60 rows") and lines[1].startswith("target churned: ")
    assert "data.target={churned: " in lines[1]
    folder = only_run()
    prepared = json.loads((folder / "prepare.json").read_text())
    assert list(prepared["columns"]) == ["age", "plan"] and prepared["targets"]["churned"]["kind"] == "class"
    saved = yaml.safe_load((folder / "spec.yaml").read_text())
    assert saved["data"]["columns"] == {"age": "number", "plan": "category"}
    assert (folder / "log.txt").read_text().count("target churned") == 1
    resumed = dlspec("resume", f"run={folder}", "trainer.epochs=3")
    assert resumed.code == 0 and len((folder / "metrics.jsonl").read_text().splitlines()) >= 3
    network = library.load(folder)
    assert sum(each.numel() for each in network.parameters()) > 0
    text = churn.read_text()
    churn.write_text(text.replace("basic", "bAsic", 1))
    changed = dlspec("resume", f"run={folder}", "trainer.epochs=4")
    assert changed.code == 2 and "data (contents)" in changed.err
    prepare = f"data.prepare={folder}"
    again = dlspec(*COMMAND, prepare)
    assert again.code == 0
    newest = max(Path("runs").glob("*/*"), key=lambda each: each.stat().st_mtime)
    reused = json.loads((newest / "prepare.json").read_text())
    assert reused["columns"] == prepared["columns"] and reused["prepared_by"] == str(folder)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("validate", ["data.columns.age=nubmer"]),
        ("validate", ["data.folds=1"]),
        ("validate", ["data=imagse"]),
        ("validate", ["data.stream=true"]),
        ("train", ["data.path=no.csv"]),
        ("train", ["data.target=left"]),
        ("train", ["data.prepare=runs/none"]),
        ("summary", ["data.where=age >"]),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused(command: str, arguments: list[str], churn: Path, dlspec: Any) -> None:
    refused = dlspec(*([] if command == "train" else [command]), *COMMAND, *arguments)
    assert refused.code == 2 and "Traceback" not in refused.err
    assert not Path("runs").exists()


def test_a_model_of_one_input_says_which_columns_to_leave_out(churn: Path, dlspec: Any) -> None:
    lines = churn.read_text().splitlines()
    texts = [f"{line},some words of row {number}" for number, line in enumerate(lines[1:])]
    churn.write_text("\n".join([f"{lines[0]},my note", *texts]) + "\n")
    refused = dlspec("summary", *COMMAND)
    assert refused.code == 2 and "'data.drop=[\"my note\"]'" in refused.err
    assert dlspec("summary", *COMMAND, 'data.drop=["my note"]').code == 0


def test_validate_reads_no_file(work: Path, dlspec: Any) -> None:
    assert dlspec("validate", *COMMAND).code == 0


def test_another_kind_replaces_the_written_one(churn: Path, dlspec: Any) -> None:
    Path("conf/data").mkdir(parents=True)
    Path("conf/data/mine.yaml").write_text(
        "type: table\npath: churn.csv\ntarget: churned\ncolumns: {age: number, plan: {category: {min_count: 2}}}\n"
    )
    arguments = ["model=mlp", "data=mine", "trainer.epochs=1", *QUIET]
    assert dlspec(*arguments, "data.columns.plan={text: {}}", "data.columns.age={number: {scale: minmax}}").code == 2
    assert (
        dlspec(*arguments, "data.columns.plan={category: {}}", "data.columns.age={number: {scale: minmax}}").code == 0
    )
    saved = yaml.safe_load((only_run() / "spec.yaml").read_text())
    assert saved["data"]["columns"] == {"age": {"number": {"scale": "minmax"}}, "plan": {"category": {}}}


def test_a_dotted_name_on_the_command_line_is_answered_with_the_line_to_write(churn: Path, dlspec: Any) -> None:
    refused = dlspec("validate", *COMMAND, "data.columns.capital.gain=category")
    assert refused.code == 2 and "'data.columns={capital.gain: category}'" in refused.err
