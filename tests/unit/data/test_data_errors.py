"""What is said when data can't be used: every message, word for word. FOLDER stands for the test's own folder."""

from __future__ import annotations

import csv
import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dlspec.data.arrays import dataset_from_arrays
from dlspec.data.files.csv_file import read_columns
from dlspec.data.prepare.vocabulary import Vocabulary
from dlspec.data.sources import SOURCES, DataSource, data_source, images, open_data
from dlspec.errors import DataError, UserError

FOUR = (
    "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"
    " (each may end in .gz)"
)


def idx(values: np.ndarray) -> bytes:
    header = struct.pack(f">{1 + values.ndim}I", 0x0800 + values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


def write_mnist(folder: Path, count: int = 8) -> None:
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(np.arange(count * 784).reshape(count, 28, 28) % 256))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 2))


def message(action: Callable[[], object], folder: Path) -> tuple[str, str]:
    with pytest.raises(DataError) as caught:
        action()
    return caught.value.key, str(caught.value).replace(str(folder), "FOLDER")


CSV = {
    "no file": (None, {"path": None}, "path", "no file is given; write data.path=FILE.csv"),
    "missing": (None, {}, "path", "no file 'FOLDER/in.csv'; write data.path=FILE.csv"),
    "near": (
        b"text,label\n",
        {"path": "FOLDER/inn.csv"},
        "path",
        "no file 'FOLDER/inn.csv'; did you mean 'FOLDER/in.csv'?",
    ),
    "folder": (None, {"path": "FOLDER"}, "path", "'FOLDER' is not a file; write data.path=FILE.csv"),
    "empty": (b"", {}, "text", "'FOLDER/in.csv' has no column 'text'; it is empty"),
    "no rows": (b"text,label\n", {}, "path", "'FOLDER/in.csv' has no rows below its header"),
    "column": (
        b"texts,label\na,b\n",
        {},
        "text",
        "'FOLDER/in.csv' has no column 'text'; did you mean 'texts'?",
    ),
    "label column": (
        b"text,kind\na,b\n",
        {},
        "label",
        "'FOLDER/in.csv' has no column 'label'; available: kind, text",
    ),
    "delimiter": (
        b"text;label\na;b\n",
        {},
        "text",
        "'FOLDER/in.csv' has no column 'text'; there is only 'text;label'; "
        "if ',' is not the delimiter, write for example 'data.delimiter=\";\"'",
    ),
    "twice": (b"text,text,label\na,b,c\n", {}, "text", "'FOLDER/in.csv' must have one column 'text', got 2"),
    "few cells": (
        b'text,label\n"a\na",b\n\nc\n',
        {},
        "path",
        "FOLDER/in.csv:5: 1 cells, but the header has 2; add the missing cells",
    ),
    "many cells": (
        b"text,label\na,b,c\n",
        {},
        "path",
        "FOLDER/in.csv:2: 3 cells, but the header has 2; put texts that contain the delimiter in quotes",
    ),
    "no label": (
        b"text,label\na, \n",
        {},
        "label",
        "FOLDER/in.csv:2: the label is missing; add one or remove the row",
    ),
    "one class": (b"text,label\na,x\nb,x\n", {}, "label", "expected at least two classes, but every label is 'x'"),
    "labels in upper case": (
        b"text,label\na,HAM\nb,x\nc,ham\n",
        {},
        "label",
        "the labels 'HAM' and 'ham' differ only in their spelling; "
        "write one of them everywhere, or names that differ in more than that if they are two classes",
    ),
    "labels as floats": (
        b"text,label\na,1\nb,x\nc,1.0\n",
        {},
        "label",
        "the labels '1' and '1.0' differ only in their spelling; "
        "write one of them everywhere, or names that differ in more than that if they are two classes",
    ),
    "labels with leading zeros": (
        b"text,label\na,01\nb,x\nc,1\n",
        {},
        "label",
        "the labels '01' and '1' differ only in their spelling; "
        "write one of them everywhere, or names that differ in more than that if they are two classes",
    ),
    "labels with other spaces": (
        b"text,label\na,not  spam\nb,x\nc,not spam\n",
        {},
        "label",
        "the labels 'not  spam' and 'not spam' differ only in their spelling; "
        "write one of them everywhere, or names that differ in more than that if they are two classes",
    ),
    "labels with other accents": (
        "text,label\na,café\nb,x\nc,café\n".encode(),
        {},
        "label",
        "the labels 'café' and 'café' differ only in their spelling; "
        "write one of them everywhere, or names that differ in more than that if they are two classes",
    ),
    "many classes": (
        b"text,label\n" + b"".join(b"a,%d\n" % row for row in range(30)),
        {},
        "label",
        "30 different labels in 30 rows; check that data.label is the column of the class names",
    ),
    "encoding": (
        b"text,label\na,b\ncaf\xe9,b\n",
        {},
        "encoding",
        "FOLDER/in.csv:3: not valid utf-8; write data.encoding=NAME: latin-1, cp1252 (Windows), utf-16",
    ),
    "open quote": (
        b'text,label\n"a\nb",x\nc,"y\nd,x\n' + b"e,y\n" * 50_000,
        {},
        "path",
        "FOLDER/in.csv:4: the cell that this line opens with a quote is never closed; "
        "close it with a quote, and write each quote inside of it twice",
    ),
    "open quote in the last line": (
        b'text,label\r\na,x\r\n"b,y',
        {},
        "path",
        "FOLDER/in.csv:3: the cell that this line opens with a quote is never closed; "
        "close it with a quote, and write each quote inside of it twice",
    ),
    "open quote in the header": (
        b'"text,label\na,x\nb,y\n',
        {},
        "path",
        "FOLDER/in.csv:1: the cell that this line opens with a quote is never closed; "
        "close it with a quote, and write each quote inside of it twice",
    ),
    "quote that a later row closes": (
        b'text,label\na,x\n"b,y\nc,x\n"d",y\n',
        {},
        "path",
        "FOLDER/in.csv:3: the cell that this line opens with a quote has text after the closing quote in line 5; "
        "close it with a quote, and write each quote inside of it twice",
    ),
    "memory": (
        b"text,label\n" + (b"a " * 50_000 + b",x\n" + b"b,y\n") * 2,
        {"max_length": 50_000},
        "max_length",
        "4 texts of up to 50,000 words take 0.0 GB; at most 0 GB are allowed: try data.max_length=31250",
    ),
    "stated": (
        b"text,label\na,x\nb,y\n",
        {"num_classes": 3},
        "num_classes",
        "num_classes is 3, but text_csv has 2",
    ),
}


@pytest.mark.parametrize("case", CSV)
def test_csv(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, settings, key, text = CSV[case]
    if case == "memory":
        monkeypatch.setattr("dlspec.data.sources.labelled_text.MAX_DATA_BYTES", 10**6)
        monkeypatch.setattr("dlspec.data.sources.source.MAX_DATA_BYTES", 10**6)
    if content is not None:
        (tmp_path / "in.csv").write_bytes(content)
    path = settings.get("path", "FOLDER/in.csv")
    source = SOURCES["text_csv"](**settings | {"path": path and path.replace("FOLDER", str(tmp_path))})
    assert message(lambda: open_data(source), tmp_path) == (key, text)


def test_a_csv_file_with_quotes_gives_what_pandas_reads(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    long = "word " * 40_000  # 200,000 characters: more than the csv module's own limit
    content = f'text,label\n"{long}",x\n"a ""b"", c\r\nd",y\n5" e,"x"\n"",y\n"f" g,x\n h "i,y\n'
    (tmp_path / "in.csv").write_bytes(content.encode())
    expected = pandas.read_csv(tmp_path / "in.csv", keep_default_na=False)
    limit = csv.field_size_limit()
    texts, labels = read_columns(str(tmp_path / "in.csv"), "text", "label", ",", "utf-8")
    assert (texts, labels) == (expected["text"].tolist(), expected["label"].tolist())
    assert csv.field_size_limit() == limit


def test_csv_over_a_gigabyte(tmp_path: Path) -> None:
    with (tmp_path / "in.csv").open("wb") as file:
        file.truncate(1_200_000_000)  # sparse: takes no room
    source = SOURCES["text_csv"](path=str(tmp_path / "in.csv"))
    text = "'FOLDER/in.csv' has 1.2 GB, but text_csv reads at most 1 GB; use a part of it"
    assert message(source.open, tmp_path) == ("path", text)


IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"
TERABYTES = struct.pack(">4I", 0x0803, 2**31, 28, 28)
IDX = {
    "magic": (
        IMAGES,
        b"PK\x03\x04" + bytes(100),
        "'FOLDER/train-images-idx3-ubyte' is not an IDX file of images:"
        " expected 0x00000803 at its start, got b'PK\\x03\\x04'",
    ),
    "swapped": (
        LABELS,
        TERABYTES,
        "'FOLDER/train-labels-idx1-ubyte' is not an IDX file of labels:"
        " expected 0x00000801 at its start, got b'\\x00\\x00\\x08\\x03'",
    ),
    "empty": (
        IMAGES,
        b"",
        "'FOLDER/train-images-idx3-ubyte' is not an IDX file of images: expected 0x00000803 at its start, got b''",
    ),
    "cut off": (
        IMAGES,
        idx(np.zeros((8, 28, 28)))[:-1],
        "'FOLDER/train-images-idx3-ubyte': the header announces 6,272 bytes, but only 6,271 follow",
    ),
    "too long": (
        IMAGES,
        idx(np.zeros((8, 28, 28))) + b"\0",
        "'FOLDER/train-images-idx3-ubyte': the header announces 6,272 bytes, but more follow",
    ),
    "terabytes": (
        IMAGES,
        TERABYTES,
        "'FOLDER/train-images-idx3-ubyte' must have 1 to 100,000 samples, but its header says 2,147,483,648",
    ),
    "none": (
        LABELS,
        idx(np.zeros(0)),
        "'FOLDER/train-labels-idx1-ubyte' must have 1 to 100,000 samples, but its header says 0",
    ),
    "pixels": (
        IMAGES,
        idx(np.zeros((8, 32, 28))),
        "'FOLDER/train-images-idx3-ubyte' must have images of 28 by 28 pixels, got 32 by 28",
    ),
    "counts": (
        LABELS,
        idx(np.zeros(7)),
        "'FOLDER': the train files must contain as many labels as images, got 8 images and 7 labels",
    ),
    "label": (
        LABELS,
        idx(np.array([0, 1, 2, 10, 4, 5, 6, 7])),
        "'FOLDER': the train labels must be 0 to 9, got 10",
    ),
    "broken gzip": (
        LABELS,
        gzip.compress(idx(np.zeros(8)), mtime=0)[:20],
        "'FOLDER/train-labels-idx1-ubyte' can't be read:"
        " Compressed file ended before the end-of-stream marker was reached",
    ),
    "no gzip": (
        LABELS,
        b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 20,
        "'FOLDER/train-labels-idx1-ubyte' can't be read: Error -3 while decompressing data: invalid block type",
    ),
    "bomb": (
        LABELS,
        gzip.compress(idx(np.zeros(8)) + bytes(10**7), mtime=0),
        "'FOLDER/train-labels-idx1-ubyte': the header announces 8 bytes, but more follow",
    ),
}


@pytest.mark.parametrize("case", IDX)
def test_mnist_file(case: str, tmp_path: Path) -> None:
    name, content, text = IDX[case]
    write_mnist(tmp_path)
    (tmp_path / name).write_bytes(content)
    source = SOURCES["mnist"](path=str(tmp_path))
    assert message(source.open, tmp_path) == ("path", text)


def test_mnist_folder(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / LABELS).unlink()
    incomplete = SOURCES["mnist"](path=str(tmp_path))
    text = f"'FOLDER' lacks train-labels-idx1-ubyte; it must contain {FOUR}"
    assert message(incomplete.open, tmp_path) == ("path", text)
    missing = SOURCES["mnist"](path=str(tmp_path / "no"))
    text = f"found no folder 'FOLDER/no'; it must contain {FOUR}"
    assert message(missing.open, tmp_path) == ("path", text)


def test_mnist_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLSPEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "MIRROR", (tmp_path / "mirror").as_uri() + "/")
    key, text = message(SOURCES["mnist"]().open, tmp_path)
    url = "file://FOLDER/mirror/train-images-idx3-ubyte.gz"
    reason = "<urlopen error [Errno 2] No such file or directory: 'FOLDER/mirror/train-images-idx3-ubyte.gz'>"
    fix = f"put {FOUR} into 'FOLDER/cache/mnist', or give their folder as data.path=FOLDER"
    assert (key, text) == ("path", f"MNIST could not be downloaded ({url}: {reason}); {fix}")
    assert list((tmp_path / "cache" / "mnist").iterdir()) == []


def test_random_too_large() -> None:
    source = SOURCES["random"](shape=[3, 10_000, 10_000], size=1000)
    text = "1,000 samples of 1,200,000,008 bytes take 1,200.0 GB; at most 4 GB are allowed: try data.size=3"
    assert message(source.open, Path("FOLDER")) == ("size", text)
    source = SOURCES["random"](shape=[100_000, 100_000])
    found = "1,024 samples of 40,000,000,008 bytes take 40,960.0 GB"
    text = f"{found}; at most 4 GB are allowed: try a smaller shape or length"
    assert message(source.open, Path("FOLDER")) == ("size", text)


STATED = [
    ("digits", {"num_classes": 12}, "num_classes", "num_classes is 12, but digits has 10"),
    ("digits", {"shape": [1, 28, 28]}, "shape", "shape is [1, 28, 28], but digits has [1, 8, 8]"),
    ("digits", {"vocab_size": 100}, "vocab_size", "vocab_size is 100, but digits has none"),
    ("diabetes", {"num_classes": 2}, "num_classes", "num_classes is 2, but diabetes has none"),
]


@pytest.mark.parametrize(("name", "settings", "key", "text"), STATED)
def test_stated_facts(name: str, settings: dict[str, Any], key: str, text: str) -> None:
    assert message(lambda: open_data(SOURCES[name](**settings)), Path("FOLDER")) == (key, text)


X = np.zeros((4, 3))
Y = [0, 1, 0, 1]
ARRAYS = [
    ({"x": X, "targt": Y}, "target", "no target 'target' among the arrays; did you mean 'targt'?"),
    ({}, "target", "no target 'target' among the arrays"),
    ({"target": Y}, "", "only the target 'target' was given; add an array to predict it from"),
    ({"a b": X, "target": Y}, "a b", "'a b' can't be a field's name: use letters, digits and _"),
    ({"x": X, "target": Y[:3]}, "", "all arrays must have the same number of rows: x has 4, target has 3"),
    ({"x": X[:0], "target": []}, "", "the arrays have no rows"),
    ({"x": X[:, :0], "target": Y}, "x", "'x' has empty samples of shape [0]"),
    ({"x": [[1.0], [1.0, 2.0]], "target": Y}, "x", "'x' is ragged: its rows must all have the same shape"),
    ({"x": ["a", "b"], "target": Y}, "x", "'x' must contain numbers, got dtype <U1"),
    ({"x": 1.0, "target": Y}, "x", "'x' must have one row for each sample, got a single number"),
    (
        {"x": [[0.0], [float("nan")], [1e300], [0.0]], "target": Y},
        "x",
        "'x' has 2 values that are not finite as float32, the first in row 1",
    ),
    (
        {"x": np.zeros((4, 1, 1, 1, 1, 1)), "target": Y},
        "x",
        "'x' must have shape (N, C), (N, T, C) or (N, C, H, W), got [4, 1, 1, 1, 1, 1]",
    ),
    (
        {"x": np.zeros((4, 1, 8, 8), np.uint8), "target": Y},
        "x",
        "'x' contains integers of shape [4, 1, 8, 8], but tokens must be (N, T);"
        " convert other inputs to floats (images of bytes: x / 255)",
    ),
    (
        {"x": np.full((4, 2), -1), "target": Y},
        "x",
        "'x' contains the token -1, but tokens must be >= 0; convert other inputs to floats",
    ),
    (
        {"x": X, "target": [[0], [1], [0], [1]]},
        "target",
        "'target' contains integers of shape [4, 1], but classes must be (N,); convert numbers to floats",
    ),
    (
        {"x": X, "target": [1, 2, 1, 3]},
        "target",
        "'target' must have the classes 0 to 2, got 1, 2, 3; np.unique(values, return_inverse=True)[1] renumbers them",
    ),
    (
        {"x": X, "target": [0, 2, 0, 2]},
        "target",
        "'target' must have the classes 0 to 1, got 0, 2; np.unique(values, return_inverse=True)[1] renumbers them",
    ),
    ({"x": X, "target": [0, 0, 0, 0]}, "target", "'target' has only one class; there is nothing to learn"),
]


@pytest.mark.parametrize(("arrays", "key", "text"), ARRAYS)
def test_arrays(arrays: dict[str, Any], key: str, text: str) -> None:
    assert message(lambda: dataset_from_arrays(arrays), Path("FOLDER")) == (key, text)


def test_arrays_with_wrong_shares() -> None:
    text = "validation 0.5 and test 0.5: each must be at least 0 and their sum below 1"
    with pytest.raises(DataError) as caught:
        dataset_from_arrays({"x": X, "target": Y}, validation=0.5, test=0.5)
    assert (caught.value.key, str(caught.value)) == ("validation", text)


SETTINGS = [
    (
        "digits",
        {"validation": 0.6, "test": 0.5},
        "Value error, validation 0.6 and test 0.5 leave no samples to train on: their sum must be below 1",
    ),
    ("digits", {"validation": float("nan")}, "Input should be less than 1"),
    ("digits", {"shuffle": True}, "Extra inputs are not permitted"),
    ("mnist", {"test": 0.1}, "Extra inputs are not permitted"),
    (
        "text_csv",
        {"delimiter": '"'},
        "Value error, the delimiter can't be a quote or a line break; write for example ',', ';' or a tab",
    ),
    (
        "text_csv",
        {"encoding": "utf-9"},
        "Value error, unknown encoding 'utf-9'; choose utf-8, latin-1, cp1252, utf-16, ...",
    ),
    (
        "text_csv",
        {"encoding": "hex"},
        "Value error, unknown encoding 'hex'; choose utf-8, latin-1, cp1252, utf-16, ...",
    ),
    (
        "random",
        {"fields": {"left": {}}},
        "Value error, needs a shape, such as shape: [3, 32, 32], or tokens, such as vocab_size: 1000 and length: 50",
    ),
    (
        "random",
        {"shape": [3], "length": 5},
        "Value error, can't have both shape (numbers) and vocab_size or length (tokens): remove one of them",
    ),
    (
        "random",
        {"length": 5},
        "Value error, needs both vocab_size and length, such as vocab_size: 1000 and length: 50",
    ),
]


@pytest.mark.parametrize(("name", "settings", "text"), SETTINGS)
def test_settings(name: str, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SOURCES[name](**settings)
    assert [problem["msg"] for problem in caught.value.errors()] == [text]


SAVED = {"kind": "words", "length": 3, "lowercase": True, "words": ["a"]}
VOCABULARIES = [
    ([], "expected kind, length, lowercase and words"),
    (SAVED | {"more": 1}, "expected kind, length, lowercase and words"),
    (SAVED | {"kind": "bytes"}, "kind must be 'words', and lowercase true or false"),
    (SAVED | {"lowercase": 1}, "kind must be 'words', and lowercase true or false"),
    (SAVED | {"length": 10**12}, "length must be 1 to 100,000"),
    (SAVED | {"length": True}, "length must be 1 to 100,000"),
    (SAVED | {"words": "abc"}, "words must be a list of at most 1,000,000 words"),
    (SAVED | {"words": ["a", 1]}, "each word must be a string of 1 to 1,000 characters"),
    (SAVED | {"words": ["a", "a"]}, "a word is listed twice"),
]


@pytest.mark.parametrize(("saved", "why"), VOCABULARIES)
def test_saved_vocabulary(saved: object, why: str) -> None:
    with pytest.raises(DataError) as caught:
        Vocabulary.from_json(saved)
    assert str(caught.value) == f"the saved vocabulary can't be used: {why}"


def test_a_name_taken_twice() -> None:
    class Impostor(DataSource):
        def open(self) -> Any: ...

    with pytest.raises(UserError) as caught:
        data_source("digits")(Impostor)
    assert str(caught.value) == (
        "two data sources are named 'digits': dlspec.data.sources.sklearn_datasets.Digits and "
        f"{__name__}.test_a_name_taken_twice.<locals>.Impostor; rename one of them"
    )
    assert SOURCES["digits"].__name__ == "Digits"
