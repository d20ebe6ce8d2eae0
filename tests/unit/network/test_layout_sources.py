"""Where a layer guessed a layout or moved dimensions, a message says first which `layout:` to write, and it works."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

import dlspec
from dlspec.errors import SpecError

VECTOR, STEPS, IMAGE = ({"shape": shape, "num_classes": 3} for shape in ([48], [6, 8], [3, 8, 8]))
CONV1D, CONV2D = ({name: {"out_channels": 4, "kernel_size": 3}} for name in ("Conv1d", "Conv2d"))


def refuse(layers: list[Any], data: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        dlspec.build({"model": {"layers": layers}}, data=data)
    return caught.value.problems[0].fix


@pytest.mark.parametrize(
    ("layers", "data", "fix"),
    [
        ([{"Reshape": [8, 6]}, CONV1D], VECTOR, "the layout of '0' is a guess: write layout: channels-first beside its "
         "Reshape; if it is sequence, insert"),
        ([{"Reshape": [3, 4, 4]}, {"Linear": 3}], VECTOR,
         "'0' is a guess: write layout: channels-last beside its Reshape"),
        ([{"Reshape": [3, 4, 4]}, "ReLU", {"Linear": 3}], VECTOR, "'0' is a guess: write layout: channels-last"),
        ([{"Reshape": [6, 32]}, CONV1D], IMAGE, "'0' is a guess: write layout: channels-first beside its Reshape"),
        ([{"Unflatten": {"dim": 1, "unflattened_size": [8, 6]}}, CONV1D], VECTOR,
         "'0' is a guess: write layout: channels-first beside its Unflatten"),
        ([{"Select": {"index": 0, "dim": 1}}, CONV1D], IMAGE,
         "'0' is a guess: write layout: channels-first beside its Select"),
        ([{"Mean": {"dim": 1}}, CONV1D], IMAGE, "'0' is a guess: write layout: channels-first beside its Mean"),
        ([{"Formula": "einsum('nchw->nwhc', _)"}, {"Linear": 3}], IMAGE,
         "'0' is a guess: write layout: channels-last beside its Formula; if it is channels-first, insert 'Flatten'"),
        ([{"Permute": [0, 2, 1]}, {"Linear": 3}], STEPS,
         "if '0' is meant to return sequence, write layout: sequence beside its Permute; else insert "
         "'Permute: [0, 2, 1]', or 'Flatten', before it: the input's channels come first"),
        ([{"Formula": "transpose(_, 1, 2)"}, {"Linear": 3}], STEPS,
         "if '0' is meant to return sequence, write layout: sequence"),
        ([{"Formula": "transpose(_, 1, 2)"}, "GELU", {"Dropout": 0.1}, {"LSTM": 3}], STEPS,
         "if '0' is meant to return"),
        ([{"Permute": [0, 2, 3, 1]}, CONV2D], IMAGE,
         "if '0' is meant to return channels-first, write layout: channels-first"),
    ],
)  # fmt: skip
def test_the_layout_to_write_comes_first_and_works(layers: list[Any], data: dict[str, Any], fix: str) -> None:
    said = refuse(layers, data)
    assert fix in said
    layout = re.search(r"write layout: ([\w-]+) beside", said)
    assert layout
    fixed = copy.deepcopy(layers)
    fixed[0]["layout"] = layout[1]
    dlspec.build({"model": {"layers": fixed}}, data=data)


@pytest.mark.parametrize(
    ("layers", "data"),
    [
        ([CONV2D, {"Linear": 3}], IMAGE),  # the layout follows from the data
        ([{"Flatten": 2}, {"Linear": 3}], IMAGE),  # so it does here
        ([{"Permute": [0, 2, 1], "layout": "channels-first"}, {"Linear": 3}], STEPS),  # somebody wrote it
        ([{"Reshape": [3, 4, 4], "layout": "channels-first"}, {"Linear": 3}], VECTOR),
        ([CONV1D], STEPS),
        ([{"Unflatten": {"dim": 1, "unflattened_size": [3, 4, 4]}}, {"GRU": 4}], VECTOR),  # GRU takes (T, C) alone
    ],
)
def test_a_layout_that_is_known_or_written_is_not_doubted(layers: list[Any], data: dict[str, Any]) -> None:
    assert "write layout:" not in refuse(layers, data)


def test_a_mixer_of_formulas() -> None:
    """Token mixing by transposed sequences; without `layout:` the message points at the layer, not at its param."""
    mix = {"inputs": ["x"], "params": {"width": None}, "layers": [
        {"Formula": "transpose(x, 1, 2)", "layout": "sequence"}, {"Linear": "$width"}, "GELU", {"Linear": 6},
        {"Formula": "transpose(_, 1, 2)", "layout": "sequence"},
    ]}  # fmt: skip
    model = {"blocks": {"mix": mix}, "layers": [{"Residual": ["LayerNorm", {"mix": 5}]}, "Mean", {"Linear": 3}]}
    network = dlspec.build({"model": model}, data=STEPS)
    shapes = {name: tuple(each.shape) for name, each in network.named_parameters()}
    assert [each for each in shapes.values() if len(each) == 2] == [(5, 6), (6, 5), (3, 8)]
    del mix["layers"][0]["layout"]  # type: ignore[index]
    with pytest.raises(SpecError) as caught:
        dlspec.build({"model": model}, data=STEPS)
    assert caught.value.problems[0].path.startswith("model.blocks.mix.layers.1.Linear")
