"""A network that sees the token that it is to predict is refused, and the layer that looks ahead is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dlspec as library
from dlspec.analysis.causality import choose_positions_to_change
from helpers.prepared_runs import prepare_layers

TEXT = np.random.default_rng(0).integers(0, 6, size=(40, 21))
NEXT = {"x": TEXT[:, :-1], "target": TEXT[:, 1:]}
FIXES = {"GRU": "set bidirectional: false", "TransformerEncoderLayer": "set is_causal: true"}


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
    assert told(layers(*between), NEXT) == f"{path}   {seen}, but 'target' is the next token   {FIXES[layer]}"


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


# ---- the whole length ----------------------------------------------------------------------------------------------

LONG = np.random.default_rng(1).integers(0, 6, size=(12, 49))
LONG_NEXT = {"x": LONG[:, :-1], "target": LONG[:, 1:]}
BACK = {"Permute": [0, 2, 1]}


def shift(steps: int) -> list[Any]:
    """Each step receives the features of `steps` steps later (earlier if negative): nothing else mixes the steps."""
    padding, kept = ([0, steps], "_[:, :, 20:]") if steps > 0 else ([-steps, 0], "_[:, :, :48]")
    return [BACK, {"ConstantPad1d": {"padding": padding, "value": 0.0}}, {"Formula": kept}, BACK]


def look_ahead(steps: int) -> list[Any]:
    """A convolution of two taps, one at the step itself and one `steps` later."""
    convolution = {"Conv1d": {"out_channels": 4, "kernel_size": 2, "dilation": steps}}
    return [BACK, {"ConstantPad1d": {"padding": [0, steps], "value": 0.0}}, convolution, BACK]


FAR: dict[str, list[Any]] = {
    "a convolution 20 steps ahead": look_ahead(20),
    "a convolution 40 steps ahead": look_ahead(40),
    "a shift by 20 steps": shift(20),
    "the mean of all steps": [{"Formula": "_ + mean(_, dim=1, keepdim=true)"}],
}


@pytest.mark.parametrize("name", FAR)
def test_layers_that_look_far_ahead_are_refused(name: str) -> None:
    assert "sees the future" in told(layers(*FAR[name]), LONG_NEXT)


LONG_CAUSAL: dict[str, list[Any]] = {
    "a shift back by 20 steps": shift(-20),
    "a parameter for each step": [{"Parameter": {"shape": [48, 4], "name": "places"}}, {"Formula": "_ + places"}],
    "causal attention": [{"Attention": {"num_heads": 2, "is_causal": True}}],
    "a causal layer": [{"TransformerEncoderLayer": {"nhead": 2, "dim_feedforward": 8, "is_causal": True}}],
}


@pytest.mark.parametrize("name", LONG_CAUSAL)
def test_causal_networks_of_many_steps_train(name: str) -> None:
    assert told(layers(*LONG_CAUSAL[name]), LONG_NEXT) == ""


def test_the_positions_cover_the_length() -> None:
    assert choose_positions_to_change(48) == [47, 36, 24, 12, 2, 1]
    assert (choose_positions_to_change(1), choose_positions_to_change(2)) == ([], [1])


ENCODER_DECODER = {
    "inputs": ["source", "answer"],
    "layers": [
        {"Embedding": {"embedding_dim": 8, "from": "source"}},
        {"LSTM": {"hidden_size": 8, "name": "memory"}},
        {"Embedding": {"embedding_dim": 8, "from": "answer"}},
        {"TransformerDecoderLayer": {"nhead": 2, "dim_feedforward": 8, "from": ["_", "memory"], "tgt_is_causal": True}},
        {"Linear": 20},
    ],
}
PAIRS = {
    **{"shape": None, "num_classes": None, "fields": {"source": {"vocab_size": 20, "length": 24}}},
    "targets": {"answer": {"num_classes": 20, "shape": [30]}},
}


def test_a_causal_decoder_of_many_steps_is_checked() -> None:
    assert prepare_layers(ENCODER_DECODER, PAIRS).notes == ()


def test_what_cannot_be_run_is_said_to_be_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no kernel for this device\nmore")

    monkeypatch.setattr("dlspec.analysis.causality._run_network", fail)
    (note,) = prepare_layers(ENCODER_DECODER, PAIRS).notes
    assert note.startswith("not checked: whether the network sees the future")
    assert note.endswith("running it failed: RuntimeError: no kernel for this device")
