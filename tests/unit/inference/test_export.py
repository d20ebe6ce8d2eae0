"""Exported files compute what the run predicts, without dlspec; what has no file is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import dlspec
from dlspec.compat.torch_aoti import load_package
from dlspec.data.images.resizing import Resize, resize_image
from dlspec.errors import UserError
from dlspec.inference.export.file_check import TOLERANCE
from dlspec.inference.export.file_inputs import ImageResize
from dlspec.inference.export.graph_editor import GraphEditor
from dlspec.inference.export.onnx_file import OnnxSession
from dlspec.inference.export.onnx_images import add_resizing
from dlspec.inference.export.refusals import refuse_what_has_no_file
from dlspec.inference.export.run_export import choose_format, export_run
from dlspec.inference.loading.loaded_run import load_run
from dlspec.parts.layers.unpacked_steps import run_without_packing
from helpers.predicted_runs import CASES, DataCase, train_and_capture, write_files

# Runs an exported file with nothing but onnxruntime and numpy: rows as JSON on stdin, outputs on stdout.
ALONE = """
import json, sys
import numpy as np, onnxruntime
for name in ("torch", "dlspec", "onnx"):
    sys.modules[name] = None
rows = json.load(sys.stdin)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
types = {"tensor(string)": object, "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
given = {each.name: np.array(rows[each.name], types[each.type]) for each in session.get_inputs()}
found = session.run(None, given)
print(json.dumps({each.name: value.tolist() for each, value in zip(session.get_outputs(), found)}))
"""


def run_alone(file: Path, rows: dict[str, list[object]]) -> dict[str, np.ndarray]:
    """Run an exported file in a process without torch and dlspec."""
    found = subprocess.run(
        [sys.executable, "-c", ALONE, str(file)], input=json.dumps(rows), capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return {name: np.array(each) for name, each in json.loads(found.stdout).items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a table and one of texts."""
    folder = tmp_path_factory.mktemp("export")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train_and_capture("mlp", CASES["table of three classes"], folder / "table")
        assert train_and_capture("vae", CASES["mnist to image"], folder / "vae")
        assert train_and_capture("seq2seq", CASES["random answers"], folder / "seq2seq")
    return folder


@pytest.fixture(scope="module")
def table_file(folder: Path) -> Path:
    """The run of a table as an ONNX file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = dlspec.predictor("table", device="cpu").export("table.onnx")
    assert result.check is not None and result.check.changed == 0 and result.check.largest < 1e-6
    assert result.rows_kind == "validation rows"
    return folder / "table.onnx"


@pytest.fixture(autouse=True)
def _in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.soak
def test_raw_rows_without_dlspec_equal_predict(table_file: Path) -> None:
    model = dlspec.predictor("table", device="cpu")
    rows = [{"age": 20, "spend": 3.5}, {"age": None, "spend": 70}, {"age": 64, "spend": None}]
    expected = model.predict(rows, probabilities=True)
    columns = {name: [np.nan if row[name] is None else row[name] for row in rows] for name in ("age", "spend")}
    found = run_alone(table_file, columns)
    shares = np.stack([expected[f"grade.{each}"] for each in model.classes["grade"]], axis=1)
    assert np.abs(found["grade.probabilities"] - shares).max() < 1e-6
    assert found["grade"].tolist() == expected["grade"].tolist()


def test_a_program_of_torch_export_computes_the_same(tmp_path: Path) -> None:
    model = dlspec.predictor("table", device="cpu")
    model.export(tmp_path / "table.pt2")
    texts = {"dlspec.outputs": ""}
    program = torch.export.load(tmp_path / "table.pt2", extra_files=texts).module()
    found, _ = program(torch.tensor([20.0, 50, 64]), torch.tensor([3.5, 70, 0]))
    expected = model.predict({"age": np.array([20, 50, 64]), "spend": np.array([3.5, 70, 0])}, probabilities=True)
    shares = np.stack([expected[f"grade.{each}"] for each in model.classes["grade"]], axis=1)
    assert np.abs(found.detach().numpy() - shares).max() < 1e-6
    assert json.loads(texts["dlspec.outputs"])[0]["classes"] == list(model.classes["grade"])


def test_the_weights_alone_are_those_of_the_run(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = dlspec.predictor("vae", device="cpu")
    result = model.export(tmp_path / "vae.safetensors")
    found = load_file(tmp_path / "vae.safetensors")
    assert found.keys() == model.run.network.state_dict().keys()
    assert all(torch.equal(found[name], each) for name, each in model.run.network.state_dict().items())
    assert [each.name for each in result.files] == ["vae.prepare.json"]


def test_a_network_that_draws_takes_its_noise_as_an_input(tmp_path: Path) -> None:
    run = load_run("vae", device="cpu")
    result = export_run(run, str(tmp_path / "vae.pt2"), prepare=False)
    assert result.inputs["noise"].startswith("float32 (batch, 3), random numbers of the standard normal distribution")
    images = torch.rand(7, 1, 28, 28)
    torch.manual_seed(5)
    with torch.no_grad():
        expected = run.network(images)
    torch.manual_seed(5)
    found = torch.export.load(tmp_path / "vae.pt2").module()(images, torch.randn(7, 3))
    for one, other in zip(found, expected.values(), strict=True):
        assert (one - other).abs().max() < 1e-5


class Flipped(nn.Module):
    """Draws otherwise than `randn_like` and `rand_like` do."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input * torch.bernoulli(torch.full_like(input, 0.5))


def test_a_layer_that_draws_otherwise_is_refused_by_name(folder: Path) -> None:
    dlspec.layer(Flipped)
    layers = (
        "layers: {hidden: {Linear: 4}, noisy: {Formula: hidden + randn_like(hidden)}, coin: Flipped, "
        "head: {Linear: '${data.num_outputs}'}}"
    )
    (folder / "conf/model/flipped.yaml").write_text(layers, encoding="utf-8")
    assert train_and_capture("flipped", CASES["table of three classes"], folder / "flipped")
    with pytest.raises(UserError, match="the layer 'coin' draws random numbers in every prediction, not by randn_like"):
        refuse_what_has_no_file(load_run("flipped", device="cpu"), "onnx", prepare=True)


def test_a_network_that_reads_what_it_wrote_is_refused_before_it_is_traced() -> None:
    with pytest.raises(UserError, match="writes 'answer' token by token"):
        refuse_what_has_no_file(load_run("seq2seq", device="cpu"), "onnx", prepare=True)


def test_nothing_is_kept_over_the_tolerance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlspec.inference.export.file_check.TOLERANCE", -1.0)
    with pytest.raises(UserError, match="differs from the run by"):
        export_run(load_run("table", device="cpu"), str(tmp_path / "table.pt2"))
    assert not list(tmp_path.iterdir()) and TOLERANCE == 1e-4


@pytest.mark.parametrize(
    ("output", "name", "found"),
    [("m.onnx", None, "onnx"), ("m.PT2", None, "pt2"), ("m.bin", "aoti", "aoti"), ("m", "safetensors", "safetensors")],
)
def test_the_format_of_a_file(output: str, name: str | None, found: str) -> None:
    assert choose_format(output, name) == found


@pytest.mark.parametrize("module", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("directions", [1, 2])
def test_running_without_packing_equals_packing(module: type[nn.RNNBase], directions: int) -> None:
    torch.manual_seed(0)
    layer = module(3, 4, num_layers=2, bidirectional=directions == 2, batch_first=True).eval()
    input, lengths = torch.randn(4, 6, 3), torch.tensor([6, 1, 4, 3])
    packed = pack_padded_sequence(input, lengths, batch_first=True, enforce_sorted=False)
    with torch.no_grad():
        output, final = layer(packed)
        found, last = run_without_packing(layer, input, None, lengths, keep_cells=True)
    expected = pad_packed_sequence(output, batch_first=True, total_length=6)[0]
    assert (found - expected).abs().max() < 1e-6
    for one, other in zip(*(each if isinstance(each, tuple) else (each,) for each in (last, final)), strict=True):
        assert (one - other).abs().max() < 1e-6


def test_what_onnxruntime_can_not_run_is_refused() -> None:
    names = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n", 3, 9, 9]) for name in ("x", "w", "y")]
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "double", names[:2], names[2:])
    message = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    with pytest.raises(UserError, match=r"onnxruntime can't run this network: .*Conv.*Write format=pt2"):
        OnnxSession(message.SerializeToString())


@pytest.mark.parametrize("resize", ["cover", "fit", "stretch"])
def test_images_of_any_size_are_resized_as_dlspec_does(resize: Resize) -> None:
    message = helper.make_model(
        helper.make_graph([], "resizing", [helper.make_tensor_value_info("x", 2, ["n", "h", "w", 3])],
                          [helper.make_tensor_value_info("y", 2, ["n", 9, 13, 3])]),
        opset_imports=[helper.make_opsetid("", 20)], ir_version=9,
    )  # fmt: skip
    editor = GraphEditor(message)
    editor.rename_node_output(add_resizing(editor, "x", ImageResize((9, 13), resize, is_bytes=True)), "y")
    editor.finish()
    session = OnnxSession(message.SerializeToString())
    numbers = np.random.default_rng(0)
    for height, width in ((9, 13), (18, 26), (40, 31), (5, 4), (1, 50), (9, 30), (64, 13)):
        pixels = numbers.integers(0, 256, (2, height, width, 3), np.uint8)
        expected = [resize_image(each.transpose(2, 0, 1), (9, 13), resize).permute(1, 2, 0) for each in pixels]
        difference = session.run({"x": pixels})["y"].astype(int) - torch.stack(expected).numpy()
        assert not difference.any()


@pytest.mark.soak
@pytest.mark.parametrize(("form", "prepare"), [("pt2", True), ("pt2", False), ("onnx", False)])
def test_a_network_in_double_precision(form: str, prepare: bool, folder: Path, tmp_path: Path) -> None:
    if not (folder / "double").exists():
        case = DataCase([*CASES["table of three classes"].overrides, "trainer.precision=64"])
        assert train_and_capture("mlp", case, folder / "double")
    result = export_run(load_run("double", device="cpu"), str(tmp_path / f"model.{form}"), prepare=prepare)
    assert result.check is not None and result.check.largest < (1e-6 if prepare else 1e-12)
    assert prepare or result.inputs["features"].startswith("float64 (batch, 2)")


@pytest.mark.soak
def test_a_compiled_program_computes_the_same(tmp_path: Path) -> None:
    result = dlspec.predictor("table", device="cpu").export(tmp_path / "table.so", "aoti")
    assert result.check is not None and result.check.largest < 1e-6 and result.check.changed == 0
    found = load_package(tmp_path / "table.so")(torch.tensor([20.0, 50]), torch.tensor([3.5, 70]))
    expected = dlspec.predictor("table").predict({"age": np.array([20, 50]), "spend": np.array([3.5, 70])})
    assert np.abs(found[0].max(1).values.numpy() - expected["grade.probability"]).max() < 1e-6


@pytest.mark.soak
@pytest.mark.parametrize("network", ["text_cnn", "text_gru"])
def test_raw_texts_without_dlspec_equal_predict(network: str, folder: Path, tmp_path: Path) -> None:
    if not (folder / network).exists():
        assert train_and_capture(network, CASES["table of texts"], folder / network)
    model = dlspec.predictor(network, device="cpu")
    model.export(tmp_path / "texts.onnx")
    numbers = np.random.default_rng(0)
    letters = [*"abcdefgWIN FREE lunch, prize! 0123 äÖß_-é'\t", "win", "Free", " ", "  "]
    texts = ["", " ", "WIN a FREE prize", *("".join(numbers.choice(letters, 30)) for _ in range(50))]
    expected = model.predict([{"text": each} for each in texts], probabilities=True)
    found = run_alone(tmp_path / "texts.onnx", {"text": texts})
    shares = np.stack([expected[f"label.{each}"] for each in model.classes["label"]], axis=1)
    assert np.abs(found["label.probabilities"] - shares).max() < 1e-5
    assert found["label"].tolist() == expected["label"].tolist()
    one = run_alone(tmp_path / "texts.onnx", {"text": texts[:1]})
    assert np.abs(one["label.probabilities"] - shares[:1]).max() < 1e-5
