"""Texts of different lengths: a padded batch gives each sample what it gives it alone, and PyTorch's packing agrees."""

from __future__ import annotations

import copy
import pickle
from itertools import product
from typing import Any

import pytest
import torch
from tables import LAYER_ROWS, Value, batch, build_layers, network_of
from torch import Tensor, fx, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlspec.registry.torch_parts import LAYERS
from dlspec.spec.mistakes import Mistakes

LENGTHS = torch.tensor([6, 1, 4, 3])
TEXT = Value((6,), "tokens", lengths=True, vocab_size=9)
SERIES = Value((6, 4), "sequence", lengths=True)


def padded(given: Value = TEXT) -> Tensor:
    """A batch of `LENGTHS`, padding where each ends: token 0, or numbers that must not be seen."""
    x = batch(given, len(LENGTHS))
    x[torch.arange(6) >= LENGTHS.unsqueeze(1)] = 0 if given.layout == "tokens" else 99
    return x


def assert_each_is_itself_alone(module: nn.Module, x: Tensor, **precision: float) -> None:
    together = module(x, LENGTHS) if isinstance(module, fx.GraphModule) else module(x)
    for index, length in enumerate(LENGTHS.tolist()):
        alone = module(x[index : index + 1, :length])[0]
        mine = together[index] if together.shape[1:] == alone.shape else together[index, :length]
        torch.testing.assert_close(mine, alone, **precision)


RECURRENT = [
    {name: {"hidden_size": 3, "output": output, "bidirectional": both, "num_layers": layers}}
    for name, output, both, layers in product(
        ("RNN", "LSTM", "GRU"), ("sequence", "last", "mean"), (False, True), (1, 2)
    )
] + [{"LSTM": {"hidden_size": 3, "output": "last", "bidirectional": True, "proj_size": 2}}]


def named(layers: dict[str, Any]) -> str:
    ((name, settings),) = layers.items()
    words = [name, settings["output"], "both" if settings["bidirectional"] else "forward"]
    return "-".join([*words, str(settings.get("num_layers", "projected"))])


@pytest.mark.parametrize("layer", RECURRENT, ids=named)
def test_a_recurrent_layer_sees_no_padding(layer: dict[str, Any]) -> None:
    network = network_of([{"Embedding": 4}, layer], TEXT)
    assert network.inputs == ("x", "x_lengths")
    assert_each_is_itself_alone(network.module.eval(), padded())


@pytest.mark.parametrize("layer", RECURRENT, ids=named)
def test_a_recurrent_layer_gives_what_pytorchs_packing_gives(layer: dict[str, Any]) -> None:
    ((name, settings),) = layer.items()
    network = network_of([layer], SERIES)
    plain = getattr(nn, name)(4, batch_first=True, **{key: each for key, each in settings.items() if key != "output"})
    plain.load_state_dict({key.removeprefix("0."): each for key, each in network.module.state_dict().items()})
    x = padded(SERIES)
    packed, state = plain(pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False))
    unpacked = pad_packed_sequence(packed, batch_first=True, total_length=6)[0]
    ours = network.module(x, LENGTHS)
    if settings["output"] == "last":
        final = state[0] if isinstance(state, tuple) else state
        wanted = torch.cat([final[-2], final[-1]], dim=1) if settings["bidirectional"] else final[-1]
    elif settings["output"] == "mean":
        wanted = unpacked.sum(dim=1) / LENGTHS.unsqueeze(1)
    else:
        inside = (torch.arange(6) < LENGTHS.unsqueeze(1)).unsqueeze(-1)
        ours, wanted = ours * inside, unpacked
    torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_transformer_layer_attends_to_no_padding(norm_first: bool, training: bool) -> None:
    settings = {"nhead": 2, "dim_feedforward": 5, "dropout": 0.0, "norm_first": norm_first}
    layers = [{"Embedding": 4}, *[{"TransformerEncoderLayer": settings}] * 2, {"LSTM": {"hidden_size": 3}}]
    module = network_of(layers, TEXT).module.train(training)
    with torch.set_grad_enabled(training):  # without gradients PyTorch takes a fused kernel
        assert_each_is_itself_alone(module, padded(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_an_embedding_bag_leaves_padding_out(mode: str) -> None:
    network = network_of([{"EmbeddingBag": {"embedding_dim": 3, "mode": mode}}], TEXT)
    assert network.inputs == ("x",)
    x = padded()
    for index, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(network.module(x)[index], network.module(x[index : index + 1, :length])[0])


def test_padding_that_comes_behind_changes_nothing() -> None:
    layers = [{"Embedding": 4}, {"GRU": {"hidden_size": 3, "output": "mean", "bidirectional": True}}, {"Linear": 2}]
    module = network_of(layers, TEXT).module
    short, lengths = padded()[1:], LENGTHS[1:]
    torch.testing.assert_close(module(short[:, :4], lengths), module(short, lengths))


def graph() -> fx.GraphModule:
    layers = {
        "words": {"Embedding": 4},
        "drop": {"Dropout": 0.0},
        "reader": {"LSTM": {"hidden_size": 3, "output": "last"}},
        "head": {"Linear": 2},
    }
    module = network_of(layers, TEXT, name="text").module
    assert isinstance(module, fx.GraphModule)
    return module


def test_the_generated_forward_reads_as_pytorch() -> None:
    lines = [line.strip().split(";")[0] for line in graph().code.strip().splitlines()]
    assert [line for line in lines if line] == [
        "def forward(self, text, text_lengths = None):",
        "words = self.words(text)",
        "drop = self.drop(words)",
        "reader = self.reader(drop, text_lengths)",
        "head = self.head(reader)",
        "return head",
    ]


def test_the_generated_network_has_the_specs_names_and_trains() -> None:
    module = graph()
    assert {key.split(".")[0] for key in module.state_dict()} == {"words", "reader", "head"}
    module(padded(), LENGTHS).sum().backward()
    assert all(each.grad is not None for each in module.parameters())


def test_the_generated_network_can_be_copied_and_pickled() -> None:
    module = graph()
    wanted = module(padded(), LENGTHS)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert list(twin.state_dict()) == list(module.state_dict())
        assert torch.equal(twin(padded(), LENGTHS), wanted)


@pytest.mark.parametrize("name", ["class", "my text", "3rd", "self", "0", "größe", "a): import os #"])
def test_a_field_may_have_any_name(name: str) -> None:
    network = network_of([{"Embedding": 4}, {"GRU": {"hidden_size": 3, "output": "last"}}], TEXT, name=name)
    assert network.inputs == (name, f"{name}_lengths")
    assert network.module(padded(), LENGTHS).shape == (4, 3)


def test_a_stack_without_lengths_is_a_sequential() -> None:
    plain = Value((6,), "tokens", vocab_size=9)
    listed = network_of([{"Embedding": 4}, {"LSTM": 3}, {"Linear": {"out_features": 2, "name": "head"}}], plain)
    assert type(listed.module) is nn.Sequential and listed.inputs == ("x",)
    assert [name for name, _ in listed.module.named_children()] == ["0", "1", "head"]
    mapped = network_of({"stem": {"Linear": 4}, "act": "ReLU", "head": {"Linear": 2}}, Value((3,), "features"))
    assert list(mapped.module.state_dict()) == ["stem.weight", "stem.bias", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("layers", "any_length"),
    [
        ([{"Embedding": 4}, {"LSTM": {"hidden_size": 3, "output": "last"}}, {"Linear": 2}], True),
        ([{"Embedding": 4}, "LayerNorm", {"LSTM": 3}, "ReLU", {"GRU": {"hidden_size": 2, "output": "mean"}}], True),
        ([{"Embedding": 4}, {"LSTM": 3}, "Flatten", {"Linear": 2}], False),
        ([{"Embedding": 4}, {"LayerNorm": [6, 4]}, {"GRU": {"hidden_size": 2, "output": "last"}}], False),
        ([{"Embedding": 4}, "Flatten", {"Linear": 2}], False),
        ([{"Embedding": 4}, "Softmax", {"GLU": {"dim": 2}}, {"GRU": {"hidden_size": 2, "output": "last"}}], True),
        ([{"Embedding": 4}, {"Softmax": {"dim": 1}}, {"GRU": {"hidden_size": 2, "output": "last"}}], False),
        ([{"Embedding": 4}, {"LogSoftmax": {"dim": -2}}, {"GRU": {"hidden_size": 2, "output": "last"}}], False),
        ([{"Embedding": 4}, {"GLU": {"dim": 1}}, {"LSTM": {"hidden_size": 2, "output": "last"}}], False),
        ([{"Embedding": {"embedding_dim": 4, "layout": "channels-first"}}, "Flatten", {"Linear": 2}], False),
        ([{"EmbeddingBag": 4}, {"Linear": 2}], True),
    ],
)
def test_tells_whether_batches_may_end_at_their_longest_text(layers: list[Any], any_length: bool) -> None:
    assert network_of(layers, TEXT).any_length is any_length


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_layer_that_keeps_lengths_gives_a_sample_what_it_gives_it_alone(name: str) -> None:
    """Every layer of the registry that takes sequences; the rules promise it, the layer itself is asked."""
    for dim in (1, 2) if "dim" in LAYERS[name].settings else (None,):
        row = LAYER_ROWS[name].settings | ({} if dim is None else {"dim": dim})
        given = TEXT if name.startswith("Embedding") else SERIES
        network = build_layers([{name: row}], given, Mistakes())
        if network is not None and network.any_length:
            assert_each_is_itself_alone(network.module.eval(), padded(given), rtol=1e-4, atol=1e-5)


class OverSteps(nn.Module):
    """Padding takes part in each of its outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


class Halving(nn.Module):
    keeps_lengths = True  # and yet each sample has half its steps

    def forward(self, x: Tensor) -> Tensor:
        return x[:, ::2]


class Doubled(nn.Module):
    keeps_lengths = True

    def __init__(self, dim: int = 1) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class LastStep(nn.Module):
    keeps_lengths = takes_lengths = True

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        ends = torch.full((len(x),), x.shape[1]) if lengths is None else lengths
        return x[torch.arange(len(x)), ends - 1]


@pytest.mark.parametrize(
    ("own", "any_length"),
    [(OverSteps, False), (Halving, False), (Doubled, True), (LastStep, True)],
)
def test_an_own_layer_says_whether_padding_changes_nothing(
    own: type, any_length: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAYERS._classes, own.__name__, own)
    monkeypatch.setattr(LAYERS, "_schemas", dict(LAYERS._schemas))
    network = network_of([{"Embedding": 4}, own.__name__], TEXT)
    assert network.any_length is any_length
    assert network.output.lengths is (own is Doubled)
    if own is LastStep:
        assert_each_is_itself_alone(network.module.eval(), padded())


@pytest.mark.parametrize("layer", [{"GLU": {"dim": 1}}, {"Softmax": {"dim": 1}}], ids=str)
def test_behind_a_layer_over_the_steps_the_batch_is_full(layer: dict[str, Any]) -> None:
    network = network_of([{"Embedding": 4}, layer, {"LSTM": {"hidden_size": 3, "output": "last"}}], TEXT)
    assert (network.inputs, network.any_length) == (("x",), False)
    network.module(padded()).sum().backward()
