"""Texts of different lengths: a padded batch gives each sample what it gives it alone, and PyTorch's packing agrees."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlspec.data.batches.sequence_lengths import change_lengths, compute_min_input_steps
from dlspec.layouts import NO_PADDING, LengthChange, Lengths
from dlspec.network.layer_rules.layout_rules import (
    can_trim_padding,
    find_output_layout,
    find_output_lengths,
    find_padding_to_zero,
)
from dlspec.parts.torch.torch_parts import LAYERS
from helpers.layer_table import (
    LAYER_ROWS,
    LayerRow,
    LayerUnderTest,
    TensorInfo,
    build_layer,
    build_valid_layers,
    channels_first,
    get_refusal,
    make_batch,
    make_batches,
    parameter,
    sequence,
)

LENGTHS = torch.tensor([6, 1, 4, 3])
TEXT = TensorInfo((6,), "tokens", Lengths("x"), vocab_size=9)
SERIES = TensorInfo((6, 4), "sequence", Lengths("x"))
SIGNAL = TensorInfo((4, 6), "channels-first", Lengths("x"))


def padded(given: TensorInfo = TEXT) -> Tensor:
    """A batch of `LENGTHS`, padding where each ends: token 0, or numbers that must not be seen."""
    x = make_batch(given, len(LENGTHS))
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
    network = build_valid_layers([{"Embedding": 4}, layer], TEXT)
    assert network.inputs == ("x", "x_lengths")
    assert_each_is_itself_alone(network.module.eval(), padded())


@pytest.mark.parametrize("layer", RECURRENT, ids=named)
def test_a_recurrent_layer_gives_what_pytorchs_packing_gives(layer: dict[str, Any]) -> None:
    ((name, settings),) = layer.items()
    network = build_valid_layers([layer], SERIES)
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
    module = build_valid_layers(layers, TEXT).module.train(training)
    with torch.set_grad_enabled(training):  # without gradients PyTorch takes a fused kernel
        assert_each_is_itself_alone(module, padded(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_an_embedding_bag_leaves_padding_out(mode: str) -> None:
    network = build_valid_layers([{"EmbeddingBag": {"embedding_dim": 3, "mode": mode}}], TEXT)
    assert network.inputs == ("x",)
    x = padded()
    for index, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(network.module(x)[index], network.module(x[index : index + 1, :length])[0])


def test_padding_that_comes_behind_changes_nothing() -> None:
    layers = [{"Embedding": 4}, {"GRU": {"hidden_size": 3, "output": "mean", "bidirectional": True}}, {"Linear": 2}]
    module = build_valid_layers(layers, TEXT).module
    short, lengths = padded()[1:], LENGTHS[1:]
    torch.testing.assert_close(module(short[:, :4], lengths), module(short, lengths))


def graph() -> fx.GraphModule:
    layers = {
        "words": {"Embedding": 4},
        "drop": {"Dropout": 0.0},
        "reader": {"LSTM": {"hidden_size": 3, "output": "last"}},
        "head": {"Linear": 2},
    }
    module = build_valid_layers(layers, TEXT, name="text").module
    assert isinstance(module, fx.GraphModule)
    return module


def test_the_generated_forward_reads_as_pytorch() -> None:
    lines = [line.strip().split(";")[0] for line in graph().code.strip().splitlines()]
    assert [line for line in lines if line] == [
        "def forward(self, text, text_lengths = None):",
        "words = self.words(text)",
        "drop = self.drop(words)",
        "reader = self.reader(drop, lengths = text_lengths)",
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
    network = build_valid_layers([{"Embedding": 4}, {"GRU": {"hidden_size": 3, "output": "last"}}], TEXT, name=name)
    assert network.inputs == (name, f"{name}_lengths")
    assert network.module(padded(), LENGTHS).shape == (4, 3)


def test_a_stack_without_lengths_is_a_sequential() -> None:
    plain = TensorInfo((6,), "tokens", vocab_size=9)
    listed = build_valid_layers([{"Embedding": 4}, {"LSTM": 3}, {"Linear": {"out_features": 2, "name": "head"}}], plain)
    assert type(listed.module) is nn.Sequential and listed.inputs == ("x",)
    assert [name for name, _ in listed.module.named_children()] == ["0", "1", "head"]
    mapped = build_valid_layers(
        {"stem": {"Linear": 4}, "act": "ReLU", "head": {"Linear": 2}}, TensorInfo((3,), "features")
    )
    assert list(mapped.module.state_dict()) == ["stem.weight", "stem.bias", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("layers", "any_length"),
    [
        ([{"Embedding": 4}, {"LSTM": {"hidden_size": 3, "output": "last"}}, {"Linear": 2}], True),
        ([{"Embedding": 4}, "LayerNorm", {"LSTM": 3}, "ReLU", {"GRU": {"hidden_size": 2, "output": "mean"}}], True),
        ([{"Embedding": 4}, {"LSTM": 3}, "Flatten", {"Linear": 2}], False),
        ([{"Embedding": 4}, {"LayerNorm": [6, 4]}, {"GRU": 2}], False),
        ([{"Embedding": 4}, "Flatten", {"Linear": 2}], False),
        ([{"Embedding": 4}, "Softmax", {"GLU": {"dim": 2}}, {"GRU": {"hidden_size": 2, "output": "last"}}], True),
        ([{"Embedding": 4}, {"Softmax": {"dim": 1}}, {"GRU": 2}], True),
        ([{"Embedding": 4}, {"LogSoftmax": {"dim": -2}}, {"GRU": 2}], True),
        ([{"Embedding": {"embedding_dim": 4, "layout": "channels-first"}}, "Flatten", {"Linear": 2}], False),
        ([{"EmbeddingBag": 4}, {"Linear": 2}], True),
    ],
)
def test_tells_whether_batches_may_end_at_their_longest_text(layers: list[Any], any_length: bool) -> None:
    assert build_valid_layers(layers, TEXT).allows_trimming is any_length


CONVOLVED = [
    ([{"kernel_size": 3}], 3),
    ([{"kernel_size": 2, "dilation": 4}], 5),
    ([{"kernel_size": 3, "stride": 2}, {"kernel_size": 2}], 5),
]


@pytest.mark.parametrize(("windows", "fewest"), CONVOLVED)
def test_a_text_that_is_shorter_than_a_window_still_has_one(windows: list[dict[str, int]], fewest: int) -> None:
    convolutions = [{"Conv1d": {"out_channels": 4, **each}} for each in windows]
    network = build_valid_layers([{"Embedding": 4}, {"Permute": [0, 2, 1]}, *convolutions, "Max", {"Linear": 2}], TEXT)
    assert (network.allows_trimming, network.fewest_steps) == (True, {"x": fewest})
    module, tokens = network.module.eval(), torch.tensor([[3, 4, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0]])
    whole = module(tokens, torch.tensor([2, 1]))
    assert whole.isfinite().all()
    assert torch.allclose(module(tokens[1:, :fewest], torch.tensor([1])), whole[1:], atol=1e-6)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        module(tokens[1:, : fewest - 1], torch.tensor([1]))


@pytest.mark.parametrize("window", [{"Conv1d": {"out_channels": 4, "kernel_size": 3, "padding": 1}},
                                    {"Conv1d": {"out_channels": 4, "kernel_size": 5, "stride": 2, "padding": "valid"}},
                                    {"AvgPool1d": {"kernel_size": 3, "stride": 1, "padding": 1}}], ids=str)  # fmt: skip
def test_a_window_that_pads_sees_a_border_at_each_texts_end(window: dict[str, Any]) -> None:
    layers = [{"Embedding": 4}, {"Permute": [0, 2, 1]}, window, "ReLU", window, "Max", {"Linear": 2}]
    network = build_valid_layers(layers, replace(TEXT, shape=(20,)))
    module, tokens, lengths = (
        network.module.eval(),
        torch.randint(1, 9, (6, 20)),
        torch.tensor([20, 14, 17, 20, 13, 19]),
    )
    together = module(tokens, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = module(tokens[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)


def test_padding_counts_as_steps_for_a_window() -> None:
    assert compute_min_input_steps([LengthChange.from_window(5, padding=1)]) == 3
    assert (
        compute_min_input_steps([LengthChange.from_window(3, padding=1)])
        == compute_min_input_steps([LengthChange.from_window(3, padding=2)])
        == compute_min_input_steps([])
        == 1
    )


# ---- every layer by its rule ---------------------------------------------------------------------------------------


def with_lengths(value: TensorInfo) -> TensorInfo:
    return value if value.time_dim is None or not value.has_batch else replace(value, lengths=Lengths("x"))


def rule_says(layer: LayerUnderTest, given: tuple[TensorInfo, ...]) -> tuple[bool, Lengths | None]:
    """Whether padding leaves no trace, and the lengths of the output."""
    told = (layer.schema, layer.module, given, layer.settings, layer.output.shape)
    return can_trim_padding(*told), find_output_lengths(*told)


def cut(x: Tensor, value: TensorInfo, row: int, length: int) -> Tensor:
    """One sample of a batch without the padding behind it."""
    if not value.has_batch:
        return x
    return x[row : row + 1] if value.lengths is None else x[row : row + 1].narrow(value.time_dim or 1, 0, length)


def assert_rows_are_themselves_alone(layer: LayerUnderTest, given: tuple[TensorInfo, ...]) -> None:
    """Each sample gives in a padded batch what it gives alone; `LENGTHS` are those of every input that has some."""
    layer.module.eval()
    lengths = find_output_lengths(layer.schema, layer.module, given, layer.settings, layer.output.shape)
    lengths = None if lengths == NO_PADDING else lengths
    pads = find_padding_to_zero(layer.schema, given[0], layer.settings) is not None
    samples = LayerRow({}, given, given[0])
    inputs = [padded_input(x, value, pads) for x, value in zip(make_batches(samples, 4), given, strict=True)]
    takes = getattr(layer.module, "takes_unneeded_lengths", True) or layer.module.needs_lengths
    wanted = getattr(layer.module, "lengths_of", {}) if takes else {}
    said = {name: LENGTHS for name, at in wanted.items() if at < len(given) and given[at].lengths}
    together = layer(*inputs, **said)
    dim = layer.output.time_dim
    for row, length in enumerate(LENGTHS.tolist()):
        after = change_lengths(length, lengths.changes) if lengths else 0
        if lengths and length < compute_min_input_steps(lengths.changes):
            continue  # the sample alone is too short for the window
        if length == 1 and isinstance(layer.module, nn.InstanceNorm1d):
            continue  # PyTorch refuses it
        alone = layer(*(cut(x, value, row, length) for x, value in zip(inputs, given, strict=True)))
        mine = together[row : row + 1].narrow(dim, 0, after) if lengths and dim else together[row : row + 1]
        torch.testing.assert_close(mine, alone, rtol=1e-4, atol=1e-5)


def padded_input(x: Tensor, value: TensorInfo, zero: bool) -> Tensor:
    """Padding that must not be seen; before a window that pads the builder makes it zero."""
    if value.lengths is None:
        return x
    x = x.transpose(1, value.time_dim or 1).clone()
    x[torch.arange(x.shape[1]) >= LENGTHS.unsqueeze(1)] = 99 if x.is_floating_point() and not zero else 0
    return x.transpose(1, value.time_dim or 1)


# Those of the table whose steps mix or become others, so that all batches keep full length.
MIXING = ("CircularPad1d ConstantPad1d CosineSimilarity Fold MaxUnpool1d ReflectionPad1d ReplicationPad1d").split()


def test_which_layers_let_padding_mix_with_steps() -> None:
    mixing = []
    for name, row in LAYER_ROWS.items():
        given = tuple(with_lengths(each) for each in row.inputs)
        if not given:
            continue
        layer = build_layer(name, row.settings, *given, many=row.many)
        if given[0].lengths and not rule_says(layer, given)[0]:
            mixing.append(name)
    assert sorted(mixing) == MIXING


# The rows of these are none of a sample's, or its steps' distances.
ROWS_OF_NO_SAMPLE = ("FoldTime", "FoldTimeLike", "UnfoldTime", "RelativePositionBias")


@pytest.mark.parametrize("name", sorted((LAYER_ROWS.keys() & set(LAYERS)) - {*ROWS_OF_NO_SAMPLE}))
def test_a_layer_that_keeps_lengths_gives_a_sample_what_it_gives_it_alone(name: str) -> None:
    """The rules promise it, the layer itself is asked: for its row of the table, and for other inputs that it takes."""
    row = LAYER_ROWS[name]
    own = tuple(with_lengths(each if each.time_dim is None else six_steps(each)) for each in row.inputs)
    dims = ({}, {"dim": 1}, {"dim": 2}) if "dim" in LAYERS[name].settings else ({},)
    for inputs, dim in product([own, *((each,) * len(own) for each in (SERIES, SIGNAL, TEXT))], dims):
        try:
            layer = build_layer(name, row.settings | dim, *inputs)
        except (AssertionError, RuntimeError, ValueError, IndexError):
            continue  # it takes no such input
        if inputs[0].lengths and rule_says(layer, inputs)[0]:
            assert_rows_are_themselves_alone(layer, inputs)


def six_steps(value: TensorInfo) -> TensorInfo:
    """The value with as many steps as the longest sample."""
    shape = list(value.shape)
    if value.time_dim is not None:
        shape[value.time_dim - 1] = 6
    return replace(value, shape=tuple(shape))


WINDOWS: list[tuple[str, dict[str, Any], LengthChange | None]] = [
    ("Conv1d", {"kernel_size": 3}, LengthChange.from_window(3)),
    ("Conv1d", {"kernel_size": 3, "stride": 2, "padding": 1}, LengthChange.from_window(3, 2, 1)),
    ("Conv1d", {"kernel_size": [2], "padding": [2], "dilation": 2}, LengthChange.from_window(2, 1, 2, 2)),
    ("Conv1d", {"kernel_size": 3, "padding": "same"}, LengthChange.from_window(3, 1, 1)),
    ("Conv1d", {"kernel_size": 3, "padding": "same", "dilation": 2}, LengthChange.from_window(3, 1, 2, 2)),
    ("Conv1d", {"kernel_size": 2, "padding": "same", "dilation": 2}, LengthChange.from_window(2, 1, 1, 2)),
    ("Conv1d", {"kernel_size": 2, "padding": "same"}, LengthChange()),
    ("Conv1d", {"kernel_size": 2, "padding": "valid"}, LengthChange.from_window(2)),
    ("Conv1d", {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}, None),
    ("Conv1d", {"kernel_size": 3, "padding_mode": "reflect"}, LengthChange.from_window(3)),
    ("ConvTranspose1d", {"kernel_size": 3}, LengthChange.from_factor(1, 2)),
    ("ConvTranspose1d", {"kernel_size": 4, "stride": 2, "padding": 1}, LengthChange.from_factor(2)),
    (
        "ConvTranspose1d",
        {"kernel_size": 3, "stride": 3, "output_padding": 1},
        LengthChange(factor=3, added=1),
    ),
    ("ZeroPad1d", {"padding": [1, 3]}, LengthChange.from_factor(1, 4)),
    ("ConstantPad1d", {"padding": 2, "value": 0}, LengthChange.from_factor(1, 4)),
    ("ConstantPad1d", {"padding": 2, "value": 1.5}, None),
    ("Upsample", {"scale_factor": 2}, LengthChange.from_factor(2)),
    ("Upsample", {"scale_factor": 2, "mode": "linear"}, None),
    ("Upsample", {"size": 9}, None),
    ("MaxPool1d", {"kernel_size": 2}, LengthChange.from_window(2, 2)),
    ("MaxPool1d", {"kernel_size": 2, "stride": 1, "dilation": 2}, LengthChange.from_window(2, 1, 0, 2)),
    ("MaxPool1d", {"kernel_size": 2, "padding": 1}, LengthChange.from_window(2, 2, 1)),
    ("MaxPool1d", {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2}, LengthChange.from_window(3, 2, 1, 2)),
    ("MaxPool1d", {"kernel_size": 2, "ceil_mode": True}, LengthChange(-1, 2)),
    ("MaxPool1d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}, LengthChange(-2, 2)),
    ("MaxPool1d", {"kernel_size": 2, "stride": 3, "ceil_mode": True}, None),
    ("AvgPool1d", {"kernel_size": [2], "stride": [1]}, LengthChange.from_window(2, 1)),
    ("AvgPool1d", {"kernel_size": 2, "padding": 1}, LengthChange.from_window(2, 2, 1)),
    ("AvgPool1d", {"kernel_size": 2, "padding": 1, "count_include_pad": False}, None),
    ("AvgPool1d", {"kernel_size": 2, "ceil_mode": True}, None),
    ("LPPool1d", {"norm_type": 2, "kernel_size": 3, "stride": 2}, LengthChange.from_window(3, 2)),
]


@pytest.mark.parametrize(("name", "settings", "window"), WINDOWS, ids=[f"{each[0]}-{each[1]}" for each in WINDOWS])
def test_lengths_go_through_windows(name: str, settings: dict[str, Any], window: LengthChange | None) -> None:
    settings = {"out_channels": 5, **settings} if name.startswith("Conv") else settings
    layer = build_layer(name, settings, SIGNAL)
    keeps, lengths = rule_says(layer, (SIGNAL,))
    assert lengths == (None if window is None else Lengths("x").after(window))
    assert keeps is (window is not None)
    if window is not None:
        assert change_lengths(6, [window]) == layer.output.shape[1]
        assert_rows_are_themselves_alone(layer, (SIGNAL,))


def test_windows_stand_one_behind_the_other() -> None:
    given = replace(SIGNAL, lengths=Lengths("x", (LengthChange.from_window(2),)))
    layer = build_layer("MaxPool1d", {"kernel_size": 3}, given)
    assert rule_says(layer, (given,)) == (
        True,
        Lengths("x", (LengthChange.from_window(2), LengthChange.from_window(3, 3))),
    )


X = Lengths("x")
OTHER = replace(SERIES, lengths=Lengths("y"))
PLAIN = sequence(6, 4)
LOST = replace(PLAIN, lengths_lost_at="1")
KEPT: list[tuple[str, dict[str, Any], tuple[TensorInfo, ...], bool, Lengths | None]] = [
    ("ReLU", {}, (SIGNAL,), True, X),
    ("BatchNorm1d", {}, (SIGNAL,), True, X),
    ("GroupNorm", {"num_groups": 2}, (SIGNAL,), True, X),
    ("InstanceNorm1d", {}, (SIGNAL,), True, X),
    ("AdaptiveAvgPool1d", {"output_size": 4}, (SIGNAL,), True, NO_PADDING),
    ("AdaptiveMaxPool1d", {"output_size": [8]}, (SIGNAL,), True, NO_PADDING),
    ("LayerNorm", {"normalized_shape": [4, 6]}, (SIGNAL,), False, None),
    ("LayerNorm", {"normalized_shape": [6]}, (SIGNAL,), False, None),
    ("LayerNorm", {"normalized_shape": [6, 4]}, (SERIES,), False, None),
    ("LayerNorm", {}, (SERIES,), True, X),
    ("Softmax", {"dim": 2}, (SIGNAL,), True, X),
    ("LogSoftmax", {"dim": -2}, (SERIES,), True, X),
    ("Softmax", {"dim": 1}, (SIGNAL,), True, X),
    ("GLU", {"dim": 1}, (SIGNAL,), True, X),
    ("GLU", {"dim": 1}, (SERIES,), False, None),
    ("Flatten", {}, (SERIES,), False, None),
    ("Flatten", {"start_dim": 2}, (replace(SERIES, shape=(6, 4, 2)),), True, X),
    ("Unflatten", {"dim": 2, "unflattened_size": [2, 2]}, (SERIES,), True, X),
    ("Unflatten", {"dim": 1, "unflattened_size": [2, 3]}, (SERIES,), False, None),
    ("Permute", {"dims": [0, 2, 1]}, (SERIES,), True, X),
    ("Permute", {"dims": [0, 2, 1]}, (SIGNAL,), True, X),
    ("Permute", {"dims": [0, 2, 1, 3]}, (replace(SERIES, shape=(6, 4, 2)),), False, None),
    ("Reshape", {"shape": [6, 4]}, (SERIES,), False, None),
    ("Select", {"index": -1}, (SERIES,), True, None),
    ("Select", {"index": 0}, (SERIES,), True, None),
    ("Select", {"index": 1}, (SERIES,), False, None),
    ("Select", {"index": 1, "dim": 2}, (SERIES,), False, None),
    ("Select", {"index": 1, "dim": 2}, (replace(SERIES, shape=(6, 4, 2)),), True, X),
    ("Mean", {}, (SERIES,), True, None),
    ("Mean", {"dim": 2, "keepdim": True}, (SERIES,), True, X),
    ("Mean", {"dim": 1, "keepdim": True}, (SERIES,), True, None),
    ("Max", {"dim": 2}, (SERIES,), False, None),
    ("Sum", {}, (SIGNAL,), True, None),
    ("Add", {}, (SERIES, PLAIN), False, X),
    ("Add", {}, (SERIES, sequence(1, 4)), True, X),
    ("Add", {}, (SERIES, parameter(6, 4)), False, X),
    ("Multiply", {}, (SERIES, parameter(6, 1)), False, X),
    ("Concat", {}, (SERIES, PLAIN), False, X),
    ("Bilinear", {"out_features": 3}, (SERIES, SERIES), True, X),
    ("Bilinear", {"out_features": 3}, (SERIES, PLAIN), False, None),
    ("Attention", {"num_heads": 2}, (SERIES, SERIES, channels_first(2, 6, 6)), True, X),
    ("Attention", {"num_heads": 2}, (SERIES, SERIES, parameter(2, 6, 6)), False, X),
    ("Add", {}, (SERIES, SERIES), True, X),
    ("Add", {}, (parameter(4), SERIES), True, X),
    ("Add", {}, (PLAIN, SERIES), False, X),
    ("Add", {}, (LOST, SERIES), False, None),
    ("Add", {}, (SERIES, OTHER), False, None),
    ("Concat", {}, (SERIES, SERIES), True, X),
    ("Concat", {}, (SERIES, OTHER), False, None),
    ("Concat", {"dim": 1}, (parameter(2, 4), SERIES), True, Lengths("x", (LengthChange.from_factor(1, 2),))),
    ("Concat", {"dim": 1}, (SERIES, parameter(2, 4)), False, None),
    ("Concat", {"dim": 1}, (SERIES, SERIES), False, None),
    ("Attention", {"num_heads": 2}, (SERIES, OTHER), True, X),
    ("Attention", {"num_heads": 2}, (PLAIN, SERIES), True, NO_PADDING),
    ("Attention", {"num_heads": 2}, (parameter(6, 4), SERIES), True, NO_PADDING),
    ("Attention", {"num_heads": 2}, (LOST, SERIES), True, None),
    ("MultiheadAttention", {"num_heads": 2}, (SERIES,), True, X),
    ("TransformerDecoderLayer", {"nhead": 2}, (SERIES, OTHER), True, X),
    ("CosineSimilarity", {}, (SERIES, SERIES), False, None),
    ("LSTM", {"hidden_size": 3}, (SERIES,), True, X),
    ("LSTM", {"hidden_size": 3, "output": "state"}, (SERIES,), True, None),
    ("GRU", {"hidden_size": 3, "output": "mean"}, (SERIES,), True, None),
]


@pytest.mark.parametrize(
    ("name", "settings", "given", "keeps", "lengths"), KEPT, ids=[f"{each[0]}-{each[1]}-{each[2][-1]}" for each in KEPT]
)
def test_what_becomes_of_lengths(
    name: str, settings: dict[str, Any], given: tuple[TensorInfo, ...], keeps: bool, lengths: Lengths | None
) -> None:
    layer = build_layer(name, settings, *given)
    assert rule_says(layer, given) == (keeps, lengths)
    if keeps and OTHER not in given and len(given) < 3:
        assert_rows_are_themselves_alone(layer, given)


def test_a_token_before_a_text_makes_it_longer() -> None:
    """The mapping is a window's: what stands before counts, whatever the length."""
    layer, given = build_layer("Concat", {"dim": 1}, parameter(2, 4), SERIES), (parameter(2, 4), SERIES)
    _, lengths = rule_says(layer, given)
    assert lengths is not None
    assert [change_lengths(each, lengths.changes) for each in (1, 4, 6)] == [3, 6, 8]


def test_a_further_output_has_lengths_of_its_own() -> None:
    layer = build_layer("LSTM", {"hidden_size": 3, "output": "last"}, SERIES)
    told = (layer.schema, layer.module, (SERIES,), layer.settings)
    assert find_output_lengths(*told, (3,)) is None
    assert find_output_lengths(*told, (6, 3), "sequence") == X
    assert find_output_lengths(*told, (1, 6), "state") is None
    assert find_output_layout(layer.schema, (SERIES,), layer.settings, (6, 3), "sequence") == "sequence"


# ---- what a layer of the user's own says ---------------------------------------------------------------------------


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
    keeps_lengths = True
    lengths_of = {"lengths": 0}

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        ends = torch.full((len(x),), x.shape[1]) if lengths is None else lengths
        return x[torch.arange(len(x)), ends - 1]


@pytest.mark.parametrize(
    ("own", "any_length"),
    [(Halving, False), (Doubled, True), (LastStep, True)],
)
def test_an_own_layer_says_whether_padding_changes_nothing(
    own: type, any_length: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAYERS._classes, own.__name__, own)
    monkeypatch.setattr(LAYERS, "_described", dict(LAYERS._described))
    network = build_valid_layers([{"Embedding": 4}, own.__name__], TEXT)
    assert network.allows_trimming is any_length
    assert (network.output.lengths is not None) is (own is Doubled)
    if own is LastStep:
        assert_each_is_itself_alone(network.module.eval(), padded())


# Layers that work over the steps; their weights are of as many steps as the batch has.
OVER_STEPS: list[Any] = [
    {"Permute": [0, 2, 1], "layout": "sequence"},
    {"Linear": 6},
    {"Permute": [0, 2, 1], "layout": "sequence"},
]


def test_behind_a_layer_over_the_steps_the_batch_is_full() -> None:
    network = build_valid_layers([{"Embedding": 4}, *OVER_STEPS, {"LSTM": 3}], TEXT)
    assert (network.inputs, network.allows_trimming) == (("x",), False)
    network.module(padded()).sum().backward()


NEEDING: list[Any] = [
    {"LSTM": {"hidden_size": 3, "output": "last"}},
    {"GRU": {"hidden_size": 3, "bidirectional": True}},
    "Mean",
    "Max",
    {"Select": -1},
    {"Attention": 2},
    {"TransformerEncoderLayer": 2},
]
NOT_NEEDING: list[Any] = [
    {"LSTM": 3},
    {"Attention": {"num_heads": 2, "is_causal": True}},
    {"TransformerEncoderLayer": {"nhead": 2, "is_causal": True}},
    {"Mean": 2},
    {"Select": 0},
    "Flatten",
]


@pytest.mark.parametrize("layer", NEEDING, ids=str)
def test_a_layer_that_needs_lengths_says_where_they_were_lost(layer: Any) -> None:
    name = layer if isinstance(layer, str) else next(iter(layer))
    assert get_refusal([{"Embedding": 4}, *OVER_STEPS, "ReLU", layer], TEXT) == (
        f"{name} needs each sample's length, which is unknown after Permute ('1')",
        f"Permute mixes steps and padding: put {name} before it, or use one that mixes no steps; "
        "if its steps are those of another output, write lengths_of: NAME in Permute",
    )


@pytest.mark.parametrize("layer", NOT_NEEDING, ids=str)
def test_a_layer_that_needs_no_lengths_does_without(layer: Any) -> None:
    network = build_valid_layers([{"Embedding": 4}, *OVER_STEPS, "ReLU", layer], TEXT)
    assert network.module(padded()).shape[0] == len(LENGTHS)
