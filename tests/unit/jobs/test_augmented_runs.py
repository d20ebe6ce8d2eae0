"""Runs whose training images are augmented: what is saved, resumed, swept, predicted and drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import dlspec
from dlspec.config.composition import start_hydra
from dlspec.data.augment.augmentation_registry import augmentation_registry
from dlspec.data.batches.batch_loader import BatchLoader, BatchPlan
from dlspec.data.lazy_array import read_rows
from dlspec.data.sources import SOURCES, open_data
from dlspec.jobs.composed_spec import compose_or_raise, make_preparation
from dlspec.jobs.job_hash import compute_job_hash
from dlspec.language.yaml.yaml_files import load_yaml_file
from dlspec.sweeps.hydra.plugins import register
from helpers.command_line import QUIET, CommandResult
from helpers.interrupted_runs import read_run_files

AUGMENT = "data.augment=[{RandomAffine: {degrees: 10, translate: [0.1, 0.1]}}, {RandomErasing: {p: 0.3}}]"
RUN = ("model=cnn", "trainer.epochs=1", "trainer.limit_batches=6", *QUIET)


@pytest.fixture
def without_kornia(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function after which kornia can't be imported."""

    def forget() -> None:
        for name in [each for each in sys.modules if each.partition(".")[0] == "kornia"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "kornia", None)
        augmentation_registry.cache_clear()

    return forget


def make_batches(workers: int = 0) -> BatchLoader:
    augment = ["RandomErasing", {"RandomAffine": 10}]
    data = open_data(SOURCES["digits_segments"].model_validate({"augment": augment, "limit": 40}))
    plan = BatchPlan(16, augmentation=data.augmentation, workers=workers)
    return BatchLoader(data.train, ["image"], ["segments"], plan, torch.device("cpu"))


def list_tensors(batches: BatchLoader, start: int = 0) -> list[Tensor]:
    return [each for inputs, targets in batches.iterate_shuffled(0, 1, start) for each in (*inputs, *targets)]


def test_batches_do_not_depend_on_workers_or_on_where_an_epoch_goes_on() -> None:
    straight = list_tensors(make_batches())
    for found, expected in (
        (list_tensors(make_batches(workers=2)), straight),
        (list_tensors(make_batches(), start=1), straight[2:]),
    ):
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_only_training_batches_are_augmented() -> None:
    batches = make_batches()
    data = open_data(SOURCES["digits_segments"].model_validate({"limit": 40}))
    images = torch.cat([inputs[0] for inputs, _ in batches.iterate_in_order()])
    assert torch.equal(images, read_rows(data.train.tensors["image"]))


def test_a_run_saves_its_augmentations_and_tells_when_they_change(
    work: Path, dlspec: Callable[..., CommandResult]
) -> None:
    assert dlspec(*RUN, AUGMENT, "hydra.run.dir=made").code == 0
    saved = load_yaml_file(work / "made/spec.yaml").tree["data"]["augment"]
    assert saved == [{"RandomAffine": {"degrees": 10, "translate": [0.1, 0.1]}}, {"RandomErasing": {"p": 0.3}}]
    said = dlspec("resume", "run=made", "trainer.epochs=2", "data.augment=[RandomErasing]")
    assert said.code == 2
    assert "data.augment.0" in said.err


def test_predictions_and_evaluations_need_no_kornia(
    work: Path, dlspec: Callable[..., CommandResult], without_kornia: Callable[[], None]
) -> None:
    said = dlspec(*RUN, AUGMENT, "hydra.run.dir=made", "trainer.limit_batches=null")
    tested = (said.out + said.err).rpartition("test/accuracy ")[2].split()[0]
    without_kornia()
    said = dlspec("evaluate", "run=made")
    assert said.code == 0, said.err
    assert tested in said.out
    said = dlspec(*RUN, AUGMENT)
    assert said.code == 2
    assert "pip install 'dlspec[images]'" in said.err


@pytest.mark.soak
def test_a_sweep_over_augmentations(work: Path, dlspec: Callable[..., CommandResult]) -> None:
    said = dlspec("-m", *RUN, "data.augment=[],[RandomErasing]", "hydra.sweep.dir=swept")
    assert said.code == 0, said.err
    found = [load_yaml_file(each).tree["data"]["augment"] for each in sorted((work / "swept").glob("*/spec.yaml"))]
    assert found == [None, ["RandomErasing"]]


@pytest.mark.soak
def test_a_run_is_the_same_for_every_number_of_workers(work: Path, dlspec: Callable[..., CommandResult]) -> None:
    for workers in (0, 2):
        words = (f"trainer.num_workers={workers}", f"hydra.run.dir=workers{workers}", "trainer.precision=bf16")
        assert dlspec(*RUN, "data.augment=[{RandomAffine: 10}, CutMix]", *words).code == 0
    assert read_run_files(work, "workers0")[0] == read_run_files(work, "workers2")[0]


def test_the_setting_changes_a_jobs_hash_only_where_it_is_used(work: Path) -> None:
    register()
    found = [
        compute_job_hash(make_preparation(compose_or_raise(["model=cnn", *words], start_hydra())).read())
        for words in ((), ("data.augment=[]",), ("data.augment=[RandomErasing]",))
    ]
    assert found[0] == found[1] != found[2]


PICTURES = {
    "digits": "[{RandomAffine: 10}, MixUp]",
    "digits_segments": "[{RandomAffine: 30}]",
    "random": "[]",
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_batch_is_drawn(name: str, work: Path, dlspec: Callable[..., CommandResult]) -> None:
    said = dlspec("inspect", f"data={name}", f"data.augment={PICTURES[name]}", "--picture", "drawn/batch.png")
    assert said.code == 0, said.err
    with Image.open(work / "drawn/batch.png") as image:
        assert image.format == "PNG"
        assert image.width > 1000


def test_pictures_that_can_not_be_drawn(work: Path, dlspec: Callable[..., CommandResult]) -> None:
    said = dlspec("inspect", "data=breast_cancer", "--picture", "batch.png")
    assert (said.code, said.err) == (
        2,
        "--picture draws images of the training split, and breast_cancer has no images\n",
    )
    said = dlspec("inspect", "data=digits", "--picture", "batch.jpg")
    assert (said.code, said.err) == (2, "--picture expects a PNG file such as batch.png, got 'batch.jpg'\n")
    assert not list(work.glob("batch*"))


ARRAYS = {"image": np.random.default_rng(0).random((40, 1, 8, 8)).astype(np.float32), "target": np.arange(40) % 3}


def train_arrays(augment: Any, **options: Any) -> dlspec.Result:
    spec = {"model": "cnn", "data": {"augment": augment}, "trainer": {"epochs": 1, "progress": "none", **options}}
    return dlspec.train(spec, ARRAYS)


def test_arrays_given_in_python_are_augmented(tmp_path: Path) -> None:
    plain, augmented, longer = (
        train_arrays([]),
        train_arrays(["RandomErasing"]),
        train_arrays(["RandomErasing"], epochs=2),
    )
    assert augmented.results["train/loss"] != plain.results["train/loss"]
    spec = {"model": "cnn", "data": {"augment": ["RandomErasing"]}, "trainer": {"epochs": 1, "progress": "none"}}
    run = dlspec.train(spec, ARRAYS, folder=tmp_path)
    assert run.results == augmented.results
    assert run.folder is not None
    resumed = dlspec.resume(run.folder, ARRAYS, changes={"trainer": {"epochs": 2}})
    assert resumed.results["train/loss"] == longer.results["train/loss"]


@pytest.mark.parametrize(
    ("augment", "words"), [(["RandomErasin"], "did you mean"), ([{"RandomCrop": [4, 4]}], "(1, 4, 4)")]
)
def test_wrong_augmentations_of_arrays(augment: Any, words: str) -> None:
    with pytest.raises(dlspec.SpecError) as caught:
        train_arrays(augment)
    assert "data.augment.0" in str(caught.value)
    assert words in str(caught.value)
