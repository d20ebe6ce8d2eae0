"""Statistics for `scale: standard` are measured once for each set of images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dlspec.data.images import kept_statistics
from dlspec.data.images.cache_files import remove_cache_files
from dlspec.data.images.image_array import ImageArray, ImageForm
from dlspec.data.images.image_cells import make_image_cells
from dlspec.data.prepare.kinds import image_statistics
from dlspec.data.prepare.kinds.image_statistics import find_channel_statistics
from helpers.lazy_arrays import Unit


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DLSPEC_CACHE", str(tmp_path))
    return tmp_path / "images"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images were measured each time."""
    counts: list[int] = []
    usual = image_statistics.measure_channels

    def measure(images: ImageArray) -> kept_statistics.Channels:
        counts.append(len(images))
        return usual(images)

    monkeypatch.setattr(image_statistics, "measure_channels", measure)
    return counts


def make_images(seed: int, size: int = 6) -> ImageArray:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 6, 3), np.uint8)
    form = ImageForm((size, size), "cover", "rgb", 8)
    return ImageArray(make_image_cells(list(pixels), lambda row: ""), form, Unit(), (3, size, size))


def test_equal_images_are_measured_once(measured: list[int], folder: Path) -> None:
    first = find_channel_statistics(make_images(0))
    assert find_channel_statistics(make_images(0)) == first
    assert measured == [5]
    assert find_channel_statistics(make_images(1)) != first
    find_channel_statistics(make_images(0, size=4))
    assert measured == [5, 5, 5]
    remove_cache_files(folder)
    assert find_channel_statistics(make_images(0)) == first
    assert measured == [5, 5, 5, 5]


@pytest.mark.parametrize(
    "content",
    ["", "[]", {"mean": [0.5]}, {"deviation": [0.0, 1.0, 1.0]}, {"mean": [0.5, 0.5, "a"]}, {"mean": None},
     {"dlspec_image_statistics": 2}, {"mean": [0.5, 0.5, None]}],
    ids=str,
)  # fmt: skip
def test_damaged_statistics_are_measured_again(content: object, measured: list[int], folder: Path) -> None:
    first = find_channel_statistics(make_images(0))
    (path,) = folder.iterdir()
    whole = json.loads(path.read_text())
    path.write_text(content if isinstance(content, str) else json.dumps({**whole, **content}))  # type: ignore[dict-item]
    assert find_channel_statistics(make_images(0)) == first
    assert measured == [5, 5]


def test_a_folder_that_cannot_be_written_is_no_error(measured: list[int], folder: Path) -> None:
    folder.write_text("a file")
    assert find_channel_statistics(make_images(0)) == find_channel_statistics(make_images(0))
    assert measured == [5, 5]
