"""Images from folders, tables, Parquet and Python: the layouts of public data sets, rebuilt small."""

from __future__ import annotations

import csv
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

import dlspec
from dlspec.data.batches.batch_loader import BatchLoader, BatchPlan
from dlspec.data.dataset import Dataset
from dlspec.data.files.idx import read_idx
from dlspec.data.inspection.source_inspection import inspect_source
from dlspec.data.lazy_array import LazyArray, read_rows
from dlspec.data.sources import SOURCES, open_data
from dlspec.data.sources.table_dataset import make_table_dataset
from dlspec.data.sources.table_rows import TableRows
from dlspec.data.tables.python_rows import table_from_python
from dlspec.errors import Code, DataError
from dlspec.runs.file_names import METRICS_FILE
from helpers.command_line import QUIET
from helpers.image_files import encode, make_pixels, write_image
from helpers.paths import SHARED

COUNT = 24


def write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([header, *rows])
    return file


def open_source(type: str, **settings: Any) -> Dataset:
    return open_data(SOURCES[type](**settings))


def read_field(data: Dataset, name: str) -> Tensor:
    """All rows of a field or target, the splits one after another."""
    parts = (split.tensors.get(name, split.targets.get(name)) for split in (data.train, data.validation, data.test))
    return torch.cat([read_rows(each) for each in parts if each is not None])


def count_rows(data: Dataset) -> tuple[int, int, int]:
    return len(data.train), len(data.validation), len(data.test)


# ---- MNIST and digits_segments as files ------------------------------------------------------------------------------


def read_batches(data: Dataset, inputs: Sequence[str], targets: Sequence[str]) -> list[tuple[Tensor, ...]]:
    loader = BatchLoader(data.train, inputs, targets, BatchPlan(16), torch.device("cpu"))
    return [(*given, *wanted) for given, wanted in loader.iterate_shuffled(3, 1)]


def assert_equal_batches(one: list[tuple[Tensor, ...]], other: list[tuple[Tensor, ...]]) -> None:
    assert len(one) == len(other) > 2
    for first, second in zip(one, other, strict=True):
        assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def write_mnist_part(folder: Path, part: str, pixels: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
    """Write images as IDX, and as PNG files with a table of their names in the same order."""
    count = len(pixels)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, count, 28, 28) + pixels.tobytes())
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + labels.tobytes())
    for row in range(count):
        write_image(folder / part / f"{row}.png", pixels[row])
    write_csv(folder / f"{part}.csv", ["image", "digit"], [[f"{part}/{row}.png", labels[row]] for row in range(count)])


def test_mnist_as_a_table_of_files_is_mnist(tmp_path: Path) -> None:
    labels = (np.arange(90) % 10).astype(np.uint8)
    pixels = np.stack([make_pixels(28, 28, 1, row) for row in range(90)])
    write_mnist_part(tmp_path, "train", pixels, labels)
    write_mnist_part(tmp_path, "t10k", pixels, labels)
    idx = open_source("mnist", path=str(tmp_path))
    table = open_source(
        "table", path=str(tmp_path / "train.csv"), test=str(tmp_path / "t10k.csv"), validation=5_000 / 60_000,
        target={"digit": "class"}, columns={"image": "image"},
    )  # fmt: skip
    assert count_rows(idx) == count_rows(table)
    for name in ("image", "digit"):
        assert torch.equal(read_field(idx, name), read_field(table, name))
    assert_equal_batches(read_batches(idx, ["image"], ["digit"]), read_batches(table, ["image"], ["digit"]))


@pytest.mark.soak
@pytest.mark.skipif(not (SHARED / "data/mnist").is_dir(), reason="MNIST is not here")
def test_mnist_as_files_trains_to_the_same_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first 2,000 training and 500 test images: metrics.jsonl is equal byte for byte."""
    monkeypatch.chdir(tmp_path)
    folder = SHARED / "data/mnist"
    for part, count in (("train", 2_000), ("t10k", 500)):
        images = read_idx(folder / f"{part}-images-idx3-ubyte.gz", (28, 28))[:count]
        labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz", ())[:count]
        write_mnist_part(tmp_path, part, images, labels)
    common = ["model=cnn", "trainer.epochs=2", "trainer.device=cpu", *QUIET]
    table = ["data=table", "data.path=train.csv", "data.test=t10k.csv", f"data.validation={5_000 / 60_000}"]
    idx = dlspec.train([*common, "data=mnist", f"data.path={tmp_path}"], folder=tmp_path / "idx").folder
    spec = [*common, *table, "data.target={digit: class}", "data.columns={image: image}"]
    files = dlspec.train(spec, folder=tmp_path / "files").folder
    assert idx is not None and files is not None
    assert (idx / METRICS_FILE).read_bytes() == (files / METRICS_FILE).read_bytes()


def test_masks_in_files_are_those_of_digits_segments(tmp_path: Path) -> None:
    tensors = open_source("digits_segments", limit=20)
    rows, pixels = [], []
    for part, split in (("train", tensors.train), ("val", tensors.validation), ("test", tensors.test)):
        for image, mask in zip(read_rows(split.tensors["image"]), split.target, strict=True):
            number = len(rows)
            pixels.append((image[0] * 240).to(torch.uint8).numpy())
            write_image(tmp_path / f"{number}.png", pixels[-1])
            write_image(tmp_path / f"{number}_mask.png", mask.numpy().astype(np.uint8))
            rows.append([f"{number}.png", f"{number}_mask.png", part])
    write_csv(tmp_path / "all.csv", ["image", "segments", "part"], rows)
    names = list(tensors.target.classes)
    files = open_source(
        "table", path=str(tmp_path / "all.csv"), split="part", target={"segments": {"mask": {"classes": names}}},
        columns={"image": {"image": {"scale": {"mean": 0, "std": 240 / 255}}}},
    )  # fmt: skip
    assert replace(files.target, has_ignored=False) == tensors.target and count_rows(files) == count_rows(tensors)
    assert torch.equal(read_field(files, "segments"), read_field(tensors, "segments"))
    torch.testing.assert_close(read_field(files, "image"), read_field(tensors, "image"), rtol=1e-6, atol=1e-6)
    batches = zip(
        read_batches(files, ["image"], ["segments"]), read_batches(tensors, ["image"], ["segments"]), strict=True
    )
    assert all(torch.equal(one[1], other[1]) for one, other in batches)


# ---- public layouts --------------------------------------------------------------------------------------------------


def test_cifar_as_parquet_of_bytes_and_paths(tmp_path: Path) -> None:
    pixels = [make_pixels(32, 32, 3, row) for row in range(COUNT)]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    write_image(tmp_path / "beside.png", pixels[3])
    cells = [{"bytes": encode(each), "path": f"{row}.png"} for row, each in enumerate(pixels)]
    cells[3] = {"bytes": None, "path": "beside.png"}
    columns = {"img": pa.array(cells, image), "label": [row % 4 for row in range(COUNT)]}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    pq.write_table(pa.table({**columns, "img": [encode(each) for each in pixels]}), tmp_path / "bytes.parquet")
    data = open_source("table", path=str(tmp_path / "train.parquet"), target="label")
    assert data.fields[0].shape == (3, 32, 32) and f"img: read {COUNT} images: {COUNT} RGB; 32 x 32" in data.notes
    other = open_source("table", path=str(tmp_path / "bytes.parquet"), target="label")
    assert torch.equal(read_field(data, "img"), read_field(other, "img"))
    found = {tuple(each.flatten().tolist()) for each in (read_field(data, "img") * 255).round().to(torch.uint8)}
    assert found == {tuple(each.transpose(2, 0, 1).ravel().tolist()) for each in pixels}


def test_oxford_pets_with_masks_of_1_2_3(tmp_path: Path) -> None:
    lines = []
    for row in range(COUNT):
        name, shape = f"Pet_{row}", (20 + row % 3, 30)
        write_image(tmp_path / "images" / f"{name}.jpg", make_pixels(*shape, 3, row))
        write_image(tmp_path / "annotations/trimaps" / f"{name}.png", make_pixels(*shape, 1, row) % 3 + 1)
        lines.append(f"{name} {row % 3 + 1} {row % 2 + 1} 1")
    (tmp_path / "annotations/list.txt").write_text("\n".join(lines) + "\n")
    read = {"delimiter": "space", "header": ["name", "breed", "species", "number"], "id": "name"}
    classes = {1: "pet", 2: "background", 3: None}
    data = open_source(
        "table", path=str(tmp_path / "annotations/list.txt"), **read, only=["image"],
        columns={"image": {"image": {"path": f"{tmp_path}/images/{{name}}.jpg", "size": [16, 24]}}},
        target={"mask": {"mask": {"path": f"{tmp_path}/annotations/trimaps/{{name}}.png", "classes": classes}}},
    )  # fmt: skip
    assert data.target.shape == (16, 24) and data.target.classes == ("pet", "background")
    assert set(read_field(data, "mask").unique().tolist()) == {-100, 0, 1}
    inferred = open_source(
        "table", path=str(tmp_path / "annotations/list.txt"), **read, only=["image"],
        columns={"image": {"image": {"path": f"{tmp_path}/images/{{name}}.jpg", "size": [16, 24]}}},
        target={"mask": {"mask": {"path": f"{tmp_path}/annotations/trimaps/{{name}}.png"}}},
    )  # fmt: skip
    assert inferred.target.classes == ("1", "2", "3")


def test_image_folders_with_splits_and_folders_in_classes(tmp_path: Path) -> None:
    for part, count in (("train", 8), ("val", 4), ("Test", 3)):
        for label in ("ants", "bees"):
            for row in range(count):
                seed = hash((part, label, row)) % 2**32
                write_image(tmp_path / part / label / "deeper" / f"{row}.png", make_pixels(9, 9, 3, seed))
    (tmp_path / "train/readme.txt").write_text("not an image")
    (tmp_path / ".hidden").mkdir()
    write_image(tmp_path / ".hidden/x.png", make_pixels())
    data = open_source("images", path=str(tmp_path))
    assert count_rows(data) == (16, 8, 6) and data.target.classes == ("ants", "bees")
    assert "the folders Test, train, val are the splits, the folders in them the classes" in data.notes
    assert any("left out 1 file" in note for note in data.notes)
    flat = open_source("images", path=str(tmp_path / "train"), size=4, scale="half", mode="grey")
    assert flat.fields[0].shape == (1, 4, 4) and sum(count_rows(flat)) == 16
    assert -1 <= read_field(flat, "image").min() < 0 and flat.resolved["target"] == {"label": "class"}
    assert "columns" not in flat.resolved


def test_ages_in_the_names_of_files(tmp_path: Path) -> None:
    for row in range(COUNT):
        write_image(tmp_path / f"{20 + row}_{row % 2}_{row % 5}_2017010{row}.jpg", make_pixels(8, 8, 3, row))
    data = open_source(
        "files", path=f"{tmp_path}/{{age}}_{{gender}}_{{race}}_{{date}}.jpg", columns={"image": "image"},
        target={"age": "value"},
    )  # fmt: skip
    assert data.target.kind == "numbers" and [each.name for each in data.fields] == ["image"]
    both = open_source(
        "files", path=f"{tmp_path}/{{age}}_{{gender}}_{{race}}_{{date}}.jpg", target={"age": "value"},
        columns={"image": "image", "gender": "category"},
    )  # fmt: skip
    assert {each.name: each.shape for each in both.fields} == {"features": (2,), "image": (3, 8, 8)}


def test_attributes_as_labels(tmp_path: Path) -> None:
    rows = [[f"{row:06}.jpg", row % 2 * 2 - 1, row % 3 // 2 * 2 - 1] for row in range(COUNT)]
    for row, cells in enumerate(rows):
        write_image(tmp_path / "img_align" / str(cells[0]), make_pixels(8, 8, 3, row))
    write_csv(tmp_path / "list_attr.csv", ["image_id", "Smiling", "Young"], rows)
    data = open_source(
        "table", path=str(tmp_path / "list_attr.csv"), id="image_id",
        columns={"image": {"image": {"path": f"{tmp_path}/img_align/{{image_id}}"}}},
        target={"attributes": {"labels": {"like": ["Smiling", "Young"]}}},
    )  # fmt: skip
    assert data.target.labels == ("Smiling", "Young") and [each.name for each in data.fields] == ["image"]


def test_ham10000_with_images_in_two_folders_and_a_table(tmp_path: Path) -> None:
    rows = []
    for row in range(COUNT):
        rows.append([f"HAM_{row // 2}", f"ISIC_{row:04}", "nv" if row % 3 else "mel", 30 + row % 7, "back"])
        write_image(tmp_path / f"images_part_{row % 2 + 1}" / f"ISIC_{row:04}.jpg", make_pixels(18, 24, 3, row))
    table = write_csv(tmp_path / "metadata.csv", ["lesion_id", "image_id", "dx", "age", "localization"], rows)
    pattern = f"{tmp_path}/images_part_*/{{image_id}}.jpg"
    data = open_source(
        "table", path=str(table), id="image_id", group="lesion_id", target={"dx": "class"},
        columns={"image": {"image": {"path": pattern, "size": [16, 16], "scale": "imagenet"}}},
    )  # fmt: skip
    assert {each.name: each.shape for each in data.fields} == {"features": (1,), "image": (3, 16, 16)}
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pixels = read_field(data, "image") * std + mean
    assert pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6
    (tmp_path / "images_part_1/ISIC_0001.jpg").write_bytes(b"")
    (tmp_path / "images_part_1/ISIC_0002.jpg").unlink()
    with pytest.raises(DataError) as caught:
        open_source("table", path=str(table), target={"dx": "class"}, columns={"image": {"image": {"path": pattern}}})
    assert "metadata.csv:3: image: 2 files match" in str(caught.value)
    assert "metadata.csv:4: image: no file matches" in str(caught.value.finding.note)


def test_pairs_of_images(tmp_path: Path) -> None:
    for row in range(COUNT):
        write_image(tmp_path / f"{row}.png", make_pixels(6, 8, 1, row))
    rows = [[f"{row}.png", f"{(row + 1) % COUNT}.png", row % 2] for row in range(COUNT)]
    table = write_csv(tmp_path / "pairs.csv", ["left", "right", "same"], rows)
    data = open_source("table", path=str(table), target="same")
    assert [(each.name, each.shape) for each in data.fields] == [("left", (1, 6, 8)), ("right", (1, 6, 8))]
    for given in read_batches(data, ["left", "right"], ["same"]):
        assert given[0].shape[1:] == given[1].shape[1:] == (1, 6, 8) and not torch.equal(given[0], given[1])


# ---- kinds and facts -------------------------------------------------------------------------------------------------


def open_python(data: Any, **settings: Any) -> Dataset:
    return make_table_dataset(SOURCES["table"](**settings), TableRows(table_from_python(data)), "table")  # type: ignore[arg-type]


def test_images_in_python_are_images() -> None:
    pixels = [make_pixels(6, 8, 3, row) for row in range(COUNT)]
    labels = ["ab"[row % 2] for row in range(COUNT)]
    forms = {
        "arrays": pixels, "pillow": [Image.fromarray(each) for each in pixels],
        "bytes": [encode(each) for each in pixels], "mappings": [{"bytes": encode(each)} for each in pixels],
    }  # fmt: skip
    found = {name: open_python({"x": cells, "y": labels}, target="y") for name, cells in forms.items()}
    found["frame"] = open_python(pd.DataFrame({"x": forms["bytes"], "y": labels}), target="y")
    found["rows"] = open_python([{"x": each, "y": y} for each, y in zip(pixels, labels, strict=True)], target="y")
    written = {"columns": {"x": "image"}, "target": "y"}
    found["array"] = open_python({"x": np.stack(pixels), "y": labels}, **written)
    found["floats"] = open_python({"x": np.stack(pixels) / 255, "y": labels}, **written)
    first = read_field(found["arrays"], "x")
    for name, data in found.items():
        assert torch.equal(read_field(data, "x"), first), name
        assert isinstance(data.train.tensors["x"], LazyArray)


def test_names_are_images_only_where_the_files_exist(tmp_path: Path) -> None:
    for row in range(COUNT):
        write_image(tmp_path / f"{row}.png", make_pixels(6, 8, 1, row))
    rows = [[f"{row}.png", f"nowhere/{row}.png", row % 2, row % 5] for row in range(COUNT)]
    table = write_csv(tmp_path / "a.csv", ["photo", "other", "y", "x"], rows)
    data = open_source("table", path=str(table), target="y", drop=["x"])
    assert [each.name for each in data.fields][:1] == ["features"] and data.field("photo") is not None
    assert data.resolved["columns"]["photo"] == "image" and data.field("other") is None
    dropped = open_source("table", path=str(table), target="y", drop=["photo"])
    assert [each.name for each in dropped.fields] == ["features"]
    for row in range(COUNT):  # 24 of 25 cells are names of images: the other one is refused
        rows[row][3] = row % 3
    table = write_csv(tmp_path / "b.csv", ["photo", "other", "y", "x"], [*rows, ["none", "", 1, 1]])
    with pytest.raises(DataError, match=r"no file '.*/none'"):
        open_source("table", path=str(table), target="y")
    with pytest.raises(DataError, match="so its path 'x' has no effect"):
        open_source("table", path=str(table), target="y", columns={"photo": {"image": {"path": "x"}}})


def test_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    pixels = np.stack([make_pixels(6, 8, 3, row) // (1 + row % 3) for row in range(COUNT)])
    data = open_python({"x": list(pixels), "y": ["ab"[row % 2] for row in range(COUNT)]}, target="y",
                       columns={"x": {"image": {"scale": "standard"}}})  # fmt: skip
    train = read_rows(data.train.tensors["x"]).double()
    assert train.mean((0, 2, 3)).abs().max() < 1e-6
    assert (train.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-6


def test_an_image_to_predict_is_reported_in_its_own_unit() -> None:
    rows = [{"grey": make_pixels(6, 8, 1, row), "colours": make_pixels(6, 8, 3, row)} for row in range(COUNT)]
    for scale, shift, divisor in (("unit", 0.0, 1.0), ("half", 0.5, 0.5), ({"mean": [0, 0, 0.5], "std": 2}, 0.5, 2.0)):
        data = open_python(rows, target={"colours": {"image": {"scale": scale}}}, columns={"grey": "image"})
        values, target = read_field(data, "colours"), data.target
        assert target.kind == "numbers" and target.shape == (3, 6, 8) and data.fields[0].shape == (1, 6, 8)
        unit = values if target.scale is None else target.scale.invert(values)
        assert unit.min() >= -1e-6 and unit.max() <= 1 + 1e-6
        torch.testing.assert_close(values[:, 2] * divisor + shift, unit[:, 2])


def test_equal_images_stay_in_one_split(tmp_path: Path) -> None:
    """The names differ, the contents do not: each picture is there four times."""
    for row in range(4 * COUNT):
        write_image(tmp_path / "ab"[row % 2] / f"{row}.png", make_pixels(6, 8, 1, row % COUNT))
    data = open_source("images", path=str(tmp_path))
    parts = [{tuple(each.flatten().tolist()) for each in read_rows(split.tensors["image"])}
             for split in (data.train, data.validation, data.test)]  # fmt: skip
    assert sum(map(len, parts)) == len(set().union(*parts)) == COUNT


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({}, Code.MISSING_VALUE, ["differ in size, from 6 x 8 to 60 x 80", "size: [32, 32]"]),
        ({"size": 8, "scale": "imagenet", "mode": "grey"}, Code.CONFLICT, ["3 channels", "mode: rgb"]),
        ({"size": 8, "scale": {"mean": [0, 0], "std": 1}}, Code.WRONG_VALUE, ["mean has 2 numbers"]),
        ({"size": 8, "scale": {"mean": 0, "std": 0}}, Code.WRONG_VALUE, ["std above 0"]),
    ],
    ids=str,
)
def test_settings_that_do_not_fit(settings: dict[str, Any], code: Code, words: list[str], tmp_path: Path) -> None:
    for row in range(COUNT):
        write_image(tmp_path / "ab"[row % 2] / f"{row}.png", make_pixels(*((6, 8) if row else (60, 80)), 3, row))
    with pytest.raises(DataError) as caught:
        open_source("images", path=str(tmp_path), **settings)
    assert caught.value.finding.code is code and all(word in str(caught.value) for word in words)


def test_bad_files_are_refused_or_left_out(tmp_path: Path) -> None:
    for row in range(COUNT):
        write_image(tmp_path / "ab"[row % 2] / f"{row}.png", make_pixels(6, 8, 3, row))
    whole = (tmp_path / "a/0.png").read_bytes()
    middle = bytearray(whole)
    middle[60:70] = bytes(10)
    (tmp_path / "a/cut.png").write_bytes(whole[:50])
    (tmp_path / "a/text.png").write_text("hello")
    with pytest.raises(DataError) as caught:
        open_source("images", path=str(tmp_path))
    assert f"{tmp_path}/a/cut.png: image: " in str(caught.value) and "2 rows have cells" in str(caught.value)
    (tmp_path / "b/damaged.png").write_bytes(bytes(middle))  # which only decoding shows
    data = open_source("images", path=str(tmp_path), bad_rows="skip")
    assert sum(count_rows(data)) == COUNT
    start = data.notes.index("left out 3 rows with cells that can't be read") + 1
    listed = data.notes[start : start + 3]
    assert [name for name in ("cut.png", "text.png", "damaged.png") if not any(name in line for line in listed)] == []


def test_an_outline_reads_two_samples_and_has_the_same_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlspec.data.images import image_cells

    for row in range(COUNT):
        write_image(tmp_path / "ab"[row % 2] / f"{row}.png", make_pixels(6, 8, 3 if row == COUNT - 1 else 1, row))
    whole = open_source("images", path=str(tmp_path))
    read: list[str] = []
    original = image_cells.read_image_file
    monkeypatch.setattr(image_cells, "read_image_file", lambda file, *more: read.append(file) or original(file, *more))
    outline = open_data(SOURCES["images"](path=str(tmp_path)).shrink())
    assert outline.facts == whole.facts and len(read) == COUNT  # headers: whether any has colours, and their sizes
    read.clear()
    outline = open_data(SOURCES["images"](path=str(tmp_path), size=8, mode="rgb", scale="standard").shrink())
    read_rows(outline.train.tensors["image"])
    assert outline.fields[0].shape == (3, 8, 8) and len(read) == 4  # two for the scale, and again as samples


def test_what_inspect_says_of_images(tmp_path: Path) -> None:
    for row in range(COUNT):
        write_image(tmp_path / "ab"[row % 2] / f"{row}.png", make_pixels(6 + row % 2, 8, 3 if row % 2 else 1, row))
    found = inspect_source(SOURCES["images"](path=str(tmp_path), size=8))
    (image,) = [each for each in found.columns if each.name == "image"]
    assert (image.kind, image.role, image.values) == ("image", "input", "6 x 8 to 7 x 8; 12 grey, 12 RGB")
    assert found.model == "cnn" and sum(found.splits.values()) == COUNT
