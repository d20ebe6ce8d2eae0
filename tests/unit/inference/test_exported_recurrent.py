"""Recurrent layers in exported files: any number of steps, samples of several lengths, and every output."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlspec.errors import UserError
from dlspec.inference.export.model_tracing import silence_exporters
from dlspec.inference.export.onnx_file import OnnxSession
from dlspec.inference.export.onnx_recurrent import make_translations
from dlspec.inference.export.recurrent_operators import KeepRecurrentLayers, use_pytorch_operators
from dlspec.inference.export.run_export import export_run
from dlspec.inference.loading.loaded_run import load_run
from helpers.predicted_runs import CASES, DataCase, train_and_capture, write_files

KINDS: Mapping[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "LSTM": (nn.LSTM, {}), "GRU": (nn.GRU, {}), "RNN": (nn.RNN, {}), "RNN relu": (nn.RNN, {"nonlinearity": "relu"}),
    "LSTM without bias": (nn.LSTM, {"bias": False}), "GRU without bias": (nn.GRU, {"bias": False}),
    "LSTM, steps first": (nn.LSTM, {"batch_first": False}),
}  # fmt: skip
STATES = """
layers:
  - Embedding: 8
  - {kind}: {{hidden_size: 8, num_layers: 2, bidirectional: true, output: state{more}}}
  - Flatten
  - Linear: ${{data.num_outputs}}
"""


class Network(nn.Module):
    """A recurrent layer of PyTorch, with its state as outputs."""

    def __init__(self, name: str, directions: int) -> None:
        super().__init__()
        kind, settings = KINDS[name]
        settings = {"batch_first": True, **settings}
        self.layer = kind(3, 4, num_layers=directions, bidirectional=directions == 2, **settings)

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        output, state = self.layer(input)
        return (output, *state) if isinstance(state, tuple) else (output, state)


def trace(network: nn.Module) -> torch.export.ExportedProgram:
    """Trace a network whose batch size and number of steps may differ."""
    sizes = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    with torch.no_grad(), KeepRecurrentLayers(), silence_exporters():
        return torch.export.export(network, (torch.randn(3, 5, 3),), dynamic_shapes=(sizes,), strict=False)


def compare(network: nn.Module, run: Any) -> None:
    for shape in ((1, 1, 3), (2, 7, 3), (33, 40, 3)):
        input = torch.randn(*shape)
        with torch.no_grad():
            for found, expected in zip(run(input), network(input), strict=True):
                assert (torch.as_tensor(found) - expected).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("name", "directions"),
    [("LSTM", 2), *(pytest.param(name, count, marks=pytest.mark.soak) for name in KINDS for count in (1, 2))],
)
def test_programs_take_any_number_of_steps(name: str, directions: int) -> None:
    torch.manual_seed(0)
    network = Network(name, directions).eval()
    program, buffer = trace(network), io.BytesIO()
    use_pytorch_operators(program)
    torch.export.save(program, buffer)
    buffer.seek(0)
    compare(network, torch.export.load(buffer).module())


@pytest.mark.soak
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("name", KINDS)
def test_onnx_files_take_any_number_of_steps(name: str, directions: int) -> None:
    torch.manual_seed(0)
    network = Network(name, directions).eval()
    with silence_exporters():
        made = torch.onnx.export(
            trace(network), (), dynamo=True, opset_version=20, verbose=False, input_names=["x"],
            custom_translation_table=make_translations(),
        )  # fmt: skip
    assert made is not None
    operators = [each.op_type for each in made.model_proto.graph.node]
    assert operators.count(name.split(maxsplit=1)[0].strip(",")) == directions  # as many layers as directions here
    session = OnnxSession(made.model_proto.SerializeToString())
    compare(network, lambda input: session.run({"x": input.numpy()}).values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recurrent")
    write_files(folder)
    for kind in ("LSTM", "GRU", "RNN"):
        (folder / "conf/model" / f"states_{kind}.yaml").write_text(STATES.format(kind=kind, more=""))
    (folder / "conf/model/projected.yaml").write_text(STATES.format(kind="LSTM", more=", proj_size: 4"))
    (folder / "conf/model/next.yaml").write_text(
        "layers: [{Embedding: 8}, {GRU: {hidden_size: 8, num_layers: 2}}, {Linear: '${data.num_outputs}'}]"
    )
    (folder / "conf/model/double.yaml").write_text(STATES.format(kind="LSTM", more=""))
    return folder


def load_trained(folder: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(folder)
    if not (folder / model).exists():
        precision = ["trainer.precision=64"] if model == "double" else []
        case = DataCase([*CASES["table of texts"].overrides, *precision])
        assert train_and_capture(model, case, folder / model)
    return load_run(model, device="cpu")


@pytest.mark.soak
@pytest.mark.parametrize("form", ["onnx", "pt2"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_states_after_several_lengths(
    kind: str, form: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_trained(folder, f"states_{kind}", monkeypatch)
    result = export_run(run, str(tmp_path / f"model.{form}"))
    assert result.check is not None and result.check.largest < 1e-6 and result.check.changed == 0
    assert form == "onnx" or "(batch, steps)" in result.inputs["text"]


@pytest.mark.soak
@pytest.mark.parametrize("form", ["onnx", "pt2"])
@pytest.mark.parametrize("prepare", [True, False])
def test_running_texts_may_be_shorter(
    prepare: bool, form: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    if not (folder / "next").exists():
        assert train_and_capture("next", CASES["characters"], folder / "next")
    result = export_run(load_run("next", device="cpu"), str(tmp_path / f"model.{form}"), prepare=prepare)
    assert result.check is not None and result.check.largest < 1e-6
    assert result.inputs["text"].startswith("int64 (batch, steps)")


@pytest.mark.soak
@pytest.mark.parametrize(("name", "reason"), [("projected", "has proj_size"), ("double", "is in double")])
def test_some_layers_have_no_onnx_file(
    name: str, reason: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_trained(folder, name, monkeypatch)
    with pytest.raises(UserError, match=f"'1' \\(LSTM\\) {reason}"):
        export_run(run, str(tmp_path / "model.onnx"))
    result = export_run(run, str(tmp_path / "model.pt2"))
    assert result.check is not None and result.check.largest < 1e-6 and "(batch, steps)" in result.inputs["text"]
