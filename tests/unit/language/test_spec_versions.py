"""Versions of the spec language: each is read, and where a changed rule gives another network, dlspec stops."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from dlspec.errors import Code
from dlspec.language.problems import Problems
from dlspec.language.spec_versions import CHANGED_RULES, READ_VERSIONS, SPEC_VERSION
from dlspec.layouts import Lengths, TensorInfo
from helpers.layer_table import build_layers, build_valid_layers, features, tokens
from helpers.paths import ROOT

ROW = features(4)
STAGES = {"Linear": {"out_features": 4, "name": "stage$index", "repeat": 3}}


def find_codes(layers: Any, version: int = SPEC_VERSION) -> list[Code]:
    problems = Problems(spec_version=version)
    build_layers(layers, ROW, problems)
    return [each.code for each in problems.found]


def make_heads(**keys: Any) -> list[Any]:
    return [STAGES, {"Linear": {"out_features": 2, "name": "heads", **keys}}, {"Concat": {"from": "heads.*"}}]


def test_the_docs_list_every_changed_rule() -> None:
    text = (ROOT / "docs/language.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\d+) \| `([a-z: ]+)` \|", text, re.MULTILINE)
    assert listed == [(str(each.since), each.name) for each in CHANGED_RULES]
    assert set(READ_VERSIONS) == set(range(1, SPEC_VERSION + 1))


# ---- `from` of copies ----------------------------------------------------------------------------------------------

OWN_INPUTS = [
    make_heads(**{"from": "stage$index", "repeat": 3}),
    make_heads(**{"from": "$stage", "repeat": {"stage": ["stage0", "stage1", "stage2"]}}),
    make_heads(**{"from": "stage$(2 - reverse)", "repeat": {"reverse": [2, 1, 0]}}),
    make_heads(**{"from": ["stage$index"], "repeat": 3}),
]


@pytest.mark.parametrize("layers", OWN_INPUTS)
def test_each_copy_reads_its_own_from(layers: Any) -> None:
    module = build_valid_layers(layers, ROW).module.eval()
    batch, weights = torch.randn(5, 4), module.state_dict()
    stage, outputs = batch, []
    for index in range(3):
        stage = stage @ weights[f"stage{index}.weight"].T + weights[f"stage{index}.bias"]
        outputs.append(stage @ weights[f"heads.{index}.weight"].T + weights[f"heads.{index}.bias"])
    torch.testing.assert_close(module(batch), torch.cat(outputs, 1))


@pytest.mark.parametrize("layers", OWN_INPUTS)
def test_version_1_stops_where_copies_were_a_chain(layers: Any) -> None:
    assert find_codes(layers, 1) == [Code.CHANGED_RULE]


def test_a_from_without_a_variable_is_a_chain_in_every_version() -> None:
    layers = [
        STAGES,
        {"Linear": {"out_features": 4, "from": "stage0", "repeat": 2}},
        {"Add": {"from": ["_", "stage2"]}},
    ]
    codes = [build_layers(layers, ROW, Problems(spec_version=each)).module.code for each in READ_VERSIONS]  # type: ignore[union-attr]
    assert codes[0] == codes[1]


@pytest.mark.parametrize("repeat", [1, {"stage": ["stage2"]}])
def test_version_1_is_read_where_the_rule_makes_no_difference(repeat: Any) -> None:
    source = "stage2" if repeat == 1 else "$stage"
    layers = [STAGES, {"Linear": {"out_features": 4, "from": source, "repeat": repeat}}]
    assert find_codes(layers, 1) == find_codes(layers) == []


@pytest.mark.parametrize(
    "entry",
    [
        {"Linear": {"out_features": 2, "from": "stage$index", "repeat": 3}},
        {"Linear": {"out_features": 2, "from": "stage$index", "repeat": 3, "name": "head$index"}},
        {"Formula": "stage$index * 2", "repeat": 3},
        {"Residual": [{"Linear": 4}], "from": "stage$index", "repeat": 3},
    ],
)
def test_copies_that_nothing_uses_are_refused(entry: Any) -> None:
    assert find_codes([STAGES, entry]) == [Code.UNUSED]


def test_a_parameter_that_nothing_uses_is_refused_in_version_2() -> None:
    layers = [{"Parameter": {"shape": [4], "name": "p$index", "repeat": 2}}, {"Formula": "_ * p0"}]
    assert (find_codes(layers), find_codes(layers, 1)) == ([Code.UNUSED], [])


# ---- $index --------------------------------------------------------------------------------------------------------


def nest(inner: Any, **outer: Any) -> list[Any]:
    return [{"Sequential": [inner], "repeat": 2, **outer}]


@pytest.mark.parametrize(
    "inner",
    [
        {"Linear": "$(4 + index)", "repeat": 2},
        {"Linear": 4, "name": "layer$index", "repeat": 2},
        {"Linear": 4, "if": "$(index > 0)", "repeat": 2},
        {"Formula": "_ * $index", "repeat": 2},
        {"Residual": [{"Linear": "$(4 + 0 * index)"}], "repeat": 2},
        {"Linear": "$(4 + index + 0 * level)", "repeat": {"level": [0, 1]}},
    ],
)
def test_an_inner_index_that_hides_an_outer_one_is_refused(inner: Any) -> None:
    problems = Problems()
    build_layers(nest(inner), ROW, problems)
    assert {each.code for each in problems.found} == {Code.AMBIGUOUS}
    assert "repeat: {level: [0, 1, 2]}" in problems.found[0].fix
    assert find_codes(nest(inner), 1) == []


@pytest.mark.parametrize(
    "layers",
    [
        nest({"Linear": "$(4 + level)", "repeat": {"level": [0, 1]}}),
        nest({"Linear": "$(4 + level)", "repeat": 2}, repeat={"level": [0, 1]}),
        nest({"Linear": 4, "repeat": "$(1 + index)"}),
        nest({"Linear": "$(4 + index)"}),
        {
            "blocks": {"inner": {"layers": [{"Linear": "$(4 + index)", "repeat": 2}]}},
            "layers": [{"inner": None, "repeat": 2}],
        },
    ],
)
def test_both_ways_out_and_what_hides_nothing(layers: Any) -> None:
    assert find_codes(layers) == []


# ---- padding -------------------------------------------------------------------------------------------------------

TEXT = TensorInfo((12,), "tokens", Lengths("x"), vocab_size=9)
CONVOLUTION = {"Conv1d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}
SIGNAL: list[Any] = [{"Embedding": 4}, {"Permute": [0, 2, 1]}]


@pytest.mark.parametrize(
    ("layers", "differs"),
    [
        ([*SIGNAL, CONVOLUTION, "BatchNorm1d", "Mean"], True),
        ([*SIGNAL, {"Residual": [CONVOLUTION]}, CONVOLUTION], True),
        ([*SIGNAL, {"AdaptiveAvgPool1d": 1}], True),
        ([*SIGNAL, {"MaxPool1d": {"kernel_size": 3, "padding": 1}}], True),
        ([{"Embedding": 4}, {"Formula": "cumsum(_, dim=1)"}, {"LSTM": 3}], True),
        ([*SIGNAL, CONVOLUTION, {"MaxPool1d": 2}, "Max"], False),
        ([{"Embedding": 4}, {"Residual": [{"LayerNorm": {}}, {"Attention": 2}]}, "Mean"], False),
        ([{"Embedding": 4}, {"Softmax": 2}, {"LSTM": {"hidden_size": 3, "output": "last"}}], False),
        ([*SIGNAL, {"Parallel": [[CONVOLUTION, "Max"], [CONVOLUTION, "Mean"]]}, {"Linear": 2}], False),
    ],
)
def test_version_1_stops_where_padding_counted(layers: list[Any], differs: bool) -> None:
    problems = Problems(spec_version=1)
    build_layers(layers, TEXT, problems)
    assert [each.code for each in problems.found][:1] == [Code.CHANGED_RULE] * differs
    assert build_valid_layers(layers, TEXT)


# ---- powers of integers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "given", "is_changed"),
    [
        ("_ * 2 ** (-5 - arange(4))", ROW, True),  # was 0
        ("_ * pow(2, 0 - arange(4))", ROW, True),
        ("_ * 10 ** (18 + arange(4))", ROW, True),  # beyond 64 bits
        ("_ * (1 + arange(4)) ** (0 - arange(4))", ROW, True),
        ("1 * _ ** 64", tokens(5, 7), True),
        ("1 * _ ** _", tokens(5, 7), True),
        ("1 * 2 ** _", tokens(5, 7), True),
        ("_ * 2 ** arange(4)", ROW, False),
        ("_ * (1 + arange(4)) ** 5", ROW, False),
        ("_ * 2.0 ** (-5 - arange(4))", ROW, False),
        ("2 ** _", ROW, False),
        ("_ ** -2 + _ ** _ + _ ** arange(4)", ROW, False),
        ("1 * _ ** 3", tokens(5, 7), False),
        ("_ * 2 ** -5", ROW, False),
        ("1 * _ ** -1", tokens(5, 7), False),  # PyTorch refuses it
    ],
)
def test_version_1_stops_where_a_power_was_an_integer(formula: str, given: Any, is_changed: bool) -> None:
    problems = Problems(spec_version=1)
    build_layers([{"Formula": formula}], given, problems)
    assert [each.code for each in problems.found] == [Code.CHANGED_RULE] * is_changed, problems.found
    assert build_layers([{"Formula": formula}], given, Problems()) is not None


def test_the_check_of_powers_draws_nothing() -> None:
    layers = [{"Formula": "_ + randn_like(_) * 2 ** arange(4)"}, {"Linear": 3}]
    states = []
    for version in READ_VERSIONS:
        torch.manual_seed(3)
        built = build_layers(layers, ROW, Problems(spec_version=version))
        assert built is not None
        states.append(built.module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_nested_powers_are_evaluated_once_each() -> None:
    formula = "(" * 40 + "_" + " ** 1.5)" * 40  # 2 ** 40 evaluations, if each power evaluated its operands twice
    assert find_codes([{"Formula": formula}], 1) == []
