"""Pretrained weights and the scale of images: it is written, or comes with the run; a disagreement is refused."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from dlspec.data.prepare.kinds.image import IMAGENET, FittedImage
from helpers.command_line import QUICK, CommandResult
from helpers.image_files import make_pixels, write_image

Command = Callable[..., CommandResult]
TABLE = ["data=table", "data.path=pets.csv", "data.target=label"]
FOLDER = ["data=images", "data.path=pets"]


@pytest.fixture
def run(dlspec: Command, work: Path) -> str:
    """A run whose images were scaled by their own statistics."""
    rows = ["image,label"]
    for number in range(30):
        file = work / "pets" / "ab"[number % 2] / f"{number}.png"
        write_image(file, make_pixels(8, 8, 3, number))
        rows.append(f"{file.relative_to(work)},{'ab'[number % 2]}")
    (work / "pets.csv").write_text("\n".join(rows) + "\n")
    assert (
        dlspec(
            "model=cnn", *FOLDER, "data.scale=standard", "hydra.run.dir=run", *QUICK, "trainer.checkpoints=true"
        ).code
        == 0
    )
    (work / "elsewhere.safetensors").write_bytes((work / "run/checkpoints/best.safetensors").read_bytes())
    return "run"


def read_fix(said: CommandResult) -> str:
    assert said.code == 2
    return shlex.split(re.findall(r"write (?:the scale, such as )?(\S+|'.*?'|.*?')(?: or |\n)", said.err)[0])[0]


@pytest.mark.parametrize("data", [FOLDER, TABLE], ids=["folder", "table"])
def test_a_scale_that_differs_from_the_run_is_refused_with_its_own(dlspec: Command, run: str, data: list[str]) -> None:
    words = ["model=cnn", *data, f"weights.path={run}", *QUICK]
    said = dlspec(*words)
    assert "scale: unit" in said.err and "scale: {mean: [" in said.err
    assert dlspec(*words, read_fix(said)).code == 0


@pytest.mark.parametrize("data", [FOLDER, TABLE], ids=["folder", "table"])
def test_a_file_from_elsewhere_needs_a_written_scale(dlspec: Command, run: str, data: list[str]) -> None:
    words = ["model=cnn", *data, "weights.path=elsewhere.safetensors", *QUICK]
    said = dlspec(*words)
    assert "does not say how the images were scaled" in said.err and "imagenet" in read_fix(said)
    assert dlspec(*words, read_fix(said)).code == 0


def test_a_saved_spec_and_its_preparation_agree_with_the_weights(dlspec: Command, run: str) -> None:
    assert dlspec("model=cnn", *FOLDER, f"weights.path={run}", f"data.prepare={run}", *QUICK).code == 0
    assert dlspec("model=cnn", *FOLDER, f"weights.path={run}", "data.scale=standard", *QUICK).code == 0


def test_scales_are_named() -> None:
    def name(mean: tuple[float, ...], std: tuple[float, ...]) -> object:
        return FittedImage((8, 8), "cover", None, "rgb", 8, mean, std).name_scale()

    half = (0.5,) * 3
    assert [name((), ()), name(*IMAGENET), name(half, half)] == ["unit", "imagenet", "half"]
    assert name(half, IMAGENET[1]) == {"mean": list(half), "std": list(IMAGENET[1])}
