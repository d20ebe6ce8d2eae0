"""What each layout means to a layer: what it infers, what it gives, what is refused, and the remedy's words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlspec.formatting import format_bytes
from dlspec.language.problems import Problems
from dlspec.network import build_mode as place
from dlspec.network.builder import Layer, build_network
from dlspec.network.memory_limits import NetworkTooLarge, SizeLimit, get_memory_bytes
from dlspec.parts.torch.torch_parts import LAYERS
from helpers.layer_table import (
    TensorInfo,
    build_layers,
    build_valid_layers,
    channels_first,
    channels_last,
    features,
    get_refusal,
    get_rule_refusal,
    make_batch,
    make_field,
    make_graph,
    sequence,
    tokens,
)

IMAGE = channels_first(3, 8, 8)

GIVES: list[tuple[Any, TensorInfo, TensorInfo]] = [
    ("Flatten", sequence(5, 4), features(20)),
    ("Flatten", tokens(5), TensorInfo((5,), "tokens", vocab_size=7)),
    ("Flatten", channels_last(3, 3, 4), features(36)),
    ({"Flatten": {"start_dim": 2}}, channels_first(4, 3, 5), channels_first(4, 15)),
    ({"Flatten": {"end_dim": 2}}, channels_last(3, 5, 4), channels_last(15, 4)),
    ({"Flatten": {"end_dim": 2}}, channels_first(4, 3, 5), channels_first(12, 5)),
    ({"Unflatten": {"dim": 1, "unflattened_size": [2, 3]}}, features(6), sequence(2, 3)),
    ({"Unflatten": {"dim": 1, "unflattened_size": [2, 1, 3]}}, features(6), channels_first(2, 1, 3)),
    ({"Unflatten": {"dim": 2, "unflattened_size": [2, 3]}}, channels_first(4, 6), channels_first(4, 2, 3)),
    ({"Linear": 3}, channels_last(2, 2, 5), channels_last(2, 2, 3)),
    ({"Dropout": 0.1}, channels_first(4, 3), channels_first(4, 3)),
    ("BatchNorm1d", features(4), features(4)),
    ({"GLU": 1}, channels_first(4, 3, 3), channels_first(2, 3, 3)),
    ({"LayerNorm": {"normalized_shape": [4, 3, 3]}}, channels_first(4, 3, 3), channels_first(4, 3, 3)),
    ({"Embedding": 3}, tokens(5), sequence(5, 3)),
    ({"Formula": "_[:, 1:]"}, tokens(5), tokens(4)),
    ({"Formula": "_ == 2"}, tokens(5), TensorInfo((5,), "tokens", dtype="bool")),
    ({"LSTM": {"hidden_size": 3, "output": "last"}}, sequence(5, 4), features(3)),
    ({"LSTM": {"hidden_size": 3, "output": "mean", "bidirectional": True}}, sequence(5, 4), features(6)),
    # 'layout' overrules
    ({"Flatten": {"start_dim": 2}, "layout": "sequence"}, channels_first(4, 3, 5), sequence(4, 15)),
    ({"Flatten": {"end_dim": 2, "layout": "sequence"}}, channels_first(1, 6, 5), sequence(6, 5)),
    ({"Identity": None, "layout": "channels-last"}, channels_first(4, 3, 5), channels_last(4, 3, 5)),
    (
        {"Unflatten": {"dim": 1, "unflattened_size": [2, 3]}, "layout": "channels-first"},
        features(6),
        channels_first(2, 3),
    ),
]


@pytest.mark.parametrize(("layer", "given", "gives"), GIVES, ids=[str(each[0]) for each in GIVES])
def test_what_a_layer_gives(layer: Any, given: TensorInfo, gives: TensorInfo) -> None:
    assert build_valid_layers([layer], given).output == gives


def test_a_layout_that_was_written_decides_what_the_next_layer_sees() -> None:
    written = {"Flatten": {"end_dim": 2}, "layout": "sequence"}
    network = build_valid_layers([written, {"LSTM": {"hidden_size": 7, "output": "last"}}], channels_first(1, 28, 6))
    assert network.output == features(7)
    assert network.module.state_dict()["1.weight_ih_l0"].shape == (28, 6)


INFERRED: list[tuple[Any, TensorInfo, dict[str, Any]]] = [
    ({"Linear": 2}, channels_last(3, 3, 5), {"in_features": 5}),
    ({"Conv2d": {"out_channels": 2, "kernel_size": 1}}, IMAGE, {"in_channels": 3}),
    ("BatchNorm1d", features(6), {"num_features": 6}),
    ({"GroupNorm": 1}, IMAGE, {"num_channels": 3}),
    ("LayerNorm", sequence(5, 4), {"normalized_shape": (4,)}),
    ({"Embedding": 2}, tokens(5, 11), {"num_embeddings": 11}),
    ({"Embedding": {"embedding_dim": 2, "num_embeddings": 20}}, tokens(5, 11), {"num_embeddings": 20}),
    ({"LSTM": 2}, sequence(5, 4), {"input_size": 4}),
    ({"Softmax": None}, channels_first(3, 4), {"dim": 1}),
    ({"Softmax": None}, sequence(3, 4), {"dim": -1}),
    ({"Softmax": {"dim": 2}}, channels_first(3, 4), {"dim": 2}),
]


@pytest.mark.parametrize(("layer", "given", "inferred"), INFERRED)
def test_what_is_inferred(layer: Any, given: TensorInfo, inferred: dict[str, Any]) -> None:
    module = build_valid_layers([layer], given).module[0]  # type: ignore[index]  # a Sequential
    assert {name: getattr(module, name) for name in inferred} == inferred


FIRST = "before it: the input's channels come last"
STEPS = "insert 'Permute: [0, 2, 1]' before it: the input's channels come"
BY_RULE: list[tuple[Any, TensorInfo, str, str]] = [
    ({"Linear": 2}, IMAGE, "Linear expects features, sequence or channels-last input, got (3, 8, 8) channels-first",
     "insert 'Flatten' before it"),
    ("LayerNorm", IMAGE, "LayerNorm expects features, sequence or channels-last input, got (3, 8, 8) channels-first",
     "write LayerNorm: {normalized_shape: [3, 8, 8]}, or insert 'Permute: [0, 2, 3, 1]' before it"),
    ("GLU", IMAGE, "GLU expects features, sequence or channels-last input, got (3, 8, 8) channels-first",
     "write GLU: {dim: 1}, which halves the channels"),
    ({"LSTM": 2}, IMAGE, "LSTM expects sequence input, got (3, 8, 8) channels-first",
     "insert '- Flatten: {end_dim: 2, layout: sequence}' before it: each row becomes a step"),
    ({"LSTM": 2}, channels_first(3, 8), "LSTM expects sequence input, got (3, 8) channels-first",
     f"{STEPS} first"),
    ({"Linear": 2}, channels_first(3, 8),
     "Linear expects features, sequence or channels-last input, got (3, 8) channels-first",
     "insert 'Permute: [0, 2, 1]', or 'Flatten', before it: the input's channels come first"),
    ({"Attention": 1}, IMAGE, "Attention expects sequence input, got (3, 8, 8) channels-first",
     "insert '- Flatten: 2' and '- Permute: [0, 2, 1]' before it: each position becomes a step"),
    ("FoldTime", features(4), "TimeDistributed expects sequence or tokens input, got (4) features",
     "insert 'Unflatten: {dim: 1, unflattened_size: [T, C]}' before it, with T * C = 4"),
    ({"LSTM": 2}, features(12), "LSTM expects sequence input, got (12) features",
     "insert 'Unflatten: {dim: 1, unflattened_size: [T, C]}' before it, with T * C = 12"),
    ({"LSTM": 2}, tokens(5), "LSTM expects sequence input, got (5) tokens", "insert 'Embedding: SIZE' before it"),
    ({"Linear": 2}, tokens(5), "Linear expects features, sequence or channels-last input, got (5) tokens",
     "insert 'Embedding: SIZE' before it"),
    ("ReLU", tokens(5), "ReLU expects features, sequence, channels-first or channels-last input, got (5) tokens",
     "insert 'Embedding: SIZE' before it"),
    ({"Embedding": 3}, features(4), "Embedding expects tokens input, got (4) features",
     "use it only on tokens, which these data do not have"),
    ({"Embedding": 3}, sequence(5, 4), "Embedding expects tokens input, got (5, 4) sequence",
     "make it the first layer"),
    ({"Conv2d": {"out_channels": 2, "kernel_size": 1}}, features(784),
     "Conv2d expects channels-first input, got (784) features",
     "insert 'Unflatten: {dim: 1, unflattened_size: [1, 28, 28]}' before it"),
    ({"Conv2d": {"out_channels": 2, "kernel_size": 1}}, features(30),
     "Conv2d expects channels-first input, got (30) features",
     "insert 'Unflatten: {dim: 1, unflattened_size: [C, ...]}' before it"),
    ({"Conv1d": {"out_channels": 2, "kernel_size": 1}}, features(30),
     "Conv1d expects channels-first input, got (30) features",
     "insert '- Unflatten: {dim: 1, unflattened_size: [1, 30], layout: channels-first}' before it"),
    ({"Conv1d": {"out_channels": 2, "kernel_size": 1}}, sequence(5, 4),
     "Conv1d expects channels-first input, got (5, 4) sequence", f"{STEPS} last"),
    ({"MaxPool1d": 2}, sequence(5, 4), "MaxPool1d expects channels-first input, got (5, 4) sequence", f"{STEPS} last"),
    ("BatchNorm1d", sequence(5, 4), "BatchNorm1d expects features or channels-first input, got (5, 4) sequence",
     "use LayerNorm, or insert 'Permute: [0, 2, 1]' before it: the input's channels come last"),
    ({"Conv2d": {"out_channels": 2, "kernel_size": 1}}, channels_last(8, 8, 3),
     "Conv2d expects channels-first input, got (8, 8, 3) channels-last",
     f"insert 'Permute: [0, 3, 1, 2]' {FIRST}"),
    ({"GRU": 2}, channels_last(8, 8, 3), "GRU expects sequence input, got (8, 8, 3) channels-last",
     "insert '- Flatten: {end_dim: 2, layout: sequence}' before it"),
    # another number of dimensions
    ({"Conv2d": {"out_channels": 2, "kernel_size": 1}}, channels_first(3, 8),
     "Conv2d expects 3 dimensions without the batch, got (3, 8) channels-first", "did you mean 'Conv1d'?"),
    ("BatchNorm1d", IMAGE, "BatchNorm1d expects 2 dimensions without the batch, got (3, 8, 8) channels-first",
     "did you mean 'BatchNorm2d'?"),
    ({"FractionalMaxPool2d": {"kernel_size": 2, "output_size": 2}}, channels_first(3, 8),
     "FractionalMaxPool2d expects 3 dimensions without the batch, got (3, 8) channels-first", ""),
    ("Softmax2d", channels_first(3, 8), "Softmax2d expects 3 dimensions without the batch, got (3, 8) channels-first",
     ""),
    ({"PixelShuffle": 2}, channels_first(4, 8),
     "PixelShuffle expects 3 dimensions without the batch, got (4, 8) channels-first", ""),
    # samples must not mix
    ({"Softmax": 0}, features(4), "dim is 0, the batch; samples must not be mixed",
     "use 1 or more: the dimensions of a sample start at 1"),
    ({"LogSoftmax": -2}, features(4), "dim is -2, the batch; samples must not be mixed",
     "use 1 or more: the dimensions of a sample start at 1"),
    ({"Flatten": 0}, IMAGE, "start_dim is 0, the batch; samples must not be mixed",
     "use 1 or more: the dimensions of a sample start at 1"),
    ({"PReLU": 4}, sequence(4, 4),
     "PReLU with 4 parameters expects features or channels-first input, got (4, 4) sequence",
     "leave num_parameters out, to use one parameter for all channels"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "given", "found", "fix"), BY_RULE, ids=[f"{each[0]}-{each[1]}" for each in BY_RULE])
def test_a_layout_that_does_not_fit_is_refused_with_a_remedy(
    layer: Any, given: TensorInfo, found: str, fix: str
) -> None:
    ((name, settings),) = layer.items() if isinstance(layer, dict) else ((layer, {}),)
    settings = settings if isinstance(settings, dict) else {LAYERS[name].value_setting: settings}
    assert get_rule_refusal(name, settings, given) == (found, fix)


REFUSED: list[tuple[Any, TensorInfo, str, str]] = [
    # inferred settings that disagree
    ({"Linear": {"out_features": 2, "in_features": 5}}, features(4), "in_features is 5, but the input is (4) features",
     "leave it out: it is inferred (4)"),
    ({"BatchNorm2d": 64}, IMAGE, "num_features is 64, but the input is (3, 8, 8) channels-first",
     "leave it out: it is inferred (3)"),
    ({"LayerNorm": {"normalized_shape": [8, 3]}}, IMAGE,
     "normalized_shape is [8, 3], but the input is (3, 8, 8) channels-first",
     "leave it out: it is inferred (8)"),
    ({"Embedding": {"embedding_dim": 2, "num_embeddings": 3}}, tokens(5),
     "num_embeddings is 3, but the input has a vocabulary of 7",
     "leave it out: it is inferred (7)"),
    ({"Embedding": 2}, TensorInfo((5,), "tokens"), "Embedding requires num_embeddings",
     "write it: the data do not determine it"),
    # a layout that can't be
    ({"Linear": 2, "layout": "sequence"}, features(4), "layout is sequence, which means (T, C), but Linear returns (2)",
     "leave it out, or write another layout"),
    ({"Linear": 2, "layout": "tokens"}, features(4),
     "layout is tokens, which means (T) of whole numbers, but Linear returns (2)",
     "leave it out, or write another layout"),
    # the data's own memory
    ({"ReLU": {"inplace": True}}, features(4), "inplace would overwrite the data", "leave it out"),
    # what PyTorch itself refuses
    ({"Conv2d": {"out_channels": 2, "kernel_size": 9}}, IMAGE, "Conv2d fails for the input (3, 8, 8) channels-first",
     "PyTorch says: Calculated padded input size per channel: (8 x 8). Kernel size: (9 x 9). "
     "Kernel size can't be greater than actual input size"),
    ({"GroupNorm": 2}, IMAGE, "GroupNorm fails for the input (3, 8, 8) channels-first",
     "PyTorch says: num_channels"),
    ({"TransformerEncoderLayer": 3}, sequence(5, 4), "4 channels are not divisible by 3 heads", "use another nhead"),
    ({"Softmax": 5}, features(4), "Softmax fails for the input (4) features",
     "PyTorch says: Dimension out of range (expected to be in range of [-2, 1], but got 5)"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "given", "found", "fix"), REFUSED, ids=[f"{each[0]}-{each[1]}" for each in REFUSED])
def test_what_does_not_fit_is_refused_with_a_remedy(layer: Any, given: TensorInfo, found: str, fix: str) -> None:
    told = get_refusal([layer], given)
    if fix.startswith("PyTorch says"):  # its words differ between versions
        told = (told[0], told[1][: len(fix)])
    assert told == (found, fix)


REMEDIES: list[tuple[list[Any], TensorInfo]] = [
    (["Flatten", {"Linear": 2}], IMAGE),
    ([{"LayerNorm": {"normalized_shape": [3, 8, 8]}}], IMAGE),
    ([{"Flatten": {"end_dim": 2, "layout": "sequence"}}, {"LSTM": 2}], IMAGE),
    ([{"Unflatten": {"dim": 1, "unflattened_size": [3, 4]}}, {"LSTM": 2}], features(12)),
    ([{"Embedding": 3}, {"LSTM": 2}], tokens(5)),
    ([{"Unflatten": {"dim": 1, "unflattened_size": [1, 28, 28]}}, {"Conv2d": {"out_channels": 2, "kernel_size": 1}}],
     features(784)),
    ([{"Unflatten": {"dim": 1, "unflattened_size": [1, 30], "layout": "channels-first"}},
      {"Conv1d": {"out_channels": 2, "kernel_size": 1}}], features(30)),
    ([{"Flatten": {"end_dim": 2, "layout": "sequence"}}, {"GRU": 2}], channels_last(8, 8, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("layers", "given"), REMEDIES)
def test_the_remedies_help(layers: list[Any], given: TensorInfo) -> None:
    build_valid_layers(layers, given)


def test_inplace_is_refused_wherever_the_data_still_are_what_comes_in() -> None:
    refused = ("inplace would overwrite the data", "leave it out")
    assert get_refusal(["Identity", {"Dropout": 0.2}, "Flatten", {"ReLU": True}], IMAGE) == refused
    build_valid_layers(["Flatten", {"Linear": 3}, {"ReLU": True}], IMAGE)


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return {}["x"]  # type: ignore[no-any-return]


class Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=0, keepdim=True)


class Overwriting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


class Doubling(nn.Module):
    """Channels first in, twice the channels out."""

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(in_features))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x * self.weight.view(-1, 1, 1)], dim=1)


@pytest.fixture
def own_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        LAYERS, "_classes", LAYERS._classes | {each.__name__: each for each in (Broken, Mixing, Overwriting, Doubling)}
    )
    monkeypatch.setattr(LAYERS, "_described", dict(LAYERS._described))


@pytest.mark.usefixtures("own_layers")
def test_an_own_layer_infers_its_channels_and_its_faults_are_told() -> None:
    assert build_valid_layers(["Doubling"], IMAGE).output == channels_first(6, 8, 8)
    assert get_refusal(["Broken"], features(4)) == (
        "Broken fails for the input (4) features",
        "Broken's own code says: KeyError: 'x'",
    )
    assert get_refusal(["Mixing"], features(4)) == (
        "Mixing returned shape (1, 4) for a batch of 2",
        "dimension 0 is the batch: a layer must keep its size",
    )


@pytest.mark.usefixtures("own_layers")
def test_building_leaves_the_sample_as_it_was() -> None:
    problems = Problems()
    graph = make_graph(["Overwriting"], problems)
    layers = [Layer(node, LAYERS["Overwriting"], {}) for node in graph.nodes]
    x = make_batch(features(4), 2)
    before = x.clone()
    assert build_network(graph, layers, {"x": (make_field(features(4)), x)}, problems) is not None
    assert torch.equal(x, before)


# ---- what no memory holds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "given", "size"),
    [
        ({"Linear": 10**12}, features(784), "3.14 PB"),
        ({"Linear": 10**30}, features(784), "3.14e+15 EB"),
        ({"Embedding": 10**12}, tokens(5), "28 TB"),
        ({"Conv2d": {"out_channels": 10**6, "kernel_size": 10**6}}, IMAGE, "12 EB"),
        ({"LSTM": 10**8}, sequence(5, 4), "160 PB"),
        ({"TransformerEncoderLayer": {"nhead": 1, "dim_feedforward": 10**13}}, sequence(5, 4), "160 TB"),
    ],
)
def test_a_layer_that_no_memory_holds_is_refused(
    monkeypatch: pytest.MonkeyPatch, layer: Any, given: TensorInfo, size: str
) -> None:
    monkeypatch.setattr(place, "get_memory_bytes", lambda: 16 * 10**9)
    name = next(iter(layer))
    found = f"{name} is too large: its weights would need {size}; this machine has 16 GB"
    assert get_refusal([layer], given) == (found, "make the layer smaller")


def test_the_limit_is_the_whole_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers of 400 bytes and their biases fit into 1000 bytes, three do not."""
    monkeypatch.setattr(place, "get_memory_bytes", lambda: 1000)
    layer = {"Linear": {"out_features": 10, "bias": True}}
    build_valid_layers([layer] * 2, features(10))
    found, _ = get_refusal([layer] * 3, features(10))
    assert found == "Linear is too large: its weights would need 1.28 kB; this machine has 1 kB"


def test_the_limit_counts_what_is_made_and_nothing_else() -> None:
    with SizeLimit(4096) as limit:
        torch.zeros(2, 3)
        torch.empty(size=(4,), dtype=torch.float64)
        torch.ones((5,)) + 1
        torch.full((2,), 1.0)
        assert limit.total == 24 + 32 + 20 + 8
        with pytest.raises(NetworkTooLarge):
            torch.rand(10**9, 10**9)
    torch.zeros(5000)


def test_a_machine_has_memory() -> None:
    assert 2**28 < get_memory_bytes() < 2**60
    assert [format_bytes(each) for each in (12, 1500, 16_000_000_000)] == ["12 bytes", "1.5 kB", "16 GB"]


def test_nothing_is_built_where_the_form_is_wrong() -> None:
    problems = Problems()
    assert build_layers([{"Linear": 0}, {"Linear": 0}], features(4), problems) is None
    assert [each.path for each in problems.found] == [
        ("model", "layers", 0, "Linear"),
        ("model", "layers", 1, "Linear"),
    ]
