"""Runs on images in files that are killed and resumed with another number of decoders: equal to the last bit."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.command_line import QUIET, CommandResult, run_in_this_process
from helpers.crash_points import call_in_child
from helpers.interrupted_runs import CallAfterBatches, make_signal_sender

Write = Callable[[str, str], Path]
CLASSES, IMAGES, BATCH, EPOCHS = ("cats", "cows", "dogs"), 28, 8, 3
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


@pytest.fixture
def images(work: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of JPEG files in a folder for each class, with a cache of their own."""
    monkeypatch.setenv("DLSPEC_CACHE", str(work / "cache"))
    write("conf/model/tiny.yaml", MODEL)
    generator = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (work / "pets" / name).mkdir(parents=True)
        for image in range(IMAGES):
            pixels = generator.integers(0, 120, (20, 24, 3), np.uint8)
            pixels[..., number] += 100
            Image.fromarray(pixels).save(work / "pets" / name / f"{image}.jpg")
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
        from dlspec.jobs import job

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


def make_straight_run(work: Path, *, is_augmented: bool) -> tuple[bytes, bytes]:
    assert run(*make_words("straight", 0, is_augmented=is_augmented, cache="auto")) == 0
    return read_results(work, "straight")


@pytest.mark.parametrize(("is_augmented", "workers", "step"), [(False, (0, 3), 5), (True, (3, 1), 12)])
def test_a_killed_run_on_images_goes_on_with_other_workers(
    is_augmented: bool, workers: tuple[int, int], step: int, images: Path, work: Path
) -> None:
    straight = make_straight_run(work, is_augmented=is_augmented)
    kill_and_resume("killed", step, workers, ("auto", "disk"), is_augmented=is_augmented)
    assert read_results(work, "killed") == straight


@pytest.mark.soak
@pytest.mark.parametrize("is_augmented", [False, True])
def test_twenty_kills_for_each_number_of_workers(is_augmented: bool, images: Path, work: Path) -> None:
    straight, draws, equal = make_straight_run(work, is_augmented=is_augmented), random.Random(is_augmented), 0
    for before in WORKERS:
        for step in draws.sample(range(1, STEPS), 20):
            after = draws.choice([each for each in WORKERS if each != before])
            caches = (draws.choice(CACHES), draws.choice(CACHES))
            folder = f"killed_{before}_{step}"
            kill_and_resume(folder, step, (before, after), caches, is_augmented=is_augmented)
            assert read_results(work, folder) == straight, (before, after, step, caches)
            equal += 1
    print(f"augmented {is_augmented}: {equal} of {equal} killed runs equal the one that was left alone")
    assert equal == 20 * len(WORKERS)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_signal_ends_a_run_on_images(workers: int, images: Path, work: Path) -> None:
    words = make_words("stopped", workers, is_augmented=False, cache="auto")
    assert run(*words, step=7, number=signal.SIGINT) == 128 + signal.SIGINT
    assert run("resume", "run=stopped", "trainer.num_workers=2") == 0
    assert read_results(work, "stopped") == make_straight_run(work, is_augmented=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_becomes_bad_during_training(
    workers: int, images: Path, work: Path, dlspec: Callable[..., CommandResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was whole when the data were opened: its name and the reason, no traceback, exit code 2."""
    from dlspec.data.images.image_array import FileArray

    usual = FileArray.read_row

    def read_row(self: FileArray, row: int) -> object:
        if row == 40:
            Path(str(self.cells[row])).write_bytes(b"")
        return usual(self, row)

    monkeypatch.setattr(FileArray, "read_row", read_row)
    said = dlspec(*make_words("bad", workers, is_augmented=False, cache="false"))
    print(said.err)
    assert said.code == 2
    assert ".jpg: " in said.err and "Traceback" not in said.err
