"""`predict file=` and `evaluate file=`: as with the run, predictions without torch; what no file can do is refused."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from onnx import TensorProto, helper
from PIL import Image

import dlspec
from dlspec.data.encoding.fields import FieldPlan
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.prepare.kinds.class_table import ClassTable
from dlspec.data.prepare.kinds.class_target import FittedClasses
from dlspec.data.prepare.kinds.image import FittedImage
from dlspec.data.prepare.kinds.number import Number
from dlspec.inference.onnx_files.file_evaluation import evaluate_file
from helpers.command_line import CommandResult
from helpers.onnx_models import make_exported_model, write_model
from helpers.predicted_runs import CASES, DataCase, train_and_capture, write_files

# Runs commands, a line of JSON each, in a process that can't import torch.
WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None
from dlspec.cli.main import run_command
for line in open("commands.jsonl", encoding="utf-8"):
    print(run_command(json.loads(line)), flush=True)
"""


def run_without_torch(*commands: list[str], stdin: str = "") -> tuple[list[str], str]:
    """Run commands without torch; return the lines of stdout, and stderr."""
    Path("commands.jsonl").write_text("\n".join(map(json.dumps, commands)), encoding="utf-8")
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], input=stdin, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines(), found.stderr


def write_table_model() -> str:
    """A file with the probability of two classes: the sigmoid of a number."""
    number = Number().fit(np.array([1.0, 2.0, 5.0]), np.arange(3))
    target = FittedClasses(ClassTable(("no", "yes"), None), "refuse")
    nodes = [
        helper.make_node("Sigmoid", ["age"], ["yes"]),
        helper.make_node("Sigmoid", ["minus"], ["no"]),
        helper.make_node("Neg", ["age"], ["minus"]),
        helper.make_node("Constant", [], ["axis"], value_ints=[1]),
        helper.make_node("Unsqueeze", ["yes", "axis"], ["second"]),
        helper.make_node("Unsqueeze", ["no", "axis"], ["first"]),
        helper.make_node("Concat", ["first", "second"], ["left.probabilities"], axis=1),
        helper.make_node("ArgMax", ["left.probabilities"], ["left.index"], axis=1, keepdims=0),
    ]
    nodes = [nodes[2], *nodes[:2], *nodes[3:]]
    share = helper.make_tensor_value_info("left.probabilities", TensorProto.FLOAT, ["batch", 2])
    index = helper.make_tensor_value_info("left.index", TensorProto.INT64, ["batch"])
    message = make_exported_model(
        nodes, [helper.make_tensor_value_info("age", TensorProto.FLOAT, ["batch"])],
        {"left.probabilities": (share, "left", ("no", "yes")), "left.index": (index, "left", ("no", "yes"))},
        FittedTable({"age": number}, {"left": target}, (FieldPlan("features", ("age",), "features"),), id="name"),
        {"type": "table", "path": "train.csv", "target": "left", "id": "name"},
    )  # fmt: skip
    return write_model(message, "table.onnx")


def write_image_model() -> str:
    """A file with the mean of the pixels of an image of any size."""
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["axes"], value_ints=[1, 2, 3]),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["mean"], keepdims=0),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 1])
    mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch"])
    message = make_exported_model(
        nodes, [image], {"mean": (mean, "mean", ())},
        FittedTable({"image": FittedImage((4, 4), "stretch", None, "grey", 8)}, {},
                    (FieldPlan("image", ("image",), "own"),)),
        {"type": "images", "path": "train", "size": [4, 4]},
    )  # fmt: skip
    return write_model(message, "images.onnx")


def test_files_are_read_and_written_as_with_a_run(work: Path) -> None:
    table, images = write_table_model(), write_image_model()
    rows = "name,age,note\nann,2,x\nbob,?,y\ncid,-1,z\n"
    Path("rows.csv.gz").write_bytes(gzip.compress(rows.encode()))
    Path("pictures").mkdir()
    for name, size in (("a", (3, 3)), ("b", (5, 2)), ("c", (5, 2))):
        Image.fromarray(np.full(size, ord(name), np.uint8)).save(f"pictures/{name}.png")
    Path("pictures/d.png").write_bytes(b"no image")
    said, err = run_without_torch(
        ["predict", f"file={table}", "input=rows.csv.gz", "output=table.csv", "probabilities=true", "threshold=0.9"],
        ["predict", f"file={table}", "input=rows.*", "output=kept.jsonl", "keep=true"],
        ["predict", f"file={table}", "input=rows.csv.gz", "output=chosen.csv", "columns=[left.yes,note]"],
        ["predict", f"file={table}", "input=-", "output=-"],
        ["predict", f"file={images}", "input=pictures", "output=pictures.csv"],
        stdin='{"name": "eve", "age": 0}\n',
    )
    assert [each for each in said if len(each) == 1] == ["3", "3", "3", "0", "3"]
    assert "rows.csv.gz:3: age: '?' is not a number" in err and "pictures/d.png: image: it is not an image" in err
    found = pd.read_csv("table.csv")
    shares = 1 / (1 + np.exp([-2.0, 1.0]))
    assert found["name"].tolist() == ["ann", "bob", "cid"] and found["left"].fillna("").tolist() == ["no", "", "no"]
    assert list(found.columns) == ["name", "left", "left.yes", "left.no", "problem"]
    assert np.allclose(found["left.yes"][[0, 2]], shares, atol=1e-6)
    assert np.allclose(found["left.no"][[0, 2]], 1 - shares, atol=1e-6)
    kept = [json.loads(line) for line in Path("kept.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(each["note"], each["left"]) for each in kept] == [("x", "yes"), ("y", None), ("z", "no")]
    assert Path("chosen.csv").read_text(encoding="utf-8").splitlines()[0] == "left.yes,note,problem"
    assert any('"name":"eve"' in each.replace(" ", "") for each in said)
    means = pd.read_csv("pictures.csv")
    assert means["mean"].tolist()[:3] == [97, 98, 99] and means["file"][3] == "pictures/d.png"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["split=test"], "split has no effect with file=, which has the weights of one run; leave it out, or predict"),
        (["run=runs/1"], "run has no effect with file=, which has the weights of one run; leave one of them out"),
        (["beams=3"], "beams has no effect with file="),
        (["batch_size=0"], "batch_size must be a whole number of at least 1, got 0"),
        (["data.delimitr=tab"], "data.delimitr is not an option of reading; did you mean 'delimiter'?"),
        (["input=none.csv"], "none.csv"),
        (["columns=[left.maybe]"], "no output column 'left.maybe'"),
    ],
)
def test_what_a_file_can_not_do_is_refused(
    dlspec: Callable[..., CommandResult], work: Path, words: list[str], reason: str
) -> None:
    Path("rows.csv").write_text("name,age\nann,2\n", encoding="utf-8")
    given = {"input": "rows.csv", "output": "out.csv"} | dict(each.split("=", 1) for each in words)
    said = dlspec("predict", f"file={write_table_model()}", *(f"{key}={value}" for key, value in given.items()))
    assert said.code == 2 and reason in said.err and said.err.count("\n") == 1
    assert not Path("out.csv").exists()


def test_metrics_are_those_of_plain_numbers(dlspec: Callable[..., CommandResult], work: Path) -> None:
    Path("rows.csv").write_text("name,age,left\na,2,yes\nb,1,no\nc,-1,no\nd,-3,yes\ne,3,maybe\n", encoding="utf-8")
    said = dlspec("evaluate", f"file={write_table_model()}", "data.path=rows.csv", "resamples=20")
    assert said.code == 3 and "1 row is left out, the first is rows.csv:6: left: 'maybe'" in said.err
    lines = {line.split()[0]: line.split() for line in said.out.splitlines() if line}
    assert float(lines["accuracy"][1]) == 0.5 and float(lines["f1_score"][1]) == 0.5 and "to" in lines["accuracy"]
    said = dlspec("evaluate", f"file={write_table_model()}", "data.path=rows.csv", "by=name")
    assert said.code == 2 and "by has no effect with file=" in said.err


# ---- beside the run --------------------------------------------------------------------------------------------------

PICTURES = DataCase(["data=images", "data.path=pics", "data.size=[28,28]", "data.mode=grey"])
MAPS = DataCase(["data=table", "data.path=maps.csv", "data.id=name", "data.target={mask: mask}",
                 "data.columns={picture: {image: {size: [16, 16]}}}"])  # fmt: skip
TWO_TARGETS = DataCase(["data=table", "data.path=rows.csv", "data.target={price: value, churned: class}",
                        "data.columns={age: number, spend: number}", "data.only=[age,spend]"])  # fmt: skip
BESIDE: Mapping[str, tuple[str, DataCase, str]] = {
    "table": ("mlp", CASES["table of two classes"], "rows.csv"),
    "labels": ("mlp", CASES["table of labels"], "rows.csv"),
    "two targets": ("two_targets", TWO_TARGETS, "rows.csv"),
    "texts": ("text_cnn", CASES["table of texts"], "rows.jsonl"),
    "tags": ("tagger", CASES["table of tags"], "rows.jsonl"),
    "text files": ("text_lstm", CASES["files"], "reviews/{label}/{n}.txt"),
    "images": ("lenet5", PICTURES, "pics"),
    "masks": ("unet", MAPS, "maps.csv"),
}
TWO_OUTPUTS = """layers:
  - {Linear: 8, name: trunk}
  - {Linear: 1, name: value}
  - {Linear: 1, name: chance, from: trunk}
outputs: {price: value, churned: chance}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    write_files(folder)
    (folder / "conf" / "model" / "two_targets.yaml").write_text(TWO_OUTPUTS, encoding="utf-8")
    numbers = np.random.default_rng(0)
    for row in range(48):
        for name in (f"pics/{'ab'[row % 2]}/{row}.png", f"x/{row}.png", f"y/{row}.png"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            size = (28, 28) if name.startswith("pics") else (16, 16)
            Image.fromarray(numbers.integers(0, 2 if name[0] == "y" else 256, size).astype(np.uint8)).save(
                folder / name
            )
    lines = "".join(f"n{row},x/{row}.png,y/{row}.png\n" for row in range(48))
    (folder / "maps.csv").write_text("name,picture,mask\n" + lines, encoding="utf-8")
    return folder


@pytest.mark.soak
@pytest.mark.parametrize("name", BESIDE)
def test_a_file_equals_its_run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions without torch and metrics of an exported file, beside those of the run."""
    monkeypatch.chdir(folder)
    model, case, rows = BESIDE[name]
    run, file = f"{model} {name}", f"{name}.onnx"
    assert train_and_capture(model, case, folder / run)
    predictor = dlspec.predictor(run, device="cpu")
    predictor.export(file)
    said, err = run_without_torch(["predict", f"file={file}", f"input={rows}", f"output={name}.jsonl"])
    assert said[-1] == "0", err
    found = [json.loads(line) for line in Path(f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = predictor.predict(rows).rows
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        assert all(are_equal(one[key], other[key]) for key in one), (one, other)
    metrics = predictor.evaluate(rows, resamples=20).metrics
    evaluated = evaluate_file(file, rows, {}, resamples=20).metrics
    assert set(metrics) - {"loss", "loss_price", "loss_churned"} == set(evaluated)
    for key, interval in evaluated.items():
        assert interval.value == pytest.approx(metrics[key].value, abs=1e-6)
        assert interval.low == pytest.approx(metrics[key].low, abs=1e-5)


def are_equal(one: Any, other: Any) -> bool:
    """Whether two values of a row are equal, numbers to 1e-6."""
    if isinstance(other, str) or other is None:
        return bool(one == other)
    return np.allclose(np.array(one), np.array(other), rtol=1e-6, atol=1e-6) if is_numeric(other) else one == other


def is_numeric(value: Any) -> bool:
    return np.array(value).dtype.kind in "iuf"
