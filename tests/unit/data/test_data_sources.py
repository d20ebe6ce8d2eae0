"""What every data source promises, and what each one gives."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dlspec.data.arrays import dataset_from_arrays
from dlspec.data.dataset import Dataset, Split
from dlspec.data.lazy_array import read_rows
from dlspec.data.prepare.kinds.plain_kinds import Standardized
from dlspec.data.prepare.vocabulary import Vocabulary
from dlspec.data.sources import SOURCES, data_source, images, open_data
from dlspec.data.sources.source import SplitSource
from dlspec.errors import DataError
from helpers.paths import ROOT, SHARED

REAL = SHARED / "data"

CSV_ROWS = "text,label\n" + "".join(
    f"word{row % 7} Fish {row},{'spam' if row % 4 == 0 else 'ham'}\n" for row in range(40)
)


def write_mnist(folder: Path, count: int = 20, suffix: str = "") -> None:
    pixels = (np.arange(count * 784) % 256).astype(np.uint8).tobytes()
    labels = (np.arange(count) % 10).astype(np.uint8).tobytes()
    for part in ("train", "t10k"):
        _write(folder / f"{part}-images-idx3-ubyte{suffix}", struct.pack(">4I", 0x0803, count, 28, 28) + pixels)
        _write(folder / f"{part}-labels-idx1-ubyte{suffix}", struct.pack(">2I", 0x0801, count) + labels)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


# name → settings; FOLDER is replaced; field, shape, layout, target kind, outputs
TABLE: dict[str, tuple[dict[str, Any], str, tuple[int, ...], str, str, int]] = {
    "digits": ({}, "image", (1, 8, 8), "channels-first", "classes", 10),
    "digits_segments": ({}, "image", (1, 16, 16), "channels-first", "classes", 11),
    "breast_cancer": ({}, "features", (30,), "features", "classes", 1),
    "diabetes": ({}, "features", (10,), "features", "numbers", 1),
    "mnist": ({"path": "FOLDER"}, "image", (1, 28, 28), "channels-first", "classes", 10),
    "text_csv": ({"path": "FOLDER/in.csv"}, "text", (3,), "tokens", "classes", 1),
    "python_lines": ({"limit": 200}, "text", (40,), "tokens", "classes", 1),
    "text": ({"length": 16, "unit": "bytes"}, "text", (16,), "tokens", "classes", 256),
    "table": (
        {"path": "FOLDER/in.csv", "target": "label", "columns": {"text": "text"}},
        "text",
        (3,),
        "tokens",
        "classes",
        1,
    ),
    "files": (
        {"path": "FOLDER/{label}/{name}.txt", "target": "label", "columns": {"text": "text"}},
        "text",
        (3,),
        "tokens",
        "classes",
        1,
    ),
    "images": ({"path": "FOLDER/images"}, "image", (3, 4, 5), "channels-first", "classes", 1),
    "random": ({"shape": [4, 6], "num_classes": 3, "size": 50}, "input", (4, 6), "sequence", "classes", 3),
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    folder = tmp_path_factory.mktemp("data")
    write_mnist(folder)
    (folder / "in.csv").write_text(CSV_ROWS)
    for row in range(40):
        file = folder / ("spam" if row % 4 == 0 else "ham") / f"{row}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"word{row % 7} Fish {row}")
        image = folder / "images" / ("cat" if row % 4 == 0 else "dog") / f"{row}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), row, np.uint8)).save(image)
    return {name: _open(name, folder, row[0]) for name, row in TABLE.items()}


def _open(name: str, folder: Path, settings: dict[str, Any]) -> Dataset:
    here = {key: value.replace("FOLDER", str(folder)) if key == "path" else value for key, value in settings.items()}
    return open_data(SOURCES[name](**here))


def splits(dataset: Dataset) -> list[Split]:
    return [dataset.train, dataset.validation, dataset.test]


def test_the_table_covers_the_registry() -> None:
    assert set(TABLE) == set(SOURCES)


@pytest.mark.parametrize("name", TABLE)
def test_facts_and_tensors_agree(name: str, opened: dict[str, Dataset]) -> None:
    _, field_name, shape, layout, kind, outputs = TABLE[name]
    dataset = opened[name]
    (field,) = dataset.fields
    assert (dataset.name, field.name, field.shape, field.layout) == (name, field_name, shape, layout)
    assert (dataset.target.kind, dataset.target.num_outputs) == (kind, outputs)
    for split in splits(dataset):
        values = read_rows(split.tensors[field.name])
        assert values.shape == (len(split), *shape) and len(split) > 0
        assert values.dtype == (torch.int64 if layout == "tokens" else torch.float32)
        assert split.target.dtype == (torch.int64 if kind == "classes" else torch.float32)
        assert split.target.shape == (len(split), *dataset.target.shape)
        assert all(read_rows(each).is_contiguous() for each in (*split.tensors.values(), *split.targets.values()))


@pytest.mark.parametrize("name", TABLE)
def test_preprocessing_is_json(name: str, opened: dict[str, Dataset]) -> None:
    saved = dict(opened[name].preprocessing)
    assert json.loads(json.dumps(saved)) == saved
    assert bool(saved) == (name != "random")


@pytest.mark.parametrize("name", ["digits", "text_csv", "random", "mnist"])
def test_the_seed_decides_the_split(name: str, tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "in.csv").write_text(CSV_ROWS)
    settings, field = TABLE[name][0] | {"validation": 0.3}, TABLE[name][1]
    first, same, other = (_open(name, tmp_path, settings | {"split_seed": seed}) for seed in (1, 1, 2))
    for one, two in zip(splits(first), splits(same), strict=True):
        assert torch.equal(one.tensors[field], two.tensors[field]) and torch.equal(one.target, two.target)
    assert not torch.equal(first.train.tensors[field], other.train.tensors[field])


@pytest.mark.parametrize("name", ["digits", "diabetes", "mnist", "python_lines"])
def test_limit_is_of_each_split(name: str, tmp_path: Path) -> None:
    write_mnist(tmp_path, count=40)
    dataset = _open(name, tmp_path, TABLE[name][0] | {"limit": 3})
    assert [len(split) for split in splits(dataset)] == [3, 3, 3]


def test_limit_keeps_the_classes_proportions() -> None:
    train = open_data(SOURCES["digits"](limit=20)).train
    assert torch.bincount(train.target).tolist() == [2] * 10


def test_importing_imports_no_numpy() -> None:
    heavy = "{'torch', 'numpy', 'sklearn', 'rich', 'urllib.request'}"
    names = "'digits', 'mnist', 'table'"
    code = f"import sys, dlspec.data as d; [d.SOURCES[each]() for each in ({names})]; print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


@pytest.mark.parametrize("file", sorted((ROOT / "conf" / "data").glob("*.yaml")), ids=lambda file: file.stem)
def test_conf_files(file: Path) -> None:
    written = yaml.safe_load(file.read_text("utf-8"))
    source = SOURCES[written.pop("type")](**written)
    assert file.read_text("utf-8").startswith("# ")
    assert source.source_name == file.stem or file.stem in ("sms_spam", "python_docs")


def test_conf_has_every_source() -> None:
    assert {file.stem for file in (ROOT / "conf" / "data").glob("*.yaml")} >= set(SOURCES)


def test_a_class_defined_anew_replaces_itself() -> None:
    def define() -> type[SplitSource]:
        @data_source("anew")
        class Anew(SplitSource):
            def open(self) -> Any: ...

        return Anew

    define()
    second = define()
    assert SOURCES["anew"] is second and second.source_name == "anew"


# tables


def everything(dataset: Dataset, field: str) -> np.ndarray:
    return np.sort(torch.cat([split.tensors[field] for split in splits(dataset)]).numpy().reshape(-1))


def test_digits_are_scikit_learns(opened: dict[str, Dataset]) -> None:
    from sklearn.datasets import load_digits

    table = load_digits()
    assert np.array_equal(everything(opened["digits"], "image"), np.sort(table.data.astype(np.float32).ravel() / 16))
    first = table.images[0].astype(np.float32) / 16
    owners = [
        split.target[(split.tensors["image"][:, 0] == torch.tensor(first)).all(2).all(1)]
        for split in splits(opened["digits"])
    ]
    assert torch.cat(owners).tolist() == [table.target[0]]


def test_every_pixel_of_four_digits_says_which_one_it_is(opened: dict[str, Dataset]) -> None:
    digits, dataset = opened["digits"], opened["digits_segments"]
    assert len(dataset.train) == len(digits.train)
    pictures, segments = dataset.train.tensors["image"][:, 0], dataset.train.target
    # The upper left quarters are the digits' own split, in its order.
    assert torch.equal(pictures[:, :8, :8], digits.train.tensors["image"][:, 0])
    wanted = torch.where(pictures[:, :8, :8] >= 0.5, digits.train.target[:, None, None] + 1, 0)
    assert torch.equal(segments[:, :8, :8], wanted)
    # Each quarter is one digit of the same split, with its own class alone.
    known = {tuple(row) for row in digits.train.tensors["image"].flatten(1).tolist()}
    for rows, columns in ((slice(8), slice(8, 16)), (slice(8, 16), slice(8)), (slice(8, 16), slice(8, 16))):
        assert {tuple(row) for row in pictures[:, rows, columns].flatten(1).tolist()} <= known
        assert all(len(set(quarter.flatten().tolist()) - {0}) == 1 for quarter in segments[:, rows, columns])
    assert ((pictures >= 0.5) == (segments > 0)).all()


def test_breast_cancer_is_scikit_learns_with_malignant_as_1(opened: dict[str, Dataset]) -> None:
    from sklearn.datasets import load_breast_cancer

    dataset, table = opened["breast_cancer"], load_breast_cancer()
    assert dataset.target.classes == ("benign", "malignant")
    assert sum(int(split.target.sum()) for split in splits(dataset)) == int((table.target == 0).sum()) == 212
    scaling = dataset.preprocessing["features"]
    wanted = ((table.data - scaling["mean"]) / scaling["std"]).astype(np.float32)
    assert np.array_equal(everything(dataset, "features"), np.sort(wanted.ravel()))
    # Malignant tumours are larger: feature 0 is the mean radius.
    radius, malignant = dataset.train.tensors["features"][:, 0], dataset.train.target == 1
    assert radius[malignant].mean() > 0.5 > radius[~malignant].mean()


def test_diabetes_is_scikit_learns(opened: dict[str, Dataset]) -> None:
    from sklearn.datasets import load_diabetes

    dataset, table = opened["diabetes"], load_diabetes(scaled=False)
    scaling = dataset.preprocessing["features"]
    wanted = ((table.data - scaling["mean"]) / scaling["std"]).astype(np.float32)
    assert np.array_equal(everything(dataset, "features"), np.sort(wanted.ravel()))
    # scikit-learn's scaling is undone by ours: standardised from either, the values are equal.
    scaled, train = load_diabetes(), dataset.train.tensors["features"].numpy()
    rows = [int(np.abs(wanted - row).sum(1).argmin()) for row in train]
    again = (scaled.data[rows] - scaled.data[rows].mean(0)) / scaled.data[rows].std(0)
    assert np.allclose(again, train, atol=1e-5)


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes"])
def test_features_are_standardised_over_the_training_split_alone(name: str, opened: dict[str, Dataset]) -> None:
    train, test = opened[name].train.tensors["features"], opened[name].test.tensors["features"]
    assert torch.allclose(train.mean(0), torch.zeros(train.shape[1]), atol=1e-5)
    assert torch.allclose(train.std(0, correction=0), torch.ones(train.shape[1]), atol=1e-5)
    assert test.mean(0).abs().max() > 0.01


@pytest.mark.parametrize("constant", [0.0, 0.1, -3e8, 1e-30])
def test_a_column_that_never_changes_keeps_its_unit(constant: float) -> None:
    values = np.stack([np.full(60, constant), constant + abs(constant) * np.arange(60.0) + np.arange(60.0)], axis=1)
    fitted = Standardized.fit(values)
    assert fitted.scale.divisor.tolist() == [1, values[:, 1].std()]
    assert np.abs(fitted.apply(values).values[:, 0]).max() < 1e-6


def test_a_target_in_its_own_unit(opened: dict[str, Dataset]) -> None:
    raw = open_data(SOURCES["diabetes"](standardize_target=False))
    scaled = opened["diabetes"]
    assert scaled.target.scale is not None and raw.target.scale is None
    mean, deviation = scaled.target.scale.mean_and_deviation or (0.0, 0.0)
    assert torch.allclose(scaled.test.target * deviation + mean, raw.test.target, atol=1e-3)
    assert (mean, deviation) == pytest.approx(
        (float(raw.train.target.mean()), float(raw.train.target.std(correction=0)))
    )
    assert (float(raw.train.target.min()) >= 25, float(raw.train.target.max()) <= 346) == (True, True)
    assert scaled.preprocessing["progression"] == {"kind": "standardize", "mean": mean, "std": deviation}


# random


def test_random_tokens_and_numbers() -> None:
    dataset = open_data(SOURCES["random"](vocab_size=7, length=5, num_classes=None, size=100))
    assert {key: dataset.facts[key] for key in ("shape", "layout", "vocab_size", "length")} == {
        "shape": [5],
        "layout": "tokens",
        "vocab_size": 7,
        "length": 5,
    }
    assert dataset.target.kind == "numbers"
    tokens = dataset.train.tensors["input"]
    assert (int(tokens.min()), int(tokens.max())) == (0, 6)
    assert "num_classes" not in dataset.facts


# MNIST


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_files(suffix: str, tmp_path: Path) -> None:
    write_mnist(tmp_path, suffix=suffix)
    dataset = open_data(SOURCES["mnist"](path=str(tmp_path), validation=0.0))
    assert [len(split) for split in splits(dataset)] == [20, 0, 20]
    pixels = (torch.arange(784) % 256).float().reshape(28, 28) / 255
    assert torch.equal(dataset.train.tensors["image"][0, 0], pixels)
    assert dataset.test.target.tolist() == [row % 10 for row in range(20)]


def test_mnist_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror, cache = tmp_path / "mirror", tmp_path / "cache"
    mirror.mkdir()
    write_mnist(mirror, suffix=".gz")
    sums = {file.stem: hashlib.sha256(gzip.decompress(file.read_bytes())).hexdigest() for file in mirror.iterdir()}
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("DLSPEC_CACHE", raising=False)
    monkeypatch.setattr(images, "MIRROR", mirror.as_uri() + "/")
    monkeypatch.setattr(images, "CONTENT_SHA256", sums)
    assert len(open_data(SOURCES["mnist"](validation=0.0)).train) == 20
    assert {file.stem for file in (cache / "dlspec" / "mnist").iterdir()} == set(sums)
    monkeypatch.setattr(images, "MIRROR", "file:///nowhere/")
    assert len(open_data(SOURCES["mnist"](validation=0.0)).train) == 20


@pytest.mark.parametrize(
    ("most_bytes", "reason"),
    [
        (50_000_000, "the checksum differs from that of the published file"),
        (5_000, "the file has more than 5,000 bytes, so it is not the published one"),
    ],
)
def test_a_wrong_download_is_not_kept(
    most_bytes: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, cache = tmp_path / "mirror", tmp_path / "cache"
    mirror.mkdir()
    write_mnist(mirror, suffix=".gz")
    monkeypatch.setenv("DLSPEC_CACHE", str(cache))
    monkeypatch.setattr(images, "MIRROR", mirror.as_uri() + "/")
    monkeypatch.setattr(images, "MAX_DOWNLOAD_BYTES", most_bytes)
    with pytest.raises(DataError) as caught:
        SOURCES["mnist"]().open()
    assert f"train-images-idx3-ubyte.gz: {reason});" in str(caught.value)
    assert list((cache / "mnist").iterdir()) == []


@pytest.mark.skipif(not REAL.exists(), reason="the real data sets are not here")
def test_the_real_mnist() -> None:
    dataset = open_data(SOURCES["mnist"](path=str(REAL / "mnist")))
    assert [len(split) for split in splits(dataset)] == [55_000, 5_000, 10_000]
    assert dataset.test.target[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    mean = float(dataset.train.tensors["image"].mean())
    assert mean == pytest.approx(0.1307, abs=5e-4)
    for name, checksum in images.CONTENT_SHA256.items():
        content = gzip.decompress((REAL / "mnist" / f"{name}.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == checksum


# texts


def csv_source(folder: Path, content: str | bytes, **settings: Any) -> Dataset:
    (folder / "in.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_data(SOURCES["text_csv"](path=str(folder / "in.csv"), **settings))


def texts_of(split: Split, vocabulary: Vocabulary) -> list[str]:
    words = ("", "?", *vocabulary.words)
    return [" ".join(words[number] for number in row if number) for row in split.tensors["text"].tolist()]


def test_words() -> None:
    vocabulary = Vocabulary(("don", "'", "t", "go", "!"), length=6)
    tokens, lengths = vocabulary.encode(["Don't go!", "", "stay, don't go now", "go"])
    assert tokens.tolist() == [[2, 3, 4, 5, 6, 0], [1, 0, 0, 0, 0, 0], [1, 1, 2, 3, 4, 5], [5, 0, 0, 0, 0, 0]]
    assert lengths.tolist() == [5, 1, 6, 1]
    assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == vocabulary


def test_case_counts_when_asked() -> None:
    vocabulary = Vocabulary(("Go", "go"), length=1, lowercase=False)
    assert vocabulary.encode(["Go", "go", "GO"])[0].tolist() == [[2], [3], [1]]


def test_the_vocabulary_is_the_most_frequent_words() -> None:
    texts = [["a", "b", "b"], ["c", "c", "d"], ["b"]]
    assert Vocabulary.fit(texts, 3, True, max_tokens=100, min_count=1).words == ("b", "c", "a", "d")
    assert Vocabulary.fit(texts, 3, True, max_tokens=5, min_count=1).words == ("b", "c", "a")
    assert Vocabulary.fit(texts, 3, True, max_tokens=100, min_count=2).words == ("b", "c")


def test_the_vocabulary_is_of_the_training_split(tmp_path: Path) -> None:
    content = "text,label\n" + "".join(f"only{row},{row % 2}\n" for row in range(50))
    dataset = csv_source(tmp_path, content)
    assert dataset.facts["vocab_size"] == len(dataset.train) + 2
    assert dataset.test.tensors["text"].unique().tolist() == [1]
    vocabulary = Vocabulary.from_json(dataset.preprocessing["text"])
    again, _ = vocabulary.encode(texts_of(dataset.train, vocabulary))
    assert torch.equal(torch.from_numpy(again), dataset.train.tensors["text"])


def test_the_rarer_class_is_1(tmp_path: Path) -> None:
    rare_first = "text,label\n" + "a,yes\nb, no\nc,no\nd,no\n"
    assert csv_source(tmp_path, rare_first).target.classes == ("no", "yes")
    assert csv_source(tmp_path, rare_first.replace("no", "zz")).target.classes == ("zz", "yes")
    assert csv_source(tmp_path, "text,label\na,y\nb,x\n").target.classes == ("x", "y")
    assert csv_source(tmp_path, "text,label\na,y\nb,x\nc,z\nd,z\n").target.classes == ("x", "y", "z")


def test_equal_texts_stay_together(tmp_path: Path) -> None:
    rows = [f"text {row % 30} is here,{'a' if row % 30 % 3 else 'b'}" for row in range(300)]
    dataset = csv_source(tmp_path, "\n".join(["text,label", *rows]), max_length=2, max_tokens=1000)
    assert sum(len(split) for split in splits(dataset)) == 300
    # Ten copies of each text: no part has a share of them.
    assert [len(split) % 10 for split in splits(dataset)] == [0, 0, 0]
    train = set(texts_of(dataset.train, Vocabulary.from_json(dataset.preprocessing["text"])))
    assert len(train) * 10 == len(dataset.train)


def test_lengths_and_cutting(tmp_path: Path) -> None:
    content = 'text;label\n"one two\nthree four";a\n;b\n\n"x; ""y""";a\nz;b\n'
    dataset = csv_source(tmp_path, content, delimiter=";", max_length=3, validation=0, test=0)
    assert dataset.train.tensors["text_lengths"].tolist() == [3, 1, 3, 1]
    assert dataset.train.tensors["text"][1].tolist() == [1, 0, 0]
    assert texts_of(dataset.train, Vocabulary.from_json(dataset.preprocessing["text"])) == [
        "one two three",
        "?",
        'x ; "',
        "z",
    ]
    assert dataset.fields[0].has_lengths


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    content = "text,label\ncafé,a\nthé,b\n".encode(encoding)
    asked = encoding.removesuffix("-sig")
    dataset = csv_source(tmp_path, content, encoding=asked, validation=0, test=0)
    assert dataset.preprocessing["text"]["words"] == ["café", "thé"]


@pytest.mark.skipif(not REAL.exists(), reason="the real data sets are not here")
def test_the_real_sms_spam() -> None:
    dataset = open_data(SOURCES["text_csv"](path=str(REAL / "text" / "sms_spam.csv"), max_tokens=10**6))
    assert dataset.target.classes == ("ham", "spam")
    assert sum(len(split) for split in splits(dataset)) == 5_574
    assert sum(int(split.target.sum()) for split in splits(dataset)) == 747
    assert [round(float(split.target.float().mean()), 2) for split in splits(dataset)] == [0.13, 0.14, 0.14]
    assert [round(len(split) / 5_574, 2) for split in splits(dataset)] == [0.7, 0.1, 0.2]


def test_python_lines_are_balanced_and_have_no_hash() -> None:
    from dlspec.data.files.python_source_lines import read_comments_and_code

    comments, code = read_comments_and_code()
    assert len(comments) == len(code) > 10_000
    assert len({*comments, *code}) == len(comments) + len(code)
    assert not any("#" in line or line != line.strip() for line in comments + code)
    assert read_comments_and_code() == (comments, code)


def test_python_lines_need_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(DataError) as caught:
        SOURCES["python_lines"]().open()
    assert str(caught.value) == (
        f"found no Python source files in '{tmp_path}': this Python comes without the source of its library"
    )


def test_which_lines_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        '"""A doc string is',
        'no line of code"""',
        "## one two three",
        "x = y + z",
        "x = y",
        "a = b(c)  # four five six",
        "  for a in b:  ",
        "# one two three",
        "# x = y + z",
    ]
    (tmp_path / "a.py").write_text("\n".join(lines))
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "b.py").write_text("# never seen at all\n")
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    from dlspec.data.files.python_source_lines import read_comments_and_code

    assert read_comments_and_code() == (["one two three"], ["for a in b:"])


# arrays


@pytest.mark.parametrize(
    ("values", "shape", "layout", "vocab_size"),
    [
        (np.zeros((8, 3)), (3,), "features", None),
        (np.zeros(8), (1,), "features", None),
        (np.zeros((8, 3), bool), (3,), "features", None),
        (np.zeros((8, 5, 3), np.float16), (5, 3), "sequence", None),
        (torch.zeros(8, 3, 4, 4, dtype=torch.bfloat16), (3, 4, 4), "channels-first", None),
        ([[0.5, 1.0]] * 8, (2,), "features", None),
        (np.full((8, 5), 9), (5,), "tokens", 10),
        (torch.ones(8, 5, dtype=torch.int32), (5,), "tokens", 2),
    ],
)
def test_fields_from_arrays(values: Any, shape: tuple[int, ...], layout: str, vocab_size: int | None) -> None:
    dataset = dataset_from_arrays({"x": values, "target": [0, 1] * 4})
    (field,) = dataset.fields
    assert (field.shape, field.layout, field.vocab_size) == (shape, layout, vocab_size)
    assert dataset.train.tensors["x"].shape[1:] == shape
    assert dataset.train.tensors["x"].dtype == (torch.int64 if vocab_size else torch.float32)
    assert [len(split) for split in splits(dataset)] == [5, 1, 2]


@pytest.mark.parametrize(
    ("values", "kind", "shape", "classes"),
    [
        ([0, 1, 2, 0], "classes", (), ("0", "1", "2")),
        ([True, False, True, False], "classes", (), ("0", "1")),
        ([0.0, 1.0, 0.5, 2.0], "numbers", (), ()),
        (np.zeros((4, 2)), "numbers", (2,), ()),
    ],
)
def test_targets_from_arrays(values: Any, kind: str, shape: tuple[int, ...], classes: tuple[str, ...]) -> None:
    dataset = dataset_from_arrays({"x": np.zeros((4, 2)), "y": np.ones((4, 1)), "label": values}, target="label")
    assert [field.name for field in dataset.fields] == ["x", "y"]
    target = dataset.target
    assert (target.name, target.kind, target.shape, target.classes) == ("label", kind, shape, classes)


def test_rows_stay_together() -> None:
    rows = np.arange(40)
    arrays = {"x": rows[:, None].astype(float), "tokens": rows[:, None], "target": rows.astype(float)}
    dataset = dataset_from_arrays(arrays)
    for split in splits(dataset):
        assert torch.equal(split.tensors["x"][:, 0], split.target)
        assert torch.equal(split.tensors["tokens"][:, 0].float(), split.target)
    assert sorted(torch.cat([split.target for split in splits(dataset)]).tolist()) == rows.tolist()


def test_splits_of_arrays_are_seeded_and_proportional() -> None:
    arrays = {"x": np.arange(100.0), "target": np.repeat([0, 1], [90, 10])}
    one, same, other = (dataset_from_arrays(arrays, split_seed=seed).train for seed in (0, 0, 1))
    assert torch.equal(one.tensors["x"], same.tensors["x"]) and not torch.equal(one.tensors["x"], other.tensors["x"])
    assert torch.bincount(one.target).tolist() == torch.bincount(other.target).tolist() == [63, 7]


def test_a_column_that_never_changes_becomes_0() -> None:
    values = np.array([[5.0, 1.0], [5.0, 3.0]])
    assert Standardized.fit(values).apply(values).values.tolist() == [[0.0, -1.0], [0.0, 1.0]]
