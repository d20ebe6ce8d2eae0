"""A network that sees the token that it is to predict is refused, and the layer that looks ahead is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dlspec as library

TEXT = np.random.default_rng(0).integers(0, 6, size=(40, 21))
NEXT = {"x": TEXT[:, :-1], "target": TEXT[:, 1:]}
FIX = "set is_causal: true for attention, use one direction in recurrent layers, pad convolutions only on the left"


def layers(*between: Any) -> dict[str, Any]:
    return {"layers": [{"Embedding": 4}, *between, {"Linear": 6}]}


def told(model: dict[str, Any], data: dict[str, Any]) -> str:
    """What training says of the model; nothing where it may train."""
    settings = {"trainer": {"max_steps": 1, "device": "cpu", "progress": "none"}}
    try:
        library.train({"model": model, **settings}, data)
    except library.SpecError as error:
        (problem,) = error.problems
        return "   ".join([problem.path, problem.found, problem.fix])
    return ""


def conv(padding: Any) -> list[Any]:
    """A convolution over time of width 3, padded before it."""
    back = {"Permute": [0, 2, 1]}
    return [
        back,
        {"ConstantPad1d": {"padding": padding, "value": 0.0}},
        {"Conv1d": {"out_channels": 4, "kernel_size": 3}},
        back,
    ]


LOOKING_AHEAD: dict[str, tuple[list[Any], str, str]] = {
    "bidirectional": ([{"GRU": {"hidden_size": 4, "bidirectional": True}}, "ReLU"], "model.layers.1", "GRU"),
    "attention": (
        [{"TransformerEncoderLayer": {"nhead": 2, "dim_feedforward": 8}}], "model.layers.1", "TransformerEncoderLayer",
    ),
}  # fmt: skip
CAUSAL: dict[str, list[Any]] = {
    "recurrent": [{"LSTM": {"hidden_size": 4, "num_layers": 2}}],
    "each step alone": ["LayerNorm", "ReLU"],
}


@pytest.mark.parametrize("name", LOOKING_AHEAD)
def test_the_layer_that_looks_ahead_is_named(name: str) -> None:
    between, path, layer = LOOKING_AHEAD[name]
    seen = f"{layer} sees the future: the last token of 'x' changes its outputs at earlier steps"
    assert told(layers(*between), NEXT) == f"{path}   {seen}, but 'target' is the next token   {FIX}"


@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_network_trains(name: str) -> None:
    assert told(layers(*CAUSAL[name]), NEXT) == ""


@pytest.mark.parametrize("name", LOOKING_AHEAD)
def test_a_target_that_is_no_next_token_may_be_looked_at(name: str) -> None:
    tags = {"x": TEXT, "target": TEXT[:, ::-1].copy()}
    assert told(layers(*LOOKING_AHEAD[name][0]), tags) == ""


def test_looking_draws_nothing_and_leaves_the_network_as_it_was() -> None:
    model = layers({"Dropout": 0.5}, {"LSTM": {"hidden_size": 4}})
    network = library.build({"model": model, "seed": 3}, NEXT)
    state = torch.get_rng_state()
    assert network.training
    assert told(model, NEXT) == ""
    again = library.build({"model": model, "seed": 3}, NEXT)
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
