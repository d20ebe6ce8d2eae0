"""Predictions and evaluations of image files, folders, tables and images in Python: prepared as validation was."""

from __future__ import annotations

import base64
import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import binary_cross_entropy, nll_loss

import dlspec
from dlspec.data.lazy_array import read_pictures, read_rows
from dlspec.inference.loading.loaded_run import load_run
from dlspec.inference.loading.own_data import open_own_data
from dlspec.inference.predictor import Predictor
from helpers.command_line import CommandResult
from helpers.image_files import encode, make_pixels, write_image
from helpers.predicted_runs import DataCase, PredictedRun, train_and_capture

SIZE = "data.columns={image: {image: {size: [16, 16], scale: standard}}}"
CASES = {
    "folder": ("cnn", ["data=images", "data.path=animals", "data.size=16", "data.scale=standard"]),
    "table": ("cnn", ["data=table", "data.path=animals.csv", "data.target=label", SIZE, "data.drop=[age,number]"]),
    "masks": (
        "unet",
        ["data=files", 'data.path="animals/{label}/{n}.png"', "data.columns={image: {image: {size: 16}}}",
         'data.target={mask: {mask: {path: "masks/{n}.png", classes: {0: dark, 1: light, 255: null}}}}'],
    ),
    "masks of three classes": (
        "unet",
        ["data=table", "data.path=animals.csv", 'data.only=[image]', "data.columns={image: {image: {size: 16}}}",
         'data.target={mask: {mask: {path: "masks/{number}.png", classes: {0: dark, 1: light, 2: none}}}}'],
    ),
    "pairs": (
        "siamese",
        ["data=table", "data.path=pairs.csv", "data.target=same",
         "data.columns={left: {image: {size: 28, mode: grey}}, right: {image: {size: 28, mode: grey}}}"],
    ),
}  # fmt: skip


def write_animals(folder: Path) -> None:
    rows, pairs = [], []
    for row in range(40):
        file, shape = f"animals/{'cat' if row % 2 else 'dog'}/{row}.png", (18 + row % 3, 24)
        pixels = make_pixels(*shape, 1 if row % 5 == 0 else 3, row)
        write_image(folder / file, pixels)
        mask = (pixels.reshape(*shape, -1)[..., 0] > 128).astype(np.uint8)
        mask[:2] = 255
        write_image(folder / "masks" / f"{row}.png", mask)
        rows.append({"image": file, "label": "cat" if row % 2 else "dog", "age": row % 7, "number": row})
        pairs.append({"left": file, "right": rows[row // 2]["image"], "same": row % 2})
    for name, table in (("animals", rows), ("pairs", pairs)):
        with (folder / f"{name}.csv").open("w", newline="") as opened:
            writer = csv.DictWriter(opened, list(table[0]))
            writer.writeheader()
            writer.writerows(table)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PredictedRun]:
    folder = tmp_path_factory.mktemp("animals")
    write_animals(folder)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, (model, overrides) in CASES.items():
            run = train_and_capture(model, DataCase(overrides), folder / "runs" / name)
            assert run is not None, name
            found[name] = run
    return found


@pytest.fixture
def here(runs: dict[str, PredictedRun], monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = runs["folder"].folder.parents[1]
    monkeypatch.chdir(folder)
    return folder


def load(name: str) -> Predictor:
    return Predictor(load_run(f"runs/{name}"))


@pytest.mark.parametrize("name", CASES)
def test_saved_runs_predict_as_training_did(name: str, runs: dict[str, PredictedRun], here: Path) -> None:
    predictor = load(name)
    assert not predictor.run.has_samples
    found = [batch.values for batch in predictor.chunks.batches.iterate_batches(runs[name].data.test)]
    for one, expected in zip(found, runs[name].batches, strict=True):
        assert all(torch.equal(one[each], expected[each]) for each in expected)


FILES = ["animals/cat/1.png", "animals/dog/0.png", "animals/cat/3.png"]


def read_pixels(file: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("name", ["folder", "table"])
def test_images_are_predicted_from_anywhere(name: str, here: Path) -> None:
    predictor, count = load(name), len(FILES)
    rows = [{"image": file} for file in FILES]
    with (here / "new.csv").open("w") as file:
        file.write("image\n" + "\n".join(FILES) + "\n")
    given = {
        "files": FILES, "rows": rows, "table": "new.csv", "pillow": [Image.open(each) for each in FILES],
        "bytes": [Path(each).read_bytes() for each in FILES], "arrays": [read_pixels(each) for each in FILES],
        "mappings": [{"image": {"bytes": Path(each).read_bytes(), "path": None}} for each in FILES],
        "other format": [encode(read_pixels(each), "TIFF") for each in FILES],
    }  # fmt: skip
    expected = predictor.predict(FILES, probabilities=True)
    assert next(iter(expected.columns)) == "file" and len(expected) == count and not expected.problems
    for form, data in given.items():
        found = predictor.predict(data, probabilities=True)
        for column in list(expected.columns)[1:]:
            np.testing.assert_array_equal(found[column], expected[column], err_msg=form)
    one = predictor.predict(Image.open(FILES[0]))
    assert len(one) == 1 and one["label"][0] == expected["label"][0]
    stack = np.stack([make_pixels(20, 20, 3, row) for row in range(3)])
    first = predictor.predict(stack, probabilities=True)
    assert first.rows == predictor.predict(stack.transpose(0, 3, 1, 2), probabilities=True).rows
    assert first.rows == predictor.predict(torch.from_numpy(stack), probabilities=True).rows


@pytest.mark.parametrize("name", ["folder", "table", "pairs"])
def test_new_rows_are_prepared_as_validation_was(name: str, runs: dict[str, PredictedRun], here: Path) -> None:
    predictor, split = load(name), runs[name].data.validation
    rows = {"folder": sorted(str(each) for each in Path("animals").glob("*/*.png")), "table": "animals.csv",
            "pairs": "pairs.csv"}[name]  # fmt: skip
    prepared = predictor.prepare(rows)
    for field, each in prepared.items():
        known = {tuple(row.flatten().tolist()) for row in each}
        validation = {tuple(row.flatten().tolist()) for row in read_rows(split.tensors[field])}
        assert validation and validation <= known


def test_folders_globs_and_bad_files(here: Path) -> None:
    shutil.rmtree("new", ignore_errors=True)
    shutil.copytree("animals/cat", "new")
    Path("new/cut.png").write_bytes(Path("new/1.png").read_bytes()[:90])
    Path("new/notes.txt").write_text("no image")
    for name in ("folder", "table"):
        predictor = load(name)
        found = predictor.predict("new/*.png")
        assert len(found) == 21 and next(iter(found.problems.values())).startswith("image: it is damaged")
        row = next(iter(found.problems))
        assert found["file"][row] == "new/cut.png" and found["label"][row] is None
        assert len(predictor.predict("new")) == 21


def test_evaluations_of_a_folder_and_of_tables(here: Path, runs: dict[str, PredictedRun]) -> None:
    own = load("folder").evaluate(split="test", resamples=0).metrics
    everything = load("folder").evaluate("animals", resamples=0).metrics
    assert own.keys() == everything.keys()
    with_table = load("table").evaluate("animals.csv", resamples=0).metrics
    assert with_table.keys() == everything.keys()
    masks = load("masks").evaluate("animals/{label}/{n}.png", resamples=5).metrics
    assert 0 <= masks["jaccard_index"].value <= 1 and np.isfinite(masks["loss"].value)
    assert np.isfinite(load("pairs").evaluate("pairs.csv", resamples=0).metrics["loss"].value)
    assert load("folder").evaluate("animals", by="label", resamples=0)
    files = sorted(Path("animals").glob("*/*.png"))
    pair = ([Image.open(each) for each in files], [each.parent.name for each in files])
    assert load("folder").evaluate(pair, resamples=0).metrics["loss"].value == pytest.approx(everything["loss"].value)


@pytest.mark.parametrize("name", ["masks", "masks of three classes"])
def test_ignored_pixels_count_nowhere(name: str, runs: dict[str, PredictedRun], here: Path) -> None:
    predictor, split = load(name), runs[name].data.test
    truth = read_rows(split.targets["mask"])
    known = truth >= 0
    assert 0 < (~known).sum() < known.sum()
    predicted = torch.cat([batch.values["mask"] for batch in predictor.chunks.batches.iterate_batches(split)])
    if name == "masks":  # the probability of the second class
        loss = binary_cross_entropy(predicted[known], truth[known].float())
        right = ((predicted > 0.5) == truth)[known]
    else:
        loss = nll_loss(predicted[known].log(), truth[known])
        right = (predicted.argmax(-1) == truth)[known]
    found = predictor.evaluate(split="test", resamples=3).metrics
    assert found["loss"].value == pytest.approx(float(loss), rel=1e-5)
    assert found["accuracy"].value == pytest.approx(float(right.float().mean()), rel=1e-6)
    assert np.isfinite(found["accuracy"].low) and np.isfinite(found["loss"].high)


def test_images_of_a_table_elsewhere_are_beside_it(here: Path, tmp_path: Path) -> None:
    """Relative names start from the table's folder, whatever the working folder is."""
    shutil.copytree("animals", tmp_path / "animals")
    shutil.copy("animals.csv", tmp_path / "moved.csv")
    expected = load("table").predict("animals.csv", probabilities=True)
    assert load("table").predict(str(tmp_path / "moved.csv"), probabilities=True).rows == expected.rows


def test_the_public_interface_takes_images(here: Path) -> None:
    assert set(dlspec.predictor("runs/folder").predict("animals")["label"]) <= {"cat", "dog"}


def test_predict_writes_masks_and_evaluate_divides_by_folder(
    here: Path, dlspec: Callable[..., CommandResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    said = dlspec("predict", "run=runs/masks", 'input="animals/{label}/{n}.png"', "output=predicted/")
    assert (said.code, said.out) == (0, "predicted/: 40 images; 0 dark, 1 light\n"), said.err
    masks = load("masks").predict("animals/{label}/{n}.png")
    for file, mask in zip(masks["file"], masks["mask"], strict=True):
        written = np.asarray(Image.open(Path("predicted", *Path(file).parts[1:])))
        np.testing.assert_array_equal(written, mask)
    assert "is not empty" in dlspec("predict", "run=runs/masks", "input=animals/cat", "output=predicted/").err
    assert "keep has no effect" in dlspec("predict", "run=runs/masks", "input=animals", "output=x/", "keep=true").err
    assert "write output=predictions.csv" in dlspec("predict", "run=runs/folder", "input=animals", "output=x/").err
    groups = load("folder").evaluate("animals", by="folder", resamples=0).groups
    assert {Path(each.value).name: each.rows for each in groups} == {"cat": 20, "dog": 20}
    assert len(load("folder").evaluate(by="folder", resamples=0).groups) == 2


def test_the_worst_errors_show_the_images(here: Path) -> None:
    (target,) = load("folder").evaluate(resamples=0).to_json()["targets"].values()
    shown = [each["input"]["image"] for each in target["errors"]]
    assert shown and all(each.startswith("data:image/png;base64,") for each in shown)
    image = Image.open(io.BytesIO(base64.b64decode(shown[0].split(",")[1])))
    found = np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.NEAREST)) / 255
    images = read_pictures(open_own_data(load_run("runs/folder")).dataset.test.tensors["image"], slice(None))
    assert min(np.abs(found - each.movedim(0, -1).numpy()).max() for each in images) < 0.01
