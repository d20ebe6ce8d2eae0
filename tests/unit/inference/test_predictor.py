"""`dlspec.predictor`: what it takes, what it gives, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

import dlspec
from dlspec.errors import UserError
from dlspec.inference.answers.batch_prediction import BatchPredictor
from dlspec.inference.answers.row_predictions import Predictions
from dlspec.jobs.python_spec import prepare_spec
from helpers.predicted_runs import CASES, train_and_capture, write_files

QUIET = {"trainer": {"max_steps": 2, "progress": "none", "curves": False, "pictures": False}}

TRAINED = [
    ("mlp", "table of two classes"),
    ("mlp", "table of labels"),
    ("seq2seq", "random answers"),
    ("seq2seq", "table of answers"),
    ("gpt_small", "characters"),
    ("vae", "mnist to image"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of rows, with runs that were trained on some of them."""
    folder = tmp_path_factory.mktemp("predictor")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for model, case in TRAINED:
            assert train_and_capture(model, CASES[case], folder / "runs" / case.replace(" ", "_"))
    return folder


@pytest.fixture
def churn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dlspec.Predictor:
    monkeypatch.chdir(folder)
    return dlspec.predictor("runs/table_of_two_classes")


def read_rows(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rows.csv")


def are_equal(one: Predictions, other: Predictions) -> bool:
    return list(one.columns) == list(other.columns) and one.rows == other.rows


def test_rows_frames_and_columns_are_predicted_alike(churn: dlspec.Predictor, folder: Path) -> None:
    frame = read_rows(folder)
    wanted = churn.predict(frame)
    assert list(wanted.columns) == ["row", "churned", "churned.yes"] == ["row", *churn.names]
    assert churn.classes == {"churned": ("no", "yes")}
    for data in (frame.to_dict("records"), {name: frame[name].tolist() for name in frame}, frame.astype(str)):
        assert are_equal(churn.predict(data), wanted)
    assert wanted["row"].tolist() == list(range(1, 61)) and len(wanted.rows) == len(wanted) == 60
    assert wanted["churned"].tolist() == ["yes" if each > 0.5 else "no" for each in wanted["churned.yes"]]
    assert wanted.to_pandas().equals(pd.DataFrame(wanted.rows))
    assert repr(wanted).startswith("Predictions(60 rows of row, churned, churned.yes)\n  {'row': 1, 'churned': ")
    assert repr(churn) == "Predictor(runs/table_of_two_classes: age, plan, spend, joined -> churned)"


def test_files_are_read_as_those_of_the_training(churn: dlspec.Predictor, folder: Path, tmp_path: Path) -> None:
    wanted = churn.predict(read_rows(folder))
    assert are_equal(churn.predict("rows.csv"), wanted)
    read_rows(folder)[:30].to_csv(tmp_path / "a.csv", index=False)
    read_rows(folder)[30:].to_csv(tmp_path / "b.csv", index=False)
    for data in (str(tmp_path / "*.csv"), [tmp_path / "a.csv", tmp_path / "b.csv"]):
        found = churn.predict(data)  # in other batches, as each file has its own
        assert all(np.array_equal(found[name], wanted[name]) for name in ("row", "churned"))
        assert np.allclose(found["churned.yes"], wanted["churned.yes"], atol=1e-6)
    with pytest.raises(dlspec.UserError, match=r"nothing\.csv"):
        churn.predict("nothing.csv")


def test_predictions_are_a_sequence_of_rows_and_columns_of_arrays(churn: dlspec.Predictor, folder: Path) -> None:
    rows = read_rows(folder)[:9].to_dict("records")
    found = churn.predict([*rows, {**rows[0], "age": "old"}] * 200)
    assert len(found) == 2_000 and list(found) == found.rows == [found[at] for at in range(2_000)]
    assert found[-1] == {"row": 2_000, "churned": None, "churned.yes": None}
    assert [*map(type, found[0].values())] == [int, str, float] and found[np.int64(1)]["row"] == 2
    for wrong in (2_000, -2_001):
        with pytest.raises(IndexError, match="there are 2,000"):
            found[wrong]
    with pytest.raises(KeyError, match="did you mean 'churned'"):
        found["churn"]
    whole = churn.predict(rows)
    assert [whole[name].dtype for name in whole.columns] == [np.int64, object, np.float32]
    assert whole.to_pandas()["churned.yes"].dtype == np.float64


def test_the_network_gets_what_prepare_returns(churn: dlspec.Predictor, folder: Path) -> None:
    frame = read_rows(folder)
    prepared = churn.prepare(frame)["features"]
    with torch.no_grad():
        probability = torch.sigmoid(dlspec.load(churn.run.folder)(prepared)).squeeze(1)
    assert torch.allclose(torch.tensor(churn.predict(frame)["churned.yes"]), probability, atol=1e-6)


def test_what_is_written_can_be_chosen(churn: dlspec.Predictor, folder: Path) -> None:
    frame = read_rows(folder)[:5]
    plain, both = churn.predict(frame), churn.predict(frame, probabilities=True)
    assert list(both.columns) == ["row", "churned", "churned.yes", "churned.no"]
    assert np.allclose(np.add(both["churned.yes"], both["churned.no"]), 1)
    assert list(churn.predict(frame, columns=["churned", "row"]).columns) == ["churned", "row"]
    for data in (frame, "rows.csv"):
        named = churn.predict(data, columns=["price", "churned", "row"])
        assert list(named.columns) == ["price", "churned", "row"]
        assert list(map(float, named["price"][:5])) == frame["price"].tolist() and named["row"][:3].tolist() == [
            1,
            2,
            3,
        ]
    kept = churn.predict(frame, keep=True)
    assert list(kept.columns) == [*(name for name in frame if name != "churned"), "churned", "churned.yes"]
    middle = sorted(plain["churned.yes"])[2]
    assert churn.predict(frame, threshold=middle)["churned"].tolist().count("yes") == 3
    with pytest.raises(dlspec.UserError, match="columns: no output column 'churn'; did you mean 'churned'"):
        churn.predict(frame, columns=["churn"])
    with pytest.raises(dlspec.UserError, match="threshold must be a number from 0 to 1, got 2"):
        churn.predict(frame, threshold=2)


def test_rows_that_can_not_be_read_keep_their_place(churn: dlspec.Predictor, folder: Path) -> None:
    rows = read_rows(folder)[:4].to_dict("records")
    wanted = churn.predict(rows)
    found = churn.predict([rows[0], {**rows[1], "age": "old"}, rows[2], {**rows[3], "plan": "never seen"}])
    assert found["churned"][1] is None and found["churned.yes"][1] is None
    assert found["churned.yes"][::2].tolist() == pytest.approx(wanted["churned.yes"][::2].tolist(), abs=1e-6)
    assert list(found.problems) == [1] and "'old' is not a number" in found.problems[1]
    assert found.notes["unknown", "plan"] == 1
    assert churn.predict([{**rows[0], "age": "old"}])["churned"].tolist() == [None]
    reason = churn.predict([{**rows[0], "age": "\x1b[2J" + "x" * 100_000}]).problems[0]
    assert reason.isprintable() and len(reason) < 1000
    with pytest.raises(dlspec.UserError, match="row 1: age: 'old' is not a number"):
        churn.prepare([{**rows[0], "age": "old"}])


def test_a_missing_column_is_named(churn: dlspec.Predictor) -> None:
    with pytest.raises(dlspec.UserError, match="no column 'age' and 2 more, which the run was trained on"):
        churn.predict([{"plan": "a"}])
    with pytest.raises(dlspec.UserError, match="the run takes several columns"):
        churn.predict(np.zeros((3, 7)))


def test_arguments_without_effect_are_refused(churn: dlspec.Predictor) -> None:
    rows = [{"age": 30}]
    with pytest.raises(dlspec.UserError, match="split='validation' has no effect on new rows"):
        churn.evaluate(rows, split="validation")
    with pytest.raises(dlspec.UserError, match="resamples must be a whole number from 0 to 100,000, got -1"):
        churn.evaluate(resamples=-1)
    for columns, message in (([], "at least one output column"), (["row", "row"], "'row' is given twice")):
        with pytest.raises(dlspec.UserError, match=message):
            churn.predict(rows, columns=columns)


def test_large_rows_are_encoded_in_smaller_chunks(churn: dlspec.Predictor, work: Path) -> None:
    images = np.random.default_rng(0).random((12, 3, 256, 256), np.float32)
    layers = [{"AvgPool2d": 256}, "Flatten", {"Linear": 2}]
    spec = {"model": {"layers": layers}, "trainer": {"epochs": 1, "progress": "none"}}
    result = dlspec.train(spec, data=(images, np.arange(12) % 2), folder=work)
    model = dlspec.predictor(result.folder)
    assert churn.chunks.max_rows >= 8_192
    assert model.chunks.max_rows % model.chunks.batches.batch_size == 0
    assert model.chunks.max_rows * images[0].size <= max(2**22, model.chunks.batches.batch_size * images[0].size)


def test_labels_are_joined(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = dlspec.predictor("runs/table_of_labels").predict(read_rows(folder), probabilities=True)
    labels = ("art", "sport", "war")
    for row in found.rows:
        assert row["topics"] == "|".join(each for each in labels if row[f"topics.{each}"] > 0.5)


def test_threads_predict_alike(churn: dlspec.Predictor, folder: Path) -> None:
    frame = read_rows(folder)
    wanted = churn.predict(frame)
    with ThreadPoolExecutor(4) as pool:
        assert all(are_equal(each, wanted) for each in pool.map(churn.predict, [frame] * 8))


def test_random_numbers_depend_on_the_row_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    predictor = dlspec.predictor("runs/mnist_to_image")
    images = np.random.default_rng(0).integers(0, 256, (9, 1, 28, 28))
    state = torch.get_rng_state()
    wanted = np.array(predictor.predict(images)["image"])
    assert torch.equal(torch.get_rng_state(), state)
    assert wanted.shape == images.shape
    again = dlspec.predictor("runs/mnist_to_image", batch_size=2).predict(images)
    assert np.allclose(again["image"], wanted, atol=1e-6)
    twice = np.array(predictor.predict(images[[0, 0]])["image"])
    assert np.array_equal(twice[0], twice[0]) and not np.allclose(twice[0], twice[1])
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(each["image"], wanted) for each in pool.map(predictor.predict, [images] * 4))


def test_other_draws_are_seeded_row_by_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run = dlspec.predictor("runs/table_of_two_classes").run
    run.network.register_forward_hook(lambda module, inputs, output: output + torch.normal(0.0, 1.0, output.shape))
    one, other = BatchPredictor(run, 2), BatchPredictor(run, 5)
    width = run.data.train.tensors["features"].shape[1]
    inputs = [torch.zeros(5, width)]
    found, again = (each.predict_inputs(inputs, range(5))["churned"] for each in (one, other))
    assert torch.equal(found, again) and len(set(found.tolist())) == 5


def test_texts_are_written_greedily(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    source = np.random.default_rng(1).integers(0, 20, (6, 12))
    found = dlspec.predictor("runs/random_answers").predict({"source": source})["answer"]
    network = dlspec.load("runs/random_answers")
    written = torch.zeros(6, 0, dtype=torch.int64)
    with torch.no_grad():
        for step in range(5):  # by hand: the correct words so far, shifted by one step, and zeros for those to come
            before = torch.zeros(6, 5, dtype=torch.int64)
            before[:, 1 : step + 1] = written
            chosen = network(torch.tensor(source), before)[:, step].argmax(1)
            written = torch.cat([written, chosen[:, None]], 1)
    assert found.tolist() == [[str(each) for each in row] for row in written.tolist()]


def test_a_written_text_ends_with_its_end_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    predictor, sources = dlspec.predictor("runs/table_of_answers"), ["win a prize", "now", "see you at lunch today"]
    *_, bias = predictor.run.network.parameters()
    found: dict[float, list[str]] = {}
    for end in (-9.0, 0.1, 9.0):  # the end token is never, sometimes, or always the most probable
        with torch.no_grad():
            bias[2] = end
        found[end] = predictor.predict([{"source": each} for each in sources])["answer"].tolist()
        assert found[end] == write_by_hand(predictor, sources)
    assert found[9.0] == ["", "", ""] and all(len(each.split()) == 3 for each in found[-9.0])


def write_by_hand(predictor: dlspec.Predictor, sources: list[str]) -> list[str]:
    """Write each text by itself, one token after another."""
    words = predictor.run.data.targets[0].classes
    texts = []
    for source in sources:
        prepared, tokens = predictor.prepare([{"source": source}]), list[int]()
        while len(tokens) < 3 and 2 not in tokens:
            before = torch.tensor([([0, *tokens] + [0] * 3)[:3]])
            given = {**prepared, "answer": before, "answer_lengths": torch.tensor([3])}
            with torch.no_grad():
                output = predictor.run.network(*(given[name] for name in predictor.run.inputs))
            tokens.append(int(output[0, len(tokens)].argmax()))
        texts.append(" ".join({0: "", 1: "…"}.get(each, words[each]) for each in tokens if each != 2))
    return texts


def test_the_token_after_a_text_is_predicted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    predictor = dlspec.predictor("runs/characters")
    texts = ["win a", "a free prize now or see you at lunch today my friend", "w"]
    found = predictor.predict([{"text": each} for each in texts])
    characters = predictor.run.data.targets[0].classes
    network = dlspec.load("runs/characters")
    for text, chosen, probability in zip(texts, found["next"], found["next.probability"], strict=True):
        tokens = [characters.index(each) for each in text[-32:]]
        with torch.no_grad():
            output = network(torch.tensor([tokens + [0] * (32 - len(tokens))]))[0, len(tokens) - 1].softmax(0)
        assert chosen == characters[int(output.argmax())] and probability == pytest.approx(
            float(output.max()), abs=1e-6
        )
    assert predictor.predict([{"text": "日"}, {"text": ""}]).problems.keys() == {0, 1}


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_a_run_is_loaded_without_its_data(work: Path) -> None:
    write_files(work)
    result = dlspec.train({"model": "mlp", **QUIET, "data": {"type": "table", "path": "rows.csv", "target": "churned"}},
                          folder="runs")  # fmt: skip
    frame = read_rows(work)
    wanted = dlspec.predictor(result.folder).predict(frame)
    for path in work.glob("rows.*"):
        path.unlink()
    moved = work / "elsewhere"
    shutil.move(str(result.folder), moved)
    assert are_equal(dlspec.predictor(moved).predict(frame), wanted)
    assert dlspec.predictor(moved, checkpoint="last").run.step == 2
    with pytest.raises(dlspec.UserError, match="checkpoint must be best or last, got 'first'"):
        dlspec.predictor(moved, checkpoint="first")


def test_arrays_given_in_python_are_not_needed_again(work: Path) -> None:
    x = np.random.default_rng(0).random((40, 4), np.float32)
    result = dlspec.train({"model": "mlp", **QUIET}, {"x": x, "target": np.arange(40) % 3}, folder="runs")
    predictor = dlspec.predictor(result.folder)
    found = predictor.predict(x, probabilities=True)
    with torch.no_grad():
        wanted = result.network(torch.tensor(x)).softmax(1)
    assert np.allclose([[row[f"target.{each}"] for each in "012"] for row in found.rows], wanted, atol=1e-6)
    assert found["target"].tolist() == [str(int(each)) for each in wanted.argmax(1)]
    assert "3 numbers, expected" in predictor.predict([{"x": [1.0, 2.0, 3.0]}, {"x": [1, 2, 3, 4]}]).problems[
        0
    ].replace("numbers of shape (3)", "3 numbers")


def test_a_table_is_prepared_as_the_images_of_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28))
    np.savez("images.npz", image=images)
    settings = {"type": "table", "path": "images.npz", "target": "image", "prepare": "runs/mnist_to_image"}
    data = prepare_spec({"model": "autoencoder"}, settings).open().data
    assert data.fields[0].shape == (1, 28, 28) and data.fields[0].layout == "channels-first"
    found = torch.cat([each.tensors["image"] for each in (data.train, data.validation, data.test)])
    wanted = {(each.astype(np.float32) / np.float32(255)).tobytes() for each in images}
    assert {each.numpy().tobytes() for each in found} == wanted


@pytest.mark.parametrize("change", [
    {"dataset": 1}, {"dataset": {"format": 2}}, {"dataset": {"format": 1, "fields": [1]}},
    {"columns": {"x": {"kind": "nothing"}}},
])  # fmt: skip
def test_a_damaged_description_is_refused(change: dict[str, object], work: Path) -> None:
    x = np.random.default_rng(0).random((40, 4), np.float32)
    result = dlspec.train({"model": "mlp", **QUIET}, {"x": x, "target": np.arange(40) % 3}, folder="runs")
    (weights,) = result.folder.glob("checkpoints/best.safetensors")
    with safe_open(weights, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    saved = json.loads(metadata["preprocessing"])
    metadata["preprocessing"] = json.dumps({**saved, **change})
    from safetensors.torch import save_file

    save_file(tensors, weights, metadata)
    with pytest.raises(dlspec.UserError):
        dlspec.predictor(result.folder).predict(x)


def test_a_strangers_code_is_not_run(churn: dlspec.Predictor, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / churn.run.folder, tmp_path / "run")
    spec = tmp_path / "run" / "spec.yaml"
    spec.write_text("imports: [harmful]\n" + spec.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(dlspec.SpecError, match="this spec runs code from harmful"):
        dlspec.predictor(tmp_path / "run")
    (tmp_path / "harmful.py").write_text("", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        assert dlspec.predictor(tmp_path / "run", imports=["harmful"]).names == churn.names


def test_links_in_a_run_are_not_followed(churn: dlspec.Predictor, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / churn.run.folder, tmp_path / "run")
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    best.rename(tmp_path / "outside.safetensors")
    best.symlink_to(tmp_path / "outside.safetensors")
    (tmp_path / "run" / "checkpoints" / "last.safetensors").unlink()
    with pytest.raises(dlspec.UserError, match=r"no weights of this run: .* has no best\.safetensors"):
        dlspec.predictor(tmp_path / "run")


def test_the_runs_own_setting_says_where_to_compute(churn: dlspec.Predictor, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(churn.run.folder, run)
    spec = (run / "spec.yaml").read_text(encoding="utf-8")
    assert "\n  device: " in spec
    (run / "spec.yaml").write_text(re.sub(r"\n  device: .*", "\n  device: cuda:77", spec), encoding="utf-8")
    with pytest.raises(UserError, match=r"^the run's trainer.device: no device 'cuda:77' on .*; write device=cpu$"):
        dlspec.predictor(run)
    with pytest.raises(UserError, match=r"^device: no device 'gpu' on this machine"):
        dlspec.predictor(run, device="gpu")
    chosen = dlspec.predictor(run, device="cpu")
    assert chosen.run.device == torch.device("cpu")
    assert are_equal(chosen.predict(folder / "rows.csv"), churn.predict(folder / "rows.csv"))
    assert next(dlspec.load(run).parameters()).device == torch.device("cpu")  # the bare network needs no GPU
