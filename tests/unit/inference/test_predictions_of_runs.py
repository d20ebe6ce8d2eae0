"""Predictions of a saved run are those that training computed: for every model of conf/ and kind of data that fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dlspec.data.dataset import Split
from dlspec.inference.answers.row_predictions import join_chunks
from dlspec.inference.loading.loaded_run import load_run
from dlspec.inference.loading.own_data import open_own_data
from dlspec.inference.predictor import Predictor
from dlspec.inference.rows.split_chunks import iterate_split_chunks
from helpers.paths import ROOT
from helpers.predicted_runs import (
    CASES,
    OWN_MODELS,
    SMALL_MODELS,
    are_close,
    find_rows_of_test,
    join_batches,
    take_rows,
    train_and_capture,
    write_files,
)

DRAWING = ("vae",)  # draw in eval mode, so that a batch of training and a row are not comparable
QUICK = [("mlp", "table of two classes"), ("text_gru", "text csv"), ("lenet5", "mnist"), ("gpt_small", "characters")]


def check_run(model: str, case: str, folder: Path) -> bool:
    """Compare a run's predictions with those of its training; False if the model does not fit the data."""
    run = train_and_capture(model, CASES[case], folder)
    if run is None:
        return False
    loaded = load_run(run.folder)
    assert not loaded.has_samples
    predictor = Predictor(loaded)
    found = [batch.values for batch in predictor.chunks.batches.iterate_batches(run.data.test)]
    others = [batch.values for batch in Predictor(loaded, 5).chunks.batches.iterate_batches(run.data.test)]
    joined = [batch.values for batch in predictor.chunks.batches.predict_split(run.data.test)]
    assert len(found) == len(run.batches) > 1 and found[0]
    assert_equal(join_batches(joined), join_batches(found))
    if run.batches[0] and "" not in run.batches[0]:
        if model not in DRAWING:
            for one, expected in zip(found, run.batches, strict=True):
                assert one.keys() == expected.keys()
                assert all(torch.equal(one[name], expected[name]) for name in one)
        expected_rows, rows = join_batches(found), join_batches(others)
        assert all(are_close(rows[name], expected_rows[name]) for name in rows)
    check_rows(case, run, predictor)
    if CASES[case].arrays is None:
        check_split(run.data.test, predictor)
    return True


def check_split(test: Split, predictor: Predictor) -> None:
    """Compare the answers to a split's raw rows, where there are some, with those to its samples."""
    rows = open_own_data(predictor.run).select("test", predictor.run.data)
    ways = [rows] if rows.table is None else [rows, replace(rows, table=None)]
    found = [join_chunks(list(predictor.chunks.predict(iterate_split_chunks(each, 7)))) for each in ways]
    for each in found:
        assert len(each) == len(test) and not each.problems
        assert set(predictor.names) <= set(each.columns)
    is_token = any(each.next_of for each in predictor.run.data.targets)  # the token after a text, or after its sample
    if len(found) > 1 and not is_token:
        for name in predictor.names:
            assert found[0][name].tolist() == found[1][name].tolist()


def assert_equal(found: Mapping[str, Sequence[Tensor]], expected: Mapping[str, Sequence[Tensor]]) -> None:
    """Check that the rows of each target are equal to the last bit."""
    assert found.keys() == expected.keys()
    for name, rows in found.items():
        assert all(torch.equal(one, other) for one, other in zip(rows, expected[name], strict=True))


def check_rows(case: str, run, predictor: Predictor) -> None:
    """Compare the predictions of raw rows with those of the encoded test split."""
    if CASES[case].rows is None:
        return
    rows = CASES[case].rows(Path.cwd())
    if any(name in (each.name for each in run.data.targets) for name in predictor.run.inputs):
        assert len(predictor.predict(rows)) >= len(run.data.test)  # written token by token
        return
    chosen = find_rows_of_test(predictor.prepare(rows), run.data, predictor.run.inputs)
    raw = predictor.prepare(take_rows(rows, chosen))
    assert all(torch.equal(raw[name], run.data.test.input(name)) for name in raw)
    answers = predictor.predict(take_rows(rows, chosen), probabilities=True)
    assert not answers.problems
    assert list(answers.columns)[1:] and len(answers) == len(run.data.test)
    assert predictor.names == list(predictor.predict(take_rows(rows, chosen[:2])).columns)[1:]


@pytest.fixture(autouse=True)
def _no_warning_of_numbers(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Rows like those of the training are not said to be of another scale."""
    yield
    assert not [each.getMessage() for each in caplog.records if "those of the training" in each.getMessage()]


@pytest.fixture
def files(work: Path) -> Path:
    write_files(work)
    return work


@pytest.mark.parametrize(("model", "case"), QUICK)
def test_predictions_are_those_of_training(model: str, case: str, files: Path) -> None:
    assert check_run(model, case, files / "run")


def test_every_model_is_small_here() -> None:
    assert {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")} == set(SMALL_MODELS)


@pytest.mark.soak
@pytest.mark.parametrize("model", [*SMALL_MODELS, *OWN_MODELS])
def test_a_model_predicts_as_in_training_on_all_data_that_fit(model: str, files: Path) -> None:
    fitting = [case for case in CASES if check_run(model, case, files / "runs" / case.replace(" ", "_"))]
    print(f"{model}: {len(fitting)} of {len(CASES)}: {', '.join(fitting)}")
    assert fitting
