"""Runs on images in files that are killed and resumed with another number of decoders: equal to the last bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlspec.jobs import job  # here, so that the processes of the tests need not import it
from helpers.command_line import QUIET, CommandResult, run_in_this_process
from helpers.crash_points import call_in_child
from helpers.interrupted_runs import CallAfterBatches, make_signal_sender

Write = Callable[[str, str], Path]
CLASSES, IMAGES, BATCH, EPOCHS = ("cats", "cows", "dogs"), 28, 8, 2
STEPS = EPOCHS * -(-IMAGES * len(CLASSES) * 7 // 10 // BATCH)  # about 70 % of the images are trained on
AUGMENT = "data.augment=[RandomHorizontalFlip, {RandomAffine: {degrees: 20}}, {MixUp: {alpha: 0.3}}]"
MODEL = """
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
  - BatchNorm2d
  - ReLU
  - Flatten
  - Dropout: 0.5
  - Linear: "${data.num_classes}"
"""
WORKERS = (0, 1, 3)
CACHES = ("auto", "disk", "false")


Straight = dict[bool, tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEG files in a folder for each class."""
    folder, generator = tmp_path_factory.mktemp("images") / "pets", np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for image in range(IMAGES):
            pixels = generator.integers(0, 120, (20, 24, 3), np.uint8)
            pixels[..., number] += 100
            Image.fromarray(pixels).save(folder / name / f"{image}.jpg")
    return folder


@pytest.fixture(scope="module")
def straight() -> Straight:
    """What runs that were left alone wrote, by whether they are augmented."""
    return {}


@pytest.fixture
def images(pets: Path, work: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `pets` in the working directory, with a cache of its own."""
    monkeypatch.setenv("DLSPEC_CACHE", str(work / "cache"))
    write("conf/model/tiny.yaml", MODEL)
    shutil.copytree(pets, work / "pets")
    return work / "pets"


def read_results(work: Path, name: str) -> tuple[bytes, bytes]:
    """Read the metrics, and the tensors of the last checkpoint; its header has the spec with the number of workers."""
    content = (work / name / "checkpoints/last.safetensors").read_bytes()
    return (work / name / "metrics.jsonl").read_bytes(), content[8 + int.from_bytes(content[:8], "little") :]


def make_words(folder: str, workers: int, *, is_augmented: bool, cache: str) -> tuple[str, ...]:
    return (
        "model=tiny", "data=images", "data.path=pets", "data.size=10", f"data.cache={cache}", f"hydra.run.dir={folder}",
        f"trainer.batch_size={BATCH}", f"trainer.epochs={EPOCHS}", "trainer.checkpoint_steps=2", "trainer.device=cpu",
        f"trainer.num_workers={workers}", "trainer.progress=none", *QUIET, *([AUGMENT] if is_augmented else []),
    )  # fmt: skip


def run(*words: str, step: int = 10**9, number: int = signal.SIGKILL) -> int:
    """Run a command in a process of its own, which gets a signal after a training step; return its exit code."""

    def call() -> int:
        usual = job.make_default_callbacks
        send = CallAfterBatches("train", step, make_signal_sender(number))
        job.make_default_callbacks = lambda *args: [*usual(*args), send]
        result = run_in_this_process(*words)
        os.write(2, result.err.encode() if result.code else b"")
        return result.code

    return call_in_child(call)


def kill_and_resume(
    folder: str, step: int, workers: tuple[int, int], caches: tuple[str, str], *, is_augmented: bool
) -> None:
    words = make_words(folder, workers[0], is_augmented=is_augmented, cache=caches[0])
    assert run(*words, step=step) == -signal.SIGKILL
    resume = ("resume", f"run={folder}", f"trainer.num_workers={workers[1]}", f"data.cache={caches[1]}")
    if not (Path(folder) / "spec.yaml").exists():  # killed before there was a run
        resume = words
    assert run(*resume) == 0


def get_straight_results(work: Path, straight: Straight, *, is_augmented: bool) -> tuple[bytes, bytes]:
    if is_augmented not in straight:
        assert run(*make_words("straight", 0, is_augmented=is_augmented, cache="auto")) == 0
        straight[is_augmented] = read_results(work, "straight")
    return straight[is_augmented]


@pytest.mark.parametrize(("is_augmented", "workers", "step"), [(False, (0, 3), 5), (True, (3, 1), 12)])
def test_a_killed_run_on_images_goes_on_with_other_workers(
    is_augmented: bool, workers: tuple[int, int], step: int, images: Path, work: Path, straight: Straight
) -> None:
    kill_and_resume("killed", step, workers, ("auto", "disk"), is_augmented=is_augmented)
    assert read_results(work, "killed") == get_straight_results(work, straight, is_augmented=is_augmented)


@pytest.mark.soak
@pytest.mark.parametrize("is_augmented", [False, True])
@pytest.mark.parametrize("before", WORKERS)
def test_twenty_kills_for_each_number_of_workers(
    is_augmented: bool, before: int, images: Path, work: Path, straight: Straight
) -> None:
    expected, draws = get_straight_results(work, straight, is_augmented=is_augmented), random.Random(before)
    for number in range(20):
        step, after = draws.randrange(1, STEPS), draws.choice([each for each in WORKERS if each != before])
        caches = (draws.choice(CACHES), draws.choice(CACHES))
        kill_and_resume(f"killed_{number}", step, (before, after), caches, is_augmented=is_augmented)
        assert read_results(work, f"killed_{number}") == expected, (before, after, step, caches)


@pytest.mark.soak
@pytest.mark.parametrize("workers", WORKERS)
def test_a_signal_ends_a_run_on_images(workers: int, images: Path, work: Path, straight: Straight) -> None:
    words = make_words("stopped", workers, is_augmented=False, cache="auto")
    assert run(*words, step=7, number=signal.SIGINT) == 128 + signal.SIGINT
    assert run("resume", "run=stopped", "trainer.num_workers=2") == 0
    assert read_results(work, "stopped") == get_straight_results(work, straight, is_augmented=False)


def test_a_file_that_becomes_bad_during_training(
    images: Path, dlspec: Callable[..., CommandResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was whole when the data were opened: its name and the reason, no traceback, exit code 2."""
    from dlspec.data.images.image_array import FileArray

    usual = FileArray.read_row

    def read_row(self: FileArray, row: int) -> object:
        if row == 40:
            Path(str(self.cells[row])).write_bytes(b"")
        return usual(self, row)

    monkeypatch.setattr(FileArray, "read_row", read_row)
    said = dlspec(*make_words("bad", 2, is_augmented=False, cache="false"))
    assert said.code == 2
    assert ".jpg: " in said.err and "Traceback" not in said.err
