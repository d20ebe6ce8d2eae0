"""The command `predict`: what it writes, what it says, and its exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas
import pytest
import torch

from dlspec import load
from dlspec.cli.commands.predict import WORDS
from dlspec.inference.loading.own_data import open_own_data
from dlspec.inference.predictor import predictor
from dlspec.jobs.spec_keys import TOP_LEVEL_KEYS
from helpers.churn_table import format_csv, make_rows, train_churn_run
from helpers.command_line import CommandResult, run_in_this_process

Command = Callable[..., CommandResult]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder, before = tmp_path_factory.mktemp("predict"), Path.cwd()
    os.chdir(folder)
    yield train_churn_run(folder)
    os.chdir(before)


@pytest.fixture
def predict(run: Path, dlspec: Command, write: Callable[[str, str], Path]) -> Command:
    """`predict` with the run, and new.csv in the working directory."""
    write("new.csv", format_csv(make_rows(30, seed=1)))

    def call(*words: str) -> CommandResult:
        given = {word.partition("=")[0] for word in words}
        default = [f"run={run}", "input=new.csv", "output=out.csv"]
        return dlspec("predict", *(word for word in default if word.partition("=")[0] not in given), *words)

    return call


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_in_rows_out(run: Path, predict: Command, work: Path) -> None:
    said = predict()
    assert (said.code, said.out, said.err) == (0, "out.csv: 30 rows\n", "")
    expected = predictor(run).predict(pandas.read_csv(work / "new.csv"))
    found = pandas.read_csv(work / "out.csv")
    assert list(found) == ["id", "churned", "churned.yes"]
    assert found["id"].tolist() == [row[0] for row in make_rows(30)]
    assert found["churned"].tolist() == expected["churned"].tolist()
    assert found["churned.yes"].tolist() == pytest.approx(expected["churned.yes"].tolist(), abs=1e-7)


def test_what_is_written_is_chosen(predict: Command, work: Path) -> None:
    assert predict("columns=[churned,id]", "threshold=1").code == 0
    assert {next(iter(row.items())) for row in read_rows(work / "out.csv")} == {("churned", "no")}
    assert predict("keep=true", "probabilities=true", "output=out.tsv").code == 0
    first = (work / "out.tsv").read_text(encoding="utf-8").splitlines()
    assert first[0].split("\t") == ["id", "age", "country", "income", "churned", "churned.yes", "churned.no"]
    assert first[1].split("\t")[:4] == make_rows(30, seed=1)[0][:4]


def test_rows_that_can_not_be_read(predict: Command, work: Path) -> None:
    lines = (work / "new.csv").read_text(encoding="utf-8").splitlines()
    lines[3], lines[6], lines[9] = (
        "c1,2",
        lines[6].replace(lines[6].split(",")[1], "old", 1),
        lines[9].replace("DE", "??"),
    )
    (work / "new.csv").write_text("\n".join(lines), encoding="utf-8")
    said = predict()
    assert said.code == 3
    rows = read_rows(work / "out.csv")
    assert len(rows) == 30
    assert [number for number, row in enumerate(rows) if row["problem"]] == [2, 5]
    assert (rows[2]["churned"], rows[2]["problem"]) == ("", "2 cells, but the header has 4")
    assert rows[5]["problem"] == "age: 'old' is not a number"
    assert "2 rows have no prediction, as they can't be read; the first:\n    new.csv:4: 2 cells" in said.err
    assert "new.csv:7: age: 'old' is not a number" in said.err


def test_unknown_and_missing_cells_are_counted_in_one_line(predict: Command, work: Path) -> None:
    rows = make_rows(12, seed=2)
    rows[1][2], rows[2][2], rows[4][1] = "ES", "IT", ""
    (work / "new.csv").write_text(format_csv(rows), encoding="utf-8")
    said = predict()
    assert said.code == 0
    assert said.err == (
        "the rows have cells that training does not have: country 2; missing cells where training has none: age 1\n"
    )


def test_json_lines_from_stdin_to_stdout(predict: Command, monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    predict()
    row = dict(zip(["id", "age", "country", "income"], make_rows(30, seed=1)[0], strict=False))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{json.dumps(row)}\n[]\n".encode())))
    said = predict("input=-", "output=-")
    assert said.code == 3
    first, second = map(json.loads, said.out.splitlines())
    expected = read_rows(work / "out.csv")[0]
    assert first == {**expected, "churned.yes": float(expected["churned.yes"])}
    assert second["churned"] is None
    assert second["problem"].startswith("expected an object")


def test_the_training_filter_does_not_drop_new_rows(dlspec: Command, work: Path) -> None:
    (work / "train.csv").write_text(format_csv(make_rows(120), has_target=True), encoding="utf-8")
    train_words = ["model=linear", "data=table", "data.path=train.csv", "data.target=churned", "data.where='age > 30'",
                   "data.limit=60", "trainer.epochs=1", "trainer.progress=none", "trainer.curves=false",
                   "trainer.pictures=false", "hydra.run.dir=run"]  # fmt: skip
    assert dlspec(*train_words).code == 0
    (work / "new.csv").write_text(format_csv(make_rows(40, seed=1)), encoding="utf-8")
    assert dlspec("predict", "run=run", "input=new.csv", "output=out.csv").code == 0
    assert len(read_rows(work / "out.csv")) == 40
    # Without an id, the rows of a split have the numbers that they have in their file.
    assert dlspec("predict", "run=run", "split=test", "output=test.csv").code == 0
    assert dlspec("predict", "run=run", "input=train.csv", "output=all.csv").code == 0
    everything, found = pandas.read_csv(work / "all.csv").set_index("row"), pandas.read_csv(work / "test.csv")
    assert 0 < len(found) <= 60
    assert max(found["row"]) > 100  # numbers of the 120 rows, not of those that are left
    ages = pandas.read_csv(work / "train.csv")["age"]
    assert all(ages[row - 1] > 30 for row in found["row"])
    assert found["churned.yes"].tolist() == everything.loc[found["row"], "churned.yes"].tolist()


def test_a_split_of_the_own_data(run: Path, predict: Command, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    assert predict("split=test", f"output={work / 'test.csv'}", f"run={run}").code == 2  # with the input
    words = ["predict", f"run={run}", "split=test", f"output={work / 'test.csv'}"]
    assert run_in_this_process(*words, "columns=[id,age,churned.yes]").code == 0
    found = read_rows(work / "test.csv")
    data = open_own_data(predictor(run).run).dataset
    with torch.inference_mode():
        expected = load(run)(data.test.tensors["features"]).sigmoid()[:, 0]
    assert [float(row["churned.yes"]) for row in found] == pytest.approx(expected.tolist(), abs=1e-6)
    # the cells of the file itself
    source = pandas.read_csv(run.parent / "train.csv").set_index("id")
    assert [float(row["age"]) for row in found] == source.loc[[row["id"] for row in found], "age"].tolist()


WRONG: dict[tuple[str, ...], str] = {
    ("split=test",): "input and split together; leave one of them out",
    ("input=none.csv",): "no file 'none.csv'; did you mean 'new.csv'?",
    ("output=new.csv",): "the output 'new.csv' is the input file; write the predictions to another file",
    ("output=out.xlsx",): "write output=out.csv",
    ("colums=[id]",): "predict has no 'colums'; did you mean 'columns'?",
    ("columns=[idd]",): "columns: no output column 'idd'; did you mean 'id'?",
    ("data.delimitr=;",): "data.delimitr is not an option of reading; did you mean 'delimiter'?",
    ("data.delimiter=;",): "no column 'age'",
    ("keep=maybe",): "keep must be true or false, got 'maybe'",
    ("threshold=high",): "threshold must be a number, got 'high'",
    ("threshold=2",): "threshold must be a number from 0 to 1",
    ("checkpoint=newest",): "checkpoint must be best or last",
    ("run=nothing",): "no run in 'nothing'",
    ("--fast",): "predict takes words such as run=FOLDER, got '--fast'",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_arguments_write_nothing(predict: Command, work: Path, words: tuple[str, ...]) -> None:
    said = predict(*words)
    assert said.code == 2
    assert WRONG[words] in said.err
    assert [each.name for each in work.iterdir()] == ["new.csv"]


def test_words_of_commands_are_no_keys_of_a_spec() -> None:
    words = {*WORDS, "by", "file", "port", "prompt", "format"} - {
        "run",
        "imports",
        "seed",
    }  # which mean the same in both
    assert words & set(TOP_LEVEL_KEYS) == set()


LOADED = """
import sys
from dlspec.cli.main import run_command
code = run_command(sys.argv[1:])
heavy = {"sklearn", "pandas", "pyarrow"} & set(sys.modules)
print(code, sorted(heavy))
"""


def test_predict_imports_no_libraries_of_training(run: Path, work: Path) -> None:
    (work / "new.csv").write_text(format_csv(make_rows(3)), encoding="utf-8")
    words = ["predict", f"run={run}", "input=new.csv", "output=out.csv"]
    found = subprocess.run([sys.executable, "-c", LOADED, *words], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "0 []"
