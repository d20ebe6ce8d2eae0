"""A user's own classes: which are registered, which names of arguments are free, and what their settings accept."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

import dlspec
from dlspec.errors import SpecError
from dlspec.parts.own_classes import UnsuitableClassError
from dlspec.parts.torch.torch_parts import LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS


class Weighted(nn.Module):
    """A loss whose settings have the names of settings of PyTorch and torchmetrics, with other values."""

    def __init__(self, weights: list[float], reduction: str = "sum", p: float = 3.0, reduce: bool = True) -> None:
        super().__init__()
        self.weights, self.p = weights, p

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.weights[0] * (output - target).abs().pow(self.p).mean()


class Shifted(nn.Module):
    """A layer with settings that PyTorch's layers restrict, and one with the name of a newer key of an entry."""

    def __init__(self, in_features: int, padding: int = -3, dropout: float = 2.0, lengths_of: int = 1) -> None:
        super().__init__()
        self.linear, self.lengths_of_setting = nn.Linear(in_features, in_features), lengths_of

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(x)
        return found


@pytest.fixture
def registered() -> Any:
    dlspec.loss(Weighted)
    dlspec.layer(Shifted)
    yield
    for registry, name in ((LOSSES, "Weighted"), (LAYERS, "Shifted")):
        registry._classes.pop(name, None)
        registry._described.pop(name, None)


SPEC: dict[str, Any] = {
    "layers": [{"Shifted": {"padding": -1, "dropout": 7.5, "lengths_of": 4, "name": "own"}}, {"Linear": 1}],
    "loss": {"type": "Weighted", "weights": [0.5]},
    "trainer": {"epochs": 1, "progress": "none"},
}


@pytest.fixture
def data() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"x": torch.randn(40, 3, generator=generator), "target": torch.randn(40, generator=generator)}


@pytest.mark.usefixtures("registered")
def test_names_of_settings_of_torch_are_free_and_the_run_can_be_resumed_and_loaded(
    tmp_path: Path, data: dict[str, Tensor]
) -> None:
    trained = dlspec.train(SPEC, data, folder=tmp_path)
    assert trained.folder is not None
    assert trained.network.own.lengths_of_setting == 4  # type: ignore[union-attr]
    again = dlspec.resume(trained.folder, data, changes={"trainer": {"epochs": 2}})
    assert len(again.history) == 2
    loaded = dlspec.load(trained.folder, data)
    assert all(map(torch.equal, loaded.state_dict().values(), again.network.state_dict().values()))


@pytest.mark.usefixtures("registered")
def test_only_the_hints_of_an_own_class_restrict_its_settings() -> None:
    assert LOSSES["Weighted"].settings.keys() == {"weights", "reduction", "p", "reduce"}
    assert LOSSES["Weighted"].settings["weights"].wanted == "a list of numbers"
    assert LAYERS["Shifted"].settings["padding"].read(-3) == -3
    assert not LAYERS["Shifted"].settings["padding"].accepts("same")


@pytest.mark.usefixtures("registered")
def test_a_newer_key_of_an_entry_is_a_setting_in_both_ways_to_write_a_layer() -> None:
    spec = {"layers": [{"Shifted": {"lengths_of": 5}}, {"type": "Shifted", "lengths_of": 6}]}
    network = dlspec.build(spec, {"shape": [3], "num_classes": None})
    assert [each.lengths_of_setting for each in network.children() if isinstance(each, Shifted)] == [5, 6]


def _relu(x: Tensor) -> Tensor:
    return x.relu()


@pytest.mark.parametrize("wrong", [_relu, lambda x: x, partial(nn.Linear, bias=False), nn.ReLU(), 3, int])
@pytest.mark.parametrize("kind", ["layer", "loss", "optimizer", "scheduler"])
def test_only_classes_of_the_right_base_are_registered(kind: str, wrong: Any) -> None:
    with pytest.raises(UnsuitableClassError, match=f"an? {kind} must be a class that inherits from .*, got "):
        getattr(dlspec, kind)(wrong)


@pytest.mark.parametrize(
    ("kind", "base", "argument"),
    [("layer", nn.Module, name) for name in ("name", "repeat", "tie", "share", "parametrize", "layout", "type")]
    + [("loss", nn.Module, name) for name in ("output", "target", "factor", "type")]
    + [("optimizer", optim.Optimizer, "type"), ("scheduler", optim.lr_scheduler.LRScheduler, "type")],
)
def test_an_argument_with_the_name_of_a_key_is_refused(kind: str, base: type, argument: str) -> None:
    source = f"def __init__(self, size, {argument}=1): pass"
    space: dict[str, Any] = {}
    exec(source, space)
    cls = type("Own", (base,), {"__init__": space["__init__"]})
    with pytest.raises(UnsuitableClassError, match=f"'Own' has an argument '{argument}'.*rename .* '{argument}_'"):
        getattr(dlspec, kind)(cls)
    assert all("Own" not in each for each in (LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS))


def test_a_run_whose_modules_are_imported_is_loaded_resumed_and_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, Tensor]
) -> None:
    (tmp_path / "doubled_layer.py").write_text(
        "import dlspec\nfrom torch import nn\n\n@dlspec.layer\nclass Doubled(nn.Module):\n"
        "    def forward(self, x):\n        return 2 * x\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = {"imports": ["doubled_layer"], "layers": ["Doubled", {"Linear": 1}], "trainer": SPEC["trainer"]}
    try:
        folder = dlspec.train(spec, data, folder=tmp_path).folder
        assert folder is not None
        loaded = dlspec.load(folder)
        x = torch.randn(5, 3)
        torch.testing.assert_close(loaded(x), torch.nn.functional.linear(2 * x, *loaded[1].parameters()))  # type: ignore[index]
        assert len(dlspec.resume(folder, data, changes={"trainer": {"epochs": 2}}).history) == 2
        assert dlspec.train({"run": str(folder)}, data).spec["imports"] == ["doubled_layer"]
        monkeypatch.delitem(sys.modules, "doubled_layer")
        with pytest.raises(SpecError, match=r"add 'imports=\[doubled_layer\]'"):
            dlspec.load(folder)
        assert type(dlspec.load(folder, imports=["doubled_layer"])) is type(loaded)
    finally:
        LAYERS._classes.pop("Doubled", None)
