"""Evaluating a finished run: the same results as training, by groups, on new files, and its files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_curve

import dlspec
from dlspec.cli.commands.evaluate import WORDS
from dlspec.errors import UserError
from dlspec.inference.evaluation.new_data import read_new_files, read_python_rows
from dlspec.inference.evaluation.run_evaluation import Evaluation, evaluate_run
from dlspec.inference.loading.loaded_run import LoadedRun, load_run
from dlspec.inference.loading.own_data import open_own_data
from dlspec.inference.predictor import Predictor
from dlspec.jobs.spec_keys import TOP_LEVEL_KEYS
from helpers.command_line import QUIET, run_in_this_process

COLUMNS = ("customer", "age", "plan", "country", "churned")


def write_rows(path: Path, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in range(count):
            age, plan = int(generator.integers(18, 80)), str(generator.choice(["basic", "pro"]))
            churned = (age - 50) / 20 + (plan == "pro") + generator.normal() > 1
            country = str(generator.choice(["DE", "FR", ""], p=[0.6, 0.37, 0.03]))
            writer.writerow([f"c{row}", age, plan, country, "yes" if churned else "no"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was trained on a table, with new rows beside it."""
    root = tmp_path_factory.mktemp("evaluation")
    write_rows(root / "churn.csv", 600, 0)
    write_rows(root / "new.csv", 80, 1)
    data = [f"data.path={root / 'churn.csv'}", "data.target=churned", "data.id=customer", "data.drop=[country]"]
    said = run_in_this_process(
        "model=mlp", "data=table", *data, "trainer.epochs=2", "trainer.progress=none", f"hydra.run.dir={root / 'run'}",
        *QUIET,
    )  # fmt: skip
    assert said.code == 0, said.err
    return root


@pytest.fixture(scope="module")
def run(folder: Path) -> LoadedRun:
    return load_run(folder / "run")


@pytest.fixture(scope="module")
def evaluation(run: LoadedRun) -> Evaluation:
    return evaluate_run(run, by="country", resamples=50)


def predict(run: LoadedRun, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
    """The probability of `yes`, without anything of an evaluation."""
    from dlspec.data.encoding.encoded_rows import encode_rows
    from dlspec.data.tables.python_rows import table_from_python

    assert run.preparation is not None
    columns = table_from_python(rows.astype(object)).columns
    features = encode_rows(run.preparation, columns, np.arange(len(rows))).fields["features"]
    import torch

    with torch.no_grad():
        probabilities = run.criterion.predict(run.network(torch.from_numpy(features)))
    return np.asarray(probabilities.numpy())


def read_test_rows(run: LoadedRun) -> pd.DataFrame:
    opened = open_own_data(run).select("test", run.data)
    assert opened.table is not None
    frame = pd.DataFrame({name: column.tolist() for name, column in opened.table.columns.items()})
    return frame.assign(probability=predict(run, frame[list(COLUMNS)]))


def test_results_equal_those_of_training(folder: Path, evaluation: Evaluation) -> None:
    expected = json.loads((folder / "run/result.json").read_text())["test"]
    assert {f"test/{name}": each.value for name, each in evaluation.metrics.items()} == expected
    assert all(each.low is not None and each.high is not None for each in evaluation.metrics.values())


def test_intervals_are_those_of_scikit_learn(run: LoadedRun, evaluation: Evaluation) -> None:
    rows = read_test_rows(run)
    truth, predicted = (rows["churned"] == "yes").to_numpy(), (rows["probability"] > 0.5).to_numpy()
    generator = np.random.default_rng(5)
    resamples = [generator.integers(0, len(rows), len(rows)) for _ in range(60)]
    for name, score in (("accuracy", accuracy_score), ("f1_score", f1_score)):
        expected = np.quantile([score(truth[each], predicted[each]) for each in resamples], [0.025, 0.975])
        found = evaluation.metrics[name]
        assert found.value == pytest.approx(score(truth, predicted))
        assert (found.low, found.high) == pytest.approx(expected, abs=0.05)


def test_groups_of_a_column_that_is_no_input_are_those_of_pandas(run: LoadedRun, evaluation: Evaluation) -> None:
    rows = read_test_rows(run)
    rows["right"] = (rows["probability"] > 0.5) == (rows["churned"] == "yes")
    expected = rows.fillna({"country": ""}).groupby("country")["right"].agg(["size", "mean"])
    assert {each.value: each.rows for each in evaluation.groups} == expected["size"].to_dict()
    found = {each.value: each.metrics["accuracy"].value for each in evaluation.groups}
    assert found == pytest.approx(expected["mean"].to_dict())
    assert [each.is_rare for each in evaluation.groups] == [each.rows < 10 for each in evaluation.groups]


def test_confusion_and_errors(run: LoadedRun, evaluation: Evaluation) -> None:
    rows = read_test_rows(run)
    predicted = np.where(rows["probability"] > 0.5, "yes", "no")
    target = evaluation.to_json()["targets"]["churned"]
    assert target["confusion"] == confusion_matrix(rows["churned"], predicted, labels=["no", "yes"]).tolist()
    wrong = rows[predicted != rows["churned"]]
    doubt = np.maximum(wrong["probability"], 1 - wrong["probability"])
    found = [each["probability"] for each in target["errors"]]
    assert found == pytest.approx(sorted(doubt, reverse=True)[:50], abs=1e-6)
    assert {each["id"] for each in target["errors"]} == set(wrong["customer"])
    worst = target["errors"][0]
    row = wrong[wrong["customer"] == worst["id"]].iloc[0]
    assert worst["input"] == {"age": row["age"], "plan": row["plan"]}
    assert worst["truth"] == row["churned"] != worst["prediction"]
    assert worst["probability"] == pytest.approx(doubt.max(), abs=1e-6)


def test_the_threshold_is_chosen_on_validation_rows(run: LoadedRun, evaluation: Evaluation) -> None:
    (chosen,) = evaluation.thresholds
    opened = open_own_data(run).select("validation", run.data)
    assert opened.table is not None
    frame = pd.DataFrame({name: column.tolist() for name, column in opened.table.columns.items()})
    probability, truth = predict(run, frame[list(COLUMNS)]), frame["churned"] == "yes"
    precision, recall, _ = precision_recall_curve(truth, probability)
    assert chosen.threshold.score == pytest.approx(np.max(2 * precision * recall / (precision + recall + 1e-12)))
    rows = read_test_rows(run)
    assert chosen.score == pytest.approx(
        f1_score(rows["churned"] == "yes", rows["probability"] > chosen.threshold.value)
    )
    if chosen.threshold.value != 0.5:
        assert f"threshold={chosen.threshold.value:g}" in str(evaluation)


def test_a_new_file_is_evaluated_as_a_whole(folder: Path, run: LoadedRun) -> None:
    frame = pd.read_csv(folder / "new.csv", dtype=str, keep_default_na=False)
    found = evaluate_run(run, read_new_files(run, str(folder / "new.csv"), {}), resamples=0)
    predicted = np.where(predict(run, frame) > 0.5, "yes", "no")
    assert found.rows == 80
    assert found.metrics["accuracy"].value == pytest.approx(accuracy_score(frame["churned"], predicted))
    again = evaluate_run(run, read_python_rows(run, frame), resamples=0)
    assert again.metrics == found.metrics
    assert again.to_json()["data"] == {"split": None, "path": None, "rows": 80, "left_out": 0}


def test_a_predictor_evaluates_files_rows_and_splits(folder: Path, run: LoadedRun, evaluation: Evaluation) -> None:
    model = Predictor(run)
    values = {name: each.value for name, each in evaluation.metrics.items()}
    assert {name: each.value for name, each in model.evaluate(resamples=0).metrics.items()} == values
    by_path = model.evaluate(folder / "new.csv", by="plan", resamples=0)
    assert {each.value for each in by_path.groups} == {"basic", "pro"}
    frame = pd.read_csv(folder / "new.csv", dtype=str, keep_default_na=False)
    assert model.evaluate(frame, resamples=0).metrics == by_path.metrics


def test_rows_that_can_not_be_evaluated_are_left_out(folder: Path, run: LoadedRun) -> None:
    lines = (folder / "new.csv").read_text().splitlines()
    path = folder / "wrong.csv"
    path.write_text("\n".join([*lines, "c1,30,basic,DE,perhaps", "c2,old,pro,FR,yes", "c3,30,pro"]) + "\n")
    found = evaluate_run(run, read_new_files(run, str(path), {}), resamples=0)
    assert (found.rows, found.data.left_out) == (80, 3)
    assert [reason.partition(": ")[0].rpartition(":")[2] for reason in found.data.reasons] == ["82", "83", "84"]


def test_classes_that_a_file_lacks_are_no_error(folder: Path, run: LoadedRun) -> None:
    lines = (folder / "new.csv").read_text().splitlines()
    path = folder / "one_class.csv"
    path.write_text("\n".join([lines[0], *(each for each in lines[1:] if each.endswith("no"))]) + "\n")
    found = evaluate_run(run, read_new_files(run, str(path), {}), resamples=20)
    assert found.to_json()["targets"]["churned"]["confusion"][1] == [0, 0]


def test_wrong_requests_are_refused_with_a_fix(folder: Path, run: LoadedRun) -> None:
    lines = (folder / "new.csv").read_text().splitlines()
    path = folder / "no_target.csv"
    path.write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n")
    with pytest.raises(UserError, match=r"no column 'churned', which the run predicts.*dlspec predict run=.*input="):
        read_new_files(run, str(path), {})
    with pytest.raises(UserError, match="no column 'age', which the run needs"):
        read_python_rows(run, [{"plan": "pro", "churned": "yes"}])
    with pytest.raises(UserError, match=r"unknown column 'land'.*choose one of customer, age, plan, country, churned"):
        evaluate_run(run, by="land", resamples=0)
    with pytest.raises(UserError, match=r"unknown split 'tset'"):
        evaluate_run(run, split="tset", resamples=0)  # type: ignore[arg-type]


def test_the_command_writes_its_files_and_leaves_the_run_alone(folder: Path) -> None:
    made = folder / "run"
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file() and "evaluations" not in path.parts}
    said = run_in_this_process("evaluate", f"run={made}", "by=country", "resamples=20")
    assert (said.code, said.err) == (0, "")
    again = run_in_this_process(
        "evaluate", f"run={made}", f"data.path={folder / 'new.csv'}", "resamples=0", "pictures=false"
    )
    assert again.code == 0
    after = {path: path.read_bytes() for path in made.rglob("*") if path.is_file() and "evaluations" not in path.parts}
    assert after == before
    names = sorted(path.name for path in (made / "evaluations").iterdir())
    assert [name.partition("_predictions")[0].endswith(".json") for name in names].count(True) == 2
    assert sum(name.endswith("_predictions.png") for name in names) == 1
    written = [json.loads(path.read_text()) for path in sorted((made / "evaluations").glob("*.json"))]
    by_file = {each["data"]["path"]: each for each in written}
    assert by_file[None]["by"]["column"] == "country" and by_file[None]["data"]["split"] == "test"
    assert by_file[None]["epoch"] in (1, 2) and by_file[None]["checkpoint"] == "best"
    assert by_file[str(folder / "new.csv")]["metrics"]["accuracy"]["low"] is None
    assert "accuracy" in said.out and "(missing)" in said.out


def test_the_command_refuses_what_it_does_not_know(folder: Path) -> None:
    made = f"run={folder / 'run'}"
    for words, expected in (
        ([made, "splits=test"], "did you mean 'split'?"),
        ([made, "split=tset"], "split must be train, validation, test, got 'tset'"),
        ([made, "resamples=-1"], "resamples must be a whole number from 0"),
        ([made, "checkpoint=first"], "checkpoint must be best or last"),
        ([made, "data.path=nothing.csv"], "nothing.csv"),
        ([made, "data.path=null"], "data.path must be a file or a list of files, got null"),
        ([made, f"data.path={folder / 'new.csv'}", "data.delimitr=x"], "delimiter"),
        ([], "no run given"),
    ):
        said = run_in_this_process("evaluate", *words)
        assert said.code == 2 and expected in said.err, (words, said)
        assert said.out == ""


def test_nothing_is_written_through_a_link(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run", ignore=shutil.ignore_patterns("evaluations"))
    (tmp_path / "outside").mkdir()
    (tmp_path / "run/evaluations").symlink_to(tmp_path / "outside")
    said = run_in_this_process("evaluate", f"run={tmp_path / 'run'}", "resamples=0")
    assert said.code == 2 and "evaluations' is a symbolic link" in said.err
    assert not any((tmp_path / "outside").iterdir())


def test_words_of_the_command_are_no_keys_of_a_spec() -> None:
    assert {*WORDS} & set(TOP_LEVEL_KEYS) == {"imports"}  # which means the same


def test_images_and_labels_are_evaluated_as_a_pair(tmp_path: Path) -> None:
    quiet = {"max_steps": 20, "progress": "none", "curves": False, "pictures": False}
    folder = dlspec.train({"model": "linear", "trainer": quiet}, data="digits", folder=tmp_path).folder
    digits, model = load_digits(), dlspec.predictor(folder)
    images, labels = digits.images[:200], digits.target[:200]
    with torch.no_grad():
        outputs = dlspec.load(folder)(torch.tensor(images[:, None] / 16).float())
    found = model.evaluate((images, labels), resamples=0).metrics["accuracy"].value
    assert found == pytest.approx(accuracy_score(labels, outputs.argmax(1)))
    with pytest.raises(UserError, match=r"no column 'image'.* 1 x 8 x 8 numbers for each row, in an npz file"):
        model.predict(pd.DataFrame(digits.data[:2]))
