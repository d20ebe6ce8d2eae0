"""Which parts there are, and what their schemas make of what was written, word for word."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

from dlspec.language.parse.part import NO_VALUE, parse_part
from dlspec.language.problems import Problems
from dlspec.parts.decorators import layer
from dlspec.parts.registry import Registry
from dlspec.parts.schema import Setting
from dlspec.parts.torch.torch_metrics import metric_registry
from dlspec.parts.torch.torch_parts import (
    _UNSUPPORTED_LAYERS,
    _UNSUPPORTED_LOSSES,
    _UNSUPPORTED_SCHEDULERS,
    EXCLUDED_CLASSES,
    LAYERS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULERS,
    settings_with_defaults,
)

REGISTRIES: dict[str, Registry] = {
    "layer": LAYERS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "scheduler": SCHEDULERS,
    "metric": metric_registry(),
}
each_kind = pytest.mark.parametrize("kind", REGISTRIES)


def list_settings(kind: str) -> list[tuple[str, Setting]]:
    """Every setting of every part, by `Part.setting`."""
    parts = REGISTRIES[kind]
    return [(f"{name}.{each.name}", each) for name in parts for each in parts[name].settings.values()]


def read(
    kind: str, raw: Any, path: tuple[str | int, ...] = ("model", "layers", 0)
) -> tuple[Any, list[tuple[str, str]]]:
    """The settings, and every mistake as what was found and the fix."""
    problems = Problems()
    part = parse_part(raw, path, problems, kind=kind, is_entry=kind == "layer")
    assert part is not None, problems.found
    found = REGISTRIES[kind].read(part, problems)
    return (found[1] if found else None), [(each.found, each.fix) for each in problems.found]


def classes(module: Any, base: type) -> set[str]:
    found = (name for name, each in vars(module).items() if inspect.isclass(each) and issubclass(each, base))
    return {name for name in found if not name.startswith("_")}


def test_every_class_of_this_torch_is_registered_or_left_out_by_name() -> None:
    lazy = {name for name in classes(nn, nn.Module) if name.startswith("Lazy")}
    named = {*LAYERS, *LOSSES, *_UNSUPPORTED_LAYERS, *_UNSUPPORTED_LOSSES, *EXCLUDED_CLASSES, *lazy}
    assert classes(nn, nn.Module) <= named
    assert classes(optim, optim.Optimizer) - {"Optimizer"} <= set(OPTIMIZERS)
    assert classes(lr_scheduler, lr_scheduler.LRScheduler) - {"LRScheduler"} <= {*SCHEDULERS, *_UNSUPPORTED_SCHEDULERS}


@pytest.mark.parametrize("table", [_UNSUPPORTED_LAYERS, _UNSUPPORTED_LOSSES, _UNSUPPORTED_SCHEDULERS])
def test_what_is_not_there_yet_is_not_registered(table: Any) -> None:
    assert not any(name in registry for registry in REGISTRIES.values() for name in table)


@each_kind
def test_a_part_reads_its_own_defaults(kind: str) -> None:
    """What a saved spec holds can be read again, and means the same."""
    for name in REGISTRIES[kind]:
        schema = REGISTRIES[kind][name]
        for key, value in settings_with_defaults(schema, {}).items():
            assert schema.settings[key].read(value) == schema.settings[key].default, f"{name}.{key}"


@each_kind
def test_every_setting_says_in_words_what_it_wants(kind: str) -> None:
    for name, setting in list_settings(kind):
        signs = ("<class", "typing", "Union", "Optional", "[", "None")
        assert not any(sign in setting.wanted for sign in signs), f"{name}: {setting.wanted}"
        assert setting.wanted.split()[-1] != "list", name


@each_kind
def test_no_setting_takes_a_mapping_or_silently_a_boolean(kind: str) -> None:
    for name, setting in list_settings(kind):
        if name == "Parameter.init":
            continue  # a part: the layer itself says what is wrong with it
        for value in ({"a": 1}, *([] if "true" in setting.wanted else (True, [True, True]))):
            with pytest.raises(ValueError):
                pytest.fail(f"{name} takes {value}: {setting.read(value)}")


WANTED = {
    ("layer", "Conv2d", "kernel_size"): "a whole number >= 1 or a list of 2 whole numbers >= 1",
    ("layer", "Conv2d", "padding"): "valid, same, a whole number >= 0 or a list of 2 whole numbers >= 0",
    ("layer", "Conv2d", "padding_mode"): "zeros, reflect, replicate or circular",
    ("layer", "Conv1d", "stride"): "a whole number >= 1 or a list of 1 whole number >= 1",
    ("layer", "ZeroPad2d", "padding"): "a whole number or a list of 4 whole numbers",
    ("layer", "AvgPool1d", "stride"): "a whole number >= 1, a list of 1 whole number >= 1 or null",
    ("layer", "Dropout", "p"): "a number >= 0 and <= 1",
    ("layer", "LayerNorm", "normalized_shape"): "a whole number >= 1 or a list of whole numbers >= 1",
    ("layer", "BatchNorm2d", "momentum"): "a number >= 0 or null",
    ("layer", "ReLU", "inplace"): "true or false",
    ("layer", "Mean", "dim"): "a whole number, a list of whole numbers or null",
    ("layer", "Attention", "rotary"): "true, false or a number >= 1",
    ("layer", "GRU", "output"): "sequence, last, mean or state",
    ("loss", "CrossEntropyLoss", "weight"): "a list of numbers or null",
    ("optimizer", "Adam", "betas"): "a list of 2 numbers",
    ("optimizer", "Adam", "fused"): "true, false or null",
    ("optimizer", "Adafactor", "eps"): "a list of 2 numbers >= 0 or nulls",
    ("scheduler", "MultiStepLR", "milestones"): "a list of whole numbers >= 1",
    ("metric", "F1Score", "average"): "micro, macro or weighted",
}


@pytest.mark.parametrize(("where", "wanted"), WANTED.items(), ids=[".".join(each[1:]) for each in WANTED])
def test_the_words_for_what_is_wanted(where: tuple[str, str, str], wanted: str) -> None:
    kind, name, setting = where
    assert REGISTRIES[kind][name].settings[setting].wanted == wanted


@pytest.mark.parametrize(
    ("kind", "raw", "settings"),
    [
        ("layer", {"Conv2d": {"out_channels": "3", "kernel_size": "5"}}, {"out_channels": 3, "kernel_size": 5}),
        ("layer", {"Conv2d": {"out_channels": 3.0, "kernel_size": [3, 5]}}, {"out_channels": 3, "kernel_size": (3, 5)}),
        ("layer", {"Conv2d": {"out_channels": 3, "kernel_size": 3, "padding": "same"}},
         {"out_channels": 3, "kernel_size": 3, "padding": "same"}),
        ("layer", {"Linear": {"out_features": 3, "bias": "false"}}, {"out_features": 3, "bias": False}),
        ("layer", {"BatchNorm2d": {"momentum": None}}, {"momentum": None}),
        ("layer", {"MaxPool2d": {"kernel_size": 2, "stride": None}}, {"kernel_size": 2, "stride": None}),
        ("layer", {"AdaptiveAvgPool2d": [1, None]}, {"output_size": (1, None)}),
        ("layer", {"Upsample": {"scale_factor": 2}}, {"scale_factor": 2.0}),
        ("layer", {"Hardtanh": {"max_val": float("inf")}}, {"max_val": float("inf")}),
        ("loss", {"CrossEntropyLoss": {"weight": [1, "2"]}}, {"weight": [1.0, 2.0]}),
        ("optimizer", {"Adam": {"lr": "1e-3", "betas": [0.8, 0.9]}}, {"lr": 1e-3, "betas": (0.8, 0.9)}),
        ("optimizer", {"type": "SGD", "lr": 1, "nesterov": True}, {"lr": 1.0, "nesterov": True}),
    ],
)  # fmt: skip
def test_values_become_what_the_hint_says(kind: str, raw: Any, settings: dict[str, Any]) -> None:
    found, problems = read(kind, raw)
    assert not problems
    assert found == settings
    assert {key: type(each) for key, each in found.items()} == {key: type(each) for key, each in settings.items()}


ONE_VALUE = {
    "Linear": (10, {"out_features": 10}),
    "BatchNorm2d": (64, {"num_features": 64}),
    "Dropout": (0.5, {"p": 0.5}),
    "LSTM": (100, {"hidden_size": 100}),
    "AdaptiveAvgPool2d": ([1, 1], {"output_size": (1, 1)}),
    "LayerNorm": ([4, 5], {"normalized_shape": [4, 5]}),
    "Embedding": (32, {"embedding_dim": 32}),
    "GroupNorm": (8, {"num_groups": 8}),
    "Softmax": (1, {"dim": 1}),
    "TransformerEncoderLayer": (4, {"nhead": 4}),
    "LeakyReLU": (0.2, {"negative_slope": 0.2}),
    "Reshape": ([4, 7, 7], {"shape": [4, 7, 7]}),
    "Permute": ([0, 2, 1], {"dims": [0, 2, 1]}),
    "Mean": (1, {"dim": 1}),
    "Max": ([2, 3], {"dim": [2, 3]}),
    "Concat": (2, {"dim": 2}),
    "Select": (-1, {"index": -1}),
    "Attention": (8, {"num_heads": 8}),
    "MultiheadAttention": (8, {"num_heads": 8}),
    "PositionalEmbedding": (512, {"num_embeddings": 512}),
    "RelativePositionBias": (8, {"num_heads": 8}),
    "Bilinear": (3, {"out_features": 3}),
}


@pytest.mark.parametrize(("name", "value", "settings"), [(name, *each) for name, each in ONE_VALUE.items()])
def test_what_one_value_stands_for(name: str, value: Any, settings: dict[str, Any]) -> None:
    assert read("layer", {name: value}) == (settings, [])


KERNEL = "a whole number >= 1 or a list of 2 whole numbers >= 1"
MISTAKES: list[tuple[str, Any, list[tuple[str, str]]]] = [
    # what is not in bounds
    ("layer", {"Conv2d": {"out_channels": 8, "kernel_size": 0}}, [(f"'kernel_size' must be {KERNEL}, got 0", "")]),
    ("layer", {"Conv2d": {"out_channels": 8, "kernel_size": [3, 0]}},
     [(f"'kernel_size' must be {KERNEL}, got [3, 0]", "")]),
    ("layer", {"Dropout": 1.5}, [("'p' must be a number >= 0 and <= 1, got 1.5", "")]),
    ("layer", {"LSTM": {"hidden_size": 3, "num_layers": 10**9}},
     [("'num_layers' must be a whole number >= 1 and <= 1000, got 1000000000", "")]),
    ("optimizer", {"type": "SGD", "lr": -1}, [("'lr' must be a number >= 0, got -1", "")]),
    ("optimizer", {"type": "SGD", "lr": ".nan"}, [("'lr' must be a number >= 0, got '.nan'", "")]),
    ("optimizer", {"type": "NAdam", "momentum_decay": float("nan")}, [("'momentum_decay' must be a number, got nan",
     "")]),
    # what is of another type
    ("layer", {"Linear": True}, [("'out_features' must be a whole number >= 1, got true", "")]),
    ("layer", {"Linear": None},
     [("Linear requires out_features (a whole number >= 1)", "write Linear: {out_features: ...}")]),
    ("layer", {"Linear": "ten"}, [("'out_features' must be a whole number >= 1, got 'ten'", "")]),
    ("layer", {"Linear": 2.5}, [("'out_features' must be a whole number >= 1, got 2.5", "")]),
    ("layer", {"Linear": {"out_features": 2, "bias": 1}}, [("'bias' must be true or false, got 1", "")]),
    ("layer", {"Conv2d": {"out_channels": 8, "kernel_size": [True, 3]}},
     [(f"'kernel_size' must be {KERNEL}, got [True, 3]", "")]),
    ("layer", {"MaxPool2d": [2, 2, 2]}, [(f"'kernel_size' must be {KERNEL}, got [2, 2, 2]",
                                          "write MaxPool2d: {kernel_size: 2, stride: 2, padding: 2}")]),
    ("layer", {"GELU": "fast"}, [("'approximate' must be none or tanh, got 'fast'", "")]),
    # several settings without their names
    ("layer", {"Conv2d": [32, 3]},
     [("'out_channels' must be a whole number >= 1, got [32, 3]", "write Conv2d: {out_channels: 32, kernel_size: 3}")]),
    ("layer", {"Conv2d": "32, 3"},
     [("'out_channels' must be a whole number >= 1, got '32, 3'", "write Conv2d: {out_channels: 32, kernel_size: 3}")]),
    ("layer", {"BatchNorm2d": [64, 1e-3]},
     [("'num_features' must be a whole number >= 1, got [64, 0.001]",
       "write BatchNorm2d: {num_features: 64, eps: 0.001}")]),
    ("layer", {"Linear": [64, 10]},
     [("'out_features' must be a whole number >= 1, got [64, 10]", "write Linear: 10 (in_features is inferred)")]),
    ("layer", {"Conv2d": "3, 32, same"},
     [("'out_channels' must be a whole number >= 1, got '3, 32, same'", ""),
      (f"Conv2d requires kernel_size ({KERNEL})", "write Conv2d: {out_channels: ..., kernel_size: ...}")]),
    ("layer", {"Linear": [64, 10, False]},
     [("'out_features' must be a whole number >= 1, got [64, 10, False]",
       "write Linear: {out_features: 10, bias: false} (in_features is inferred)")]),
    ("layer", {"Linear": "ten, 3"}, [("'out_features' must be a whole number >= 1, got 'ten, 3'", "")]),
    ("layer", {"Linear": [1, 2, 3, 4]}, [("'out_features' must be a whole number >= 1, got [1, 2, 3, 4]", "")]),
    ("layer", {"Upsample": 2}, [("Upsample does not accept a single value", "write Upsample: {size: ...}")]),
    ("layer", {"Sigmoid": 2}, [("Sigmoid does not accept a single value", "write only its name")]),
    # unknown and missing settings
    ("layer", {"Conv2d": 32}, [(f"Conv2d requires kernel_size ({KERNEL})",
                                "write Conv2d: {out_channels: 32, kernel_size: ...}")]),
    ("layer", "Conv2d", [(f"Conv2d requires out_channels (a whole number >= 1), kernel_size ({KERNEL})",
                          "write Conv2d: {out_channels: ..., kernel_size: ...}")]),
    ("layer", {"Linear": {"out_featurs": 10}}, [("unknown setting 'out_featurs'", "did you mean 'out_features'?")]),
    ("layer", {"Linear": {"units": 10}}, [("unknown setting 'units'", "PyTorch calls it 'out_features'")]),
    ("layer", {"LSTM": {"units": 10}}, [("unknown setting 'units'", "PyTorch calls it 'hidden_size'")]),
    ("layer", {"Conv2d": {"filters": 8, "kernel_size": 3, "strides": 2}},
     [("unknown setting 'filters'", "PyTorch calls it 'out_channels'"), ("unknown setting 'strides'",
      "did you mean 'stride'?")]),
    ("layer", {"Tanh": {"dim": 1}}, [("unknown setting 'dim'", "Tanh has no settings")]),
    ("layer", {"LSTM": {"hidden_size": 3, "batch_first": False}}, [("'batch_first' is always true here", "remove it")]),
    ("layer", {"LSTM": {"hidden_size": 3, "batch_first": True}}, [("'batch_first' is always true here", "remove it")]),
    ("optimizer", {"type": "Adam", "learning_rate": 1}, [("unknown setting 'learning_rate'", "PyTorch calls it 'lr'")]),
    ("loss", {"CrossEntropyLoss": {"reduction": "none"}}, [("'reduction' must be mean, got 'none'", "")]),
    ("loss", {"MSELoss": {"reduction": "sum"}}, [("'reduction' must be mean, got 'sum'", "'sum' is not supported")]),
    ("loss", {"KLDivLoss": {"reduction": "sum"}},
     [("'reduction' must be batchmean or mean, got 'sum'", "'sum' is not supported")]),
    ("metric", {"F1Score": {"average": "none"}}, [("'average' must be micro, macro or weighted, got 'none'", "")]),
    # names
    ("layer", "relu", [("unknown layer 'relu'", "did you mean 'ReLU'?")]),
    ("layer", "Linera", [("unknown layer 'Linera'", "did you mean 'Linear'?")]),
    ("layer", "LazyConv2d", [("unknown layer 'LazyConv2d'", "did you mean 'Conv2d'?")]),
    ("layer", {"Dense": 10}, [("unknown layer 'Dense'", "use Linear")]),
    ("layer", {"Conv2D": {"filters": 3}}, [("unknown layer 'Conv2D'", "use Conv2d")]),
    ("layer", "GlobalAveragePooling2D",
     [("unknown layer 'GlobalAveragePooling2D'", "use AdaptiveAvgPool2d: 1, then Flatten")]),
    ("layer", "Conv2dNormActivation",
     [("unknown layer 'Conv2dNormActivation'", "use Conv2d, BatchNorm2d and ReLU as separate layers")]),
    ("loss", "mse", [("unknown loss 'mse'", "use MSELoss")]),
    ("loss", "TripletMarginWithDistanceLoss",
     [("TripletMarginWithDistanceLoss is not supported", "its distance is a function; use TripletMarginLoss")]),
    ("layer", {"Concatenate": {"axis": 1}},
     [("unknown layer 'Concatenate'", "use Concat, which is torch.cat")]),
    ("layer", "BasicBlock",
     [("unknown layer 'BasicBlock'",
       "use a block: Residual with shortcut: auto around two Conv2d, each with a BatchNorm2d")]),
    ("layer", {"Mean": {"axis": 1}}, [("unknown setting 'axis'", "PyTorch calls it 'dim'")]),
    ("layer", {"Attention": {"nhead": 4, "num_heads": 4}}, [("unknown setting 'nhead'",
     "PyTorch calls it 'num_heads'")]),
    ("layer", {"Attention": {"num_heads": 4, "_mask_by_sample": True}},
     [("unknown setting '_mask_by_sample'",
       "available: bias, dropout, embed_dim, head_dim, is_causal, kdim, num_heads, num_kv_heads, rotary, "
            "rotary_halves")]),
    ("layer", {"Reshape": [4, -2]}, [("'shape' must be a list of whole numbers >= -1, got [4, -2]", "")]),
    ("layer", {"Reshape": "4, 7"}, [("'shape' must be a list of whole numbers >= -1, got '4, 7'", "")]),
    ("layer", {"Permute": [0, -1, 1]}, [("'dims' must be a list of whole numbers >= 0, got [0, -1, 1]", "")]),
    ("layer", {"Add": 1}, [("Add does not accept a single value", "write only its name")]),
    ("layer", {"PositionalEmbedding": {"kind": "sine"}}, [("'kind' must be learned or sinusoidal, got 'sine'", "")]),
    ("optimizer", "adam", [("unknown optimizer 'adam'", "did you mean 'Adam'?")]),
    ("scheduler", "LambdaLR", [("LambdaLR is not supported",
     "its arguments are schedulers or functions, which a spec can't contain")]),
    *[("metric", name, [(f"{name} is not supported",
                         "use a metric that returns a single number for classes or numbers, such as "
                         "F1Score or R2Score")])
      for name in ("ConfusionMatrix", "ROC", "BLEUScore")],
    ("metric", "accuracy", [("unknown metric 'accuracy'", "did you mean 'Accuracy'?")]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "raw", "told"), MISTAKES, ids=[str(each[1])[:50] for each in MISTAKES])
def test_what_is_wrong_is_told(kind: str, raw: Any, told: list[tuple[str, str]]) -> None:
    assert read(kind, raw)[1] == told


def test_in_a_config_group_the_fix_is_flat() -> None:
    assert read("scheduler", {"type": "StepLR"}, ("scheduler",))[1] == [
        (
            "StepLR requires step_size (a whole number >= 1)",
            "add 'step_size: ...', or scheduler.step_size=... on the command line",
        )
    ]


def test_a_mistake_stands_at_its_setting() -> None:
    problems = Problems()
    part = parse_part({"Linear": {"out_features": 0}}, ("model", "layers", 2), problems, kind="layer")
    assert part is not None
    LAYERS.read(part, problems)
    (only,) = problems.found
    assert (only.path, only.at_value) == (("model", "layers", 2, "Linear", "out_features"), True)


class TestOwnParts:
    def test_a_name_that_is_taken_is_refused_with_both_classes(self) -> None:
        class Linear(nn.Module): ...

        with pytest.raises(ValueError) as error:
            layer(Linear)
        assert str(error.value) == (
            "two layers are named 'Linear': torch.nn.modules.linear.Linear and "
            f"{__name__}.TestOwnParts.test_a_name_that_is_taken_is_refused_with_both_classes.<locals>.Linear; "
            "rename one of them"
        )

    def test_a_class_that_is_defined_anew_replaces_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def cell(default: int) -> type[nn.Module]:
            @layer
            class Scale(nn.Module):
                def __init__(self, size: int = default) -> None: ...

            return Scale

        monkeypatch.setattr(LAYERS, "_classes", dict(LAYERS._classes))
        monkeypatch.setattr(LAYERS, "_described", dict(LAYERS._described))
        for default in (1, 2):
            cls = cell(default)
            assert (LAYERS["Scale"].build, LAYERS["Scale"].settings["size"].default) == (cls, default)

    def test_its_settings_come_from_its_constructor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Scale(nn.Module):
            def __init__(self, in_features: int, start: float = 1.0, words: list[str] | None = None) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.full((in_features,), start))

        monkeypatch.setitem(LAYERS._classes, "Scale", Scale)
        monkeypatch.setattr(LAYERS, "_described", dict(LAYERS._described))
        assert layer(Scale) is Scale  # a second time is no mistake
        settings = LAYERS["Scale"].settings
        assert [each.name for each in settings.values() if each.is_inferred] == ["in_features"]
        assert settings["words"].wanted == "a list of strings or null"
        assert read("layer", {"Scale": {"start": "2"}}) == ({"start": 2.0}, [])
        assert read("layer", {"Scale": {"words": 3}})[1] == [("'words' must be a list of strings or null, got 3", "")]
        assert settings["start"].default == 1.0 and settings["in_features"].default is not NO_VALUE


@pytest.mark.parametrize("lean", [pytest.param(False, marks=pytest.mark.soak), True])
def test_only_a_program_of_its_own_leaves_out_what_plots_need(lean: bool, tmp_path: Path) -> None:
    """In a notebook `metric.plot()` stays the user's; either way the real matplotlib can be imported afterwards.

    Transformers is not imported for metrics, either, where it is installed.
    """
    package, installed = tmp_path / "transformers", tmp_path / "transformers-5.0.0.dist-info"
    package.mkdir()
    installed.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 5.0.0\n")
    program = f"""
import sys
from dlspec.compat.torchmetrics import skip_plot_imports
if {lean}:
    sys.path.insert(0, {str(tmp_path)!r})
    skip_plot_imports()
from dlspec.parts.torch.torch_metrics import metric_registry
metric = metric_registry()["MeanAbsoluteError"].build()
metric.update(*[__import__("torch").ones(3)] * 2)
print("matplotlib" in sys.modules, "transformers" in sys.modules)
import matplotlib
matplotlib.use("agg")
if not {lean}:
    metric.plot()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{not lean} False\n"), done.stderr
