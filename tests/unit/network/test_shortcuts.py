"""The shortcut of a residual: which projection `auto` makes, and what stands only where shapes differ."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from dlspec.errors import Code
from dlspec.jobs.layer_reading import read_layers
from dlspec.language.problems import Problems
from dlspec.network.build_mode import META_MODE
from dlspec.network.builder import BuiltLayer, build_network
from helpers.layer_table import (
    build_layers,
    build_valid_layers,
    channels_first,
    features,
    make_batch,
    make_field,
    make_graph,
    sequence,
)
from helpers.paths import ROOT

IMAGE = channels_first(4, 8, 8)


def convolve(channels: int, kernel_size: int = 3, **settings: Any) -> Any:
    return {"Conv2d": {"out_channels": channels, "kernel_size": kernel_size, "padding": "same", **settings}}


GATE = [{"AdaptiveAvgPool2d": 1}, convolve(2, 1), "ReLU", convolve(6, 1), "Sigmoid"]
NORMED = [convolve(6), "BatchNorm2d"]
NAMED = [convolve(6), {"BatchNorm2d": {"name": "norm"}}]
GAMMA = {"Parameter": {"shape": [6, 1, 1], "name": "gamma"}}


def make_residual(body: Any, shortcut: Any = "auto") -> Any:
    return [{"Residual": {"body": body, "shortcut": shortcut}}]


def find_shortcut(layers: Any) -> list[BuiltLayer]:
    return [each for each in build_valid_layers(layers, IMAGE).layers if each.name.startswith("0.shortcut")]


# ---- which normalization a projection has --------------------------------------------------------------------------

AFTER_NORM: dict[str, Any] = {
    "nothing": NORMED,
    "activation": [*NORMED, "ReLU"],
    "activation with weights": [*NORMED, {"PReLU": {"num_parameters": 6}}],
    "identity": [*NORMED, "Identity"],
    "dropout": [*NORMED, {"Dropout2d": 0.1}],
    "pooling": [*NORMED, {"AvgPool2d": 2}],
    "gate beside nothing": [*NORMED, {"Parallel": {"branches": [[], GATE], "merge": "Multiply"}}],
    "gate first": [*NORMED, {"Parallel": {"branches": [GATE, ["Identity"]], "merge": "Multiply"}}],
    "gate by name": [*NAMED, *GATE, {"Multiply": {"from": ["_", "norm"]}}],
    "gate as a formula": [*NAMED, *GATE, {"Formula": "_ * norm"}],
    "gate with another norm": [
        *NAMED, convolve(6, 1), {"InstanceNorm2d": {"affine": True}}, "Sigmoid", {"Multiply": {"from": ["_", "norm"]}},
    ],
    "swish": [*NORMED, {"Formula": "_ * sigmoid(_)"}],
    "layer scale": [GAMMA, *NORMED, {"Multiply": {"from": ["_", "gamma"]}}],
    "layer scale as a formula": [GAMMA, *NORMED, {"Formula": "gamma * _"}],
    "all branches": [{"Parallel": [[convolve(3), "BatchNorm2d"], [convolve(3), "BatchNorm2d", "ReLU"]]}],
    "inner residual": [*NORMED, {"Residual": [convolve(6), "BatchNorm2d"]}],
}  # fmt: skip


@pytest.mark.parametrize("body", AFTER_NORM.values(), ids=AFTER_NORM)
def test_a_projection_has_the_last_norm_on_the_main_path(body: Any) -> None:
    convolution, norm = find_shortcut(make_residual(body))
    assert (convolution.type, norm.type) == ("Conv2d", "BatchNorm2d")
    assert convolution.module.bias is None


WITHOUT_NORM: dict[str, Any] = {
    "none": [convolve(6)],
    "norm before the convolution": ["BatchNorm2d", "ReLU", convolve(6)],
    "norm in the gate alone": [
        {"Conv2d": {"out_channels": 6, "kernel_size": 1, "name": "main"}}, convolve(6, 1), "BatchNorm2d", "Sigmoid",
        {"Multiply": {"from": ["_", "main"]}},
    ],
    "one branch": [{"Parallel": [[convolve(3), "BatchNorm2d"], [convolve(3)]]}],
    "inner residual without one": [*NORMED, {"Residual": [convolve(6)]}],
    "norm before the residual": [{"AvgPool2d": 2}],
}  # fmt: skip


@pytest.mark.parametrize("body", WITHOUT_NORM.values(), ids=WITHOUT_NORM)
def test_a_projection_without_a_norm_has_a_bias(body: Any) -> None:
    layers = [*make_residual(body)]
    (convolution,) = find_shortcut(layers)
    assert convolution.module.bias is not None


def test_the_norm_keeps_its_settings_where_they_fit() -> None:
    assert find_shortcut(make_residual([convolve(6), {"GroupNorm": 3}, "ReLU"]))[1].settings == {"num_groups": 3}
    glu = [convolve(12), {"GroupNorm": 4}, {"GLU": {"dim": 1}}]  # 4 groups do not divide 6 channels
    assert len(find_shortcut(make_residual(glu))) == 1


@pytest.mark.parametrize("given", [features(4), sequence(5, 4)])
def test_other_layouts(given: Any) -> None:
    body = [{"Linear": 6}, "LayerNorm", "GELU", {"Dropout": 0.1}]
    module = build_valid_layers(make_residual(body), given).module.eval()
    weights, batch = module.state_dict(), make_batch(given, 3)
    hidden = nn.functional.layer_norm(batch @ weights["0.body.0.weight"].T + weights["0.body.0.bias"], [6])
    projected = nn.functional.layer_norm(batch @ weights["0.shortcut.0.weight"].T, [6])
    torch.testing.assert_close(module(batch), nn.functional.gelu(hidden) + projected)


def test_an_se_resnet_50_has_its_published_size() -> None:
    model = yaml.safe_load((ROOT / "conf/model/resnet50.yaml").read_text(encoding="utf-8"))
    residual = model["blocks"]["bottleneck"]["layers"][0]["Residual"]
    squeeze = {"Conv2d": {"out_channels": "$(in_channels // 16)", "kernel_size": 1}}
    excite = {"Conv2d": {"out_channels": "$(4 * channels)", "kernel_size": 1}}
    gate = [{"AdaptiveAvgPool2d": 1}, squeeze, "ReLU", excite, "Sigmoid"]
    residual["body"].append({"Parallel": {"branches": [["Identity"], gate], "merge": "Multiply"}})
    model["layers"][-1] = {"Linear": 1000}
    problems, image = Problems(), channels_first(3, 64, 64)
    graph = make_graph(copy.deepcopy(model), problems)
    fields = {"x": (make_field(image, "x"), make_batch(image, 2))}
    network = build_network(graph, read_layers(graph, problems), fields, problems, META_MODE)
    assert network is not None, problems.found
    assert sum(each.numel() for each in network.module.parameters()) == 28_088_024


def test_version_1_stops_where_its_projection_had_no_norm() -> None:
    for body, codes in (
        (NORMED, []), ([*NORMED, {"Dropout": 0.1}], []), ([convolve(6)], []),
        ([*NORMED, "ReLU"], [Code.CHANGED_RULE]), ([convolve(4), "BatchNorm2d", "ReLU"], []),
    ):  # fmt: skip
        problems = Problems(spec_version=1)
        build_layers(make_residual(body), IMAGE, problems)
        assert [each.code for each in problems.found] == codes


# ---- which shortcut was made ---------------------------------------------------------------------------------------

UNEQUAL = {"if_unequal": [convolve(6, 1), "InstanceNorm2d"]}
MADE: list[tuple[int, Any, str, int]] = [
    (6, "auto", "Conv2d, BatchNorm2d", 2),
    (4, "auto", "input", 0),
    (4, "if_equal", "input", 0),
    (6, "if_equal", "none", 0),
    (6, UNEQUAL, "as written", 2),
    (4, UNEQUAL, "input", 0),
    (4, {"if_unequal": make_residual([convolve(6, 1)], {"if_unequal": [convolve(6, 1)]})}, "input", 0),
    (6, {"if_unequal": convolve(6, 1)}, "as written", 1),
    (6, [convolve(6, 1)], "", 1),
]


@pytest.mark.parametrize(("channels", "shortcut", "made", "count"), MADE)
def test_a_network_knows_which_shortcut_was_made(channels: int, shortcut: Any, made: str, count: int) -> None:
    layers = make_residual([convolve(channels), "BatchNorm2d"], shortcut)
    network = build_valid_layers(layers, IMAGE)
    assert network.layers[-1].shortcut == made
    assert len([each for each in network.layers if each.name.startswith("0.shortcut")]) == count


def test_a_conditional_shortcut_computes_as_by_hand() -> None:
    for channels in (4, 6):
        layers = make_residual([convolve(channels, 1)], {"if_unequal": [convolve(6, 1)]})
        module = build_valid_layers(layers, IMAGE).module
        batch, weights = make_batch(IMAGE, 2), module.state_dict()
        body = nn.functional.conv2d(batch, weights["0.body.0.weight"], weights["0.body.0.bias"])
        shortcut = batch
        if channels == 6:
            shortcut = nn.functional.conv2d(batch, weights["0.shortcut.0.weight"], weights["0.shortcut.0.bias"])
        torch.testing.assert_close(module(batch), body + shortcut)


def test_a_conditional_shortcut_is_also_given_by_a_param() -> None:
    model = {"params": {"way": UNEQUAL}, "layers": make_residual([convolve(6)], "$way")}
    assert [each.type for each in build_valid_layers(model, IMAGE).layers] == [
        "Conv2d", "Conv2d", "InstanceNorm2d", "Add",
    ]  # fmt: skip
