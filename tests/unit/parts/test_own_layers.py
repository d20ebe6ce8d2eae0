"""dlspec's own layers: what they compute, which dimensions they move, what they refuse and in which words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from dlspec.layouts import TensorInfo
from dlspec.parts.layers.recurrent import GRU, LSTM, RNN
from dlspec.parts.layers.stochastic_depth import StochasticDepth
from dlspec.parts.torch.torch_parts import LAYERS
from helpers.layer_table import (
    LAYER_ROWS,
    LayerRow,
    build_layer,
    channels_first,
    channels_last,
    features,
    get_rule_refusal,
    make_batch,
    make_batches,
    parameter,
    sequence,
)

IMAGE = channels_first(4, 3, 5)
SERIES = sequence(6, 4)
LENGTHS = torch.tensor([6, 1, 4, 3])


def x_of(given: TensorInfo, rows: int = 4, seed: int = 1) -> Tensor:
    return make_batch(given, rows, seed)


# ---- what is computed ----------------------------------------------------------------------------------------------

a, b, c = x_of(IMAGE), x_of(IMAGE, seed=2), x_of(channels_first(4, 1, 1), seed=3)
scale, token = torch.randn(4, 1, 1), torch.randn(1, 4)
s = x_of(SERIES)

COMPUTED: list[tuple[str, dict[str, Any], tuple[TensorInfo, ...], tuple[Tensor, ...], Tensor]] = [
    ("Add", {}, (IMAGE, IMAGE, channels_first(4, 1, 1)), (a, b, c), a + b + c),
    ("Add", {}, (parameter(4, 1, 1), IMAGE), (scale, a), scale + a),
    ("Multiply", {}, (IMAGE, parameter(4, 1, 1)), (a, scale), a * scale),
    ("Multiply", {}, (parameter(4), parameter(3, 4)), (torch.ones(4), torch.ones(3, 4)), torch.ones(3, 4)),
    ("Concat", {}, (IMAGE, IMAGE), (a, b), torch.cat([a, b], 1)),
    ("Concat", {}, (SERIES, SERIES), (s, 2 * s), torch.cat([s, 2 * s], 2)),
    ("Concat", {"dim": -2}, (SERIES, SERIES), (s, 2 * s), torch.cat([s, 2 * s], 1)),
    ("Concat", {"dim": 1}, (parameter(1, 4), SERIES), (token, s), torch.cat([token.expand(4, 1, 4), s], 1)),
    ("Concat", {"dim": 1}, (SERIES, parameter(1, 4)), (s, token), torch.cat([s, token.expand(4, 1, 4)], 1)),
    ("Reshape", {"shape": [-1]}, (IMAGE,), (a,), a.flatten(1)),
    ("Permute", {"dims": [0, 2, 3, 1]}, (IMAGE,), (a,), a.permute(0, 2, 3, 1)),
    ("Select", {"index": -1}, (SERIES,), (s,), s[:, -1]),
    ("Select", {"index": 2}, (IMAGE,), (a,), a[:, 2]),
    ("Select", {"index": 0, "dim": -1}, (IMAGE,), (a,), a[..., 0]),
    ("Mean", {}, (IMAGE,), (a,), a.mean((2, 3))),
    ("Mean", {}, (SERIES,), (s,), s.mean(1)),
    ("Mean", {"dim": 1, "keepdim": True}, (IMAGE,), (a,), a.mean(1, keepdim=True)),
    ("Max", {"dim": [1, -1]}, (IMAGE,), (a,), a.amax((1, 3))),
    ("Sum", {"dim": 2}, (SERIES,), (s,), s.sum(2)),
    ("FoldTime", {}, (SERIES,), (s,), s.reshape(24, 4)),
    ("CosineSimilarity", {"dim": 1}, (IMAGE, IMAGE), (a, b), nn.CosineSimilarity(1)(a, b)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "settings", "given", "inputs", "wanted"),
    COMPUTED,
    ids=[f"{each[0]}-{each[1]}-{each[2][0]}" for each in COMPUTED],
)
def test_what_is_computed(
    name: str, settings: dict[str, Any], given: tuple[TensorInfo, ...], inputs: tuple[Tensor, ...], wanted: Tensor
) -> None:
    layer = build_layer(name, settings, *given, many=(1, 6) if name == "FoldTime" else (1, 1))
    assert torch.equal(layer(*inputs), wanted)


@pytest.mark.parametrize(
    "given", [sequence(5, 4), sequence(5, 3, 2, 2), TensorInfo((5,), "tokens", vocab_size=7)], ids=str
)
def test_time_folds_into_the_batch_and_out_again(given: TensorInfo) -> None:
    x = make_batch(given, 3)
    folded = build_layer("FoldTime", {}, given, many=(1, 5))(x)
    assert folded.shape == (15, *given.shape[1:])
    if given.layout == "sequence":
        inside = TensorInfo(given.shape[1:], "features")
        assert torch.equal(build_layer("UnfoldTime", {}, inside, given, many=(5, 1))(folded, x), x)


def test_a_dropped_sample_is_zero_and_the_others_make_up_for_it() -> None:
    torch.manual_seed(0)
    layer, x = StochasticDepth(0.25), torch.ones(4000, 2, 3)
    rows = layer(x).flatten(1)
    assert ((rows == 0).all(1) | (rows == 4 / 3).all(1)).all()
    assert abs((rows[:, 0] == 0).float().mean() - 0.25) < 0.03
    assert torch.equal(layer.eval()(x), x)
    assert (StochasticDepth(1.0)(x) == 0).all()


# ---- where the roles go --------------------------------------------------------------------------------------------

GIVES: list[tuple[str, dict[str, Any], TensorInfo, TensorInfo]] = [
    ("Permute", {"dims": [0, 2, 1]}, SERIES, channels_first(4, 6)),
    ("Permute", {"dims": [0, 2, 1]}, channels_first(4, 6), sequence(6, 4)),
    ("Permute", {"dims": [0, 2, 1]}, channels_last(6, 4), channels_first(4, 6)),
    ("Permute", {"dims": [0, 2, 3, 1]}, IMAGE, channels_last(3, 5, 4)),
    ("Permute", {"dims": [0, 3, 1, 2]}, channels_last(3, 5, 4), IMAGE),
    ("Permute", {"dims": [0, 2, 1, 3, 4]}, sequence(6, 4, 3, 5), channels_first(4, 6, 3, 5)),
    ("Permute", {"dims": [0, 1, 3, 2]}, sequence(6, 4, 3), sequence(6, 3, 4)),
    ("Reshape", {"shape": [6, 10]}, IMAGE, sequence(6, 10)),
    ("Reshape", {"shape": [60]}, IMAGE, features(60)),
    ("Reshape", {"shape": [4, -1, 3]}, IMAGE, channels_first(4, 5, 3)),
    ("Select", {"index": 0}, SERIES, features(4)),
    ("Select", {"index": 0}, sequence(6, 4, 3, 5), IMAGE),
    ("Select", {"index": 0, "dim": 2}, SERIES, features(6)),
    ("Select", {"index": 0, "dim": 2}, IMAGE, channels_first(4, 5)),
    ("Select", {"index": 0, "dim": 1}, channels_last(3, 5, 4), sequence(5, 4)),
    ("Select", {"index": 0}, IMAGE, sequence(3, 5)),
    ("Select", {"index": 0}, features(4), TensorInfo((), "features")),
    ("Mean", {}, SERIES, features(4)),
    ("Mean", {}, channels_last(3, 5, 4), features(4)),
    ("Mean", {"dim": [2, 3], "keepdim": True}, IMAGE, channels_first(4, 1, 1)),
    ("Mean", {"dim": 2}, IMAGE, channels_first(4, 5)),
    ("Max", {"dim": 2}, SERIES, features(6)),
    ("Sum", {"dim": 2, "keepdim": True}, SERIES, sequence(6, 1)),
    ("FoldTime", {}, sequence(6, 4, 3, 5), IMAGE),
    ("FoldTime", {}, TensorInfo((6, 9), "tokens", vocab_size=7), TensorInfo((9,), "tokens")),
]


@pytest.mark.parametrize(
    ("name", "settings", "given", "gives"), GIVES, ids=[f"{each[0]}-{each[1]}-{each[2]}" for each in GIVES]
)
def test_the_roles_move(name: str, settings: dict[str, Any], given: TensorInfo, gives: TensorInfo) -> None:
    assert build_layer(name, settings, given, many=(1, 6) if name == "FoldTime" else (1, 1)).output == gives


# ---- what is written into the generated forward --------------------------------------------------------------------

INLINE = sorted(name for name in LAYERS if getattr(LAYERS[name].build, "inline", False))
LENGTHY = [name for name in INLINE if hasattr(LAYERS[name].build, "lengths_of")]


def traced(layer: nn.Module, count: int, with_lengths: bool) -> fx.GraphModule:
    """The layer's forward on proxies alone, without any of a tracer's rules."""
    graph = fx.Graph()
    tracer = fx.proxy.GraphAppendingTracer(graph)
    inputs = [fx.Proxy(graph.placeholder(f"x{at}"), tracer) for at in range(count)]
    lengths = {"lengths": fx.Proxy(graph.placeholder("lengths"), tracer)} if with_lengths else {}
    graph.output(layer.forward(*inputs, **lengths).node)
    return fx.GraphModule(nn.Module(), graph)


@pytest.mark.parametrize("name", INLINE)
def test_an_inline_layers_operations_stand_alone(name: str) -> None:
    row: LayerRow = LAYER_ROWS[name]
    layer = build_layer(name, row.settings, *row.inputs, many=row.many)
    assert not list(layer.module.parameters()) and not list(layer.module.buffers())
    inputs = make_batches(row, 3)
    assert torch.equal(traced(layer.module, len(inputs), False)(*inputs), layer(*inputs))


@pytest.mark.parametrize("name", LENGTHY)
def test_an_inline_layer_takes_lengths(name: str) -> None:
    settings = {"index": -1} if name == "Select" else {}
    layer = build_layer(name, settings, SERIES).module
    assert torch.equal(traced(layer, 1, True)(s, LENGTHS), layer(s, lengths=LENGTHS))


# ---- recurrent layers ----------------------------------------------------------------------------------------------

PLAIN = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "padded"])
def test_the_state_is_pytorchs_and_begins_another(name: str, both: bool, lengths: Tensor | None) -> None:
    torch.manual_seed(0)
    settings = {"hidden_size": 3, "num_layers": 2, "bidirectional": both}
    layer = build_layer(name, {**settings, "output": "state"}, SERIES).module
    plain = PLAIN[name](4, batch_first=True, **settings)
    plain.load_state_dict(layer.state_dict())
    state = layer(s, lengths=lengths)
    for at, length in enumerate([6] * 4 if lengths is None else LENGTHS.tolist()):
        final = plain(s[at : at + 1, :length])[1]
        wanted = torch.cat(final, dim=-1) if name == "LSTM" else final
        torch.testing.assert_close(state[at], wanted[:, 0])
    given = TensorInfo(tuple(state.shape[1:]), "features")
    other = build_layer(name, settings, SERIES, given).module
    plain.load_state_dict(other.state_dict())
    begin = state.transpose(0, 1).contiguous()
    halves = (begin[..., :3].contiguous(), begin[..., 3:].contiguous()) if name == "LSTM" else begin
    torch.testing.assert_close(other(s, state), plain(s, halves)[0])


def test_a_projected_lstm_has_a_state_of_both_sizes() -> None:
    layer = build_layer("LSTM", {"hidden_size": 3, "proj_size": 2, "output": "state"}, SERIES)
    assert layer.output == TensorInfo((1, 5), "features")
    again = build_layer("LSTM", {"hidden_size": 3, "proj_size": 2}, SERIES, layer.output)
    assert again(s, layer(s)).shape == (4, 6, 2)


@pytest.mark.parametrize("cls", [RNN, LSTM, GRU])
def test_several_outputs_come_in_the_order_they_are_wanted_in(cls: Any) -> None:
    layer = cls(4, 3, output="last", bidirectional=True)
    assert (layer.output_names[0], layer.wanted) == ("last", ("last",))
    alone = {}
    for name in layer.output_names:
        layer.wanted = (name,)
        alone[name] = layer(s, lengths=LENGTHS)
    layer.wanted = ("last", "state", "sequence", "mean")
    together = layer(s, lengths=LENGTHS)
    assert all(torch.equal(each, alone[name]) for name, each in zip(layer.wanted, together, strict=True))


def test_a_learned_state_is_every_samples() -> None:
    layer = build_layer("GRU", {"hidden_size": 3}, SERIES, parameter(1, 3)).module
    begin = torch.randn(1, 3)
    torch.testing.assert_close(layer(s, begin), layer(s, begin.expand(4, 1, 3)))


# ---- what is refused -----------------------------------------------------------------------------------------------

BATCH = "the batch; samples must not be mixed"
FROM_1 = "use 1 or more: the dimensions of a sample start at 1"
REFUSED: list[tuple[str, dict[str, Any], tuple[TensorInfo, ...], str, str]] = [
    ("Add", {}, (IMAGE,), "two or more inputs are required, got 1", "write from: [_, NAME]"),
    ("Add", {}, (channels_first(64, 32, 32), channels_first(128, 16, 16)),
     "shapes (64, 32, 32) and (128, 16, 16) do not match",
     "use Residual with shortcut: auto, or a layer that changes the size of one of them"),
    ("Multiply", {}, (channels_first(4, 3, 3), features(4)), "shapes (4, 3, 3) and (4) do not match",
     "put a Reshape before one of them: both need the same number of dimensions, and sizes of 1 broadcast"),
    ("Add", {}, (channels_first(4, 3, 3), parameter(4)), "shapes (4, 3, 3) and (4) do not match",
     "a Parameter must broadcast to the other input: shape [4, 1, 1] gives one number per channel"),
    ("Add", {}, (features(4), parameter(3, 4)), "shapes (4) and (3, 4) do not match",
     "a Parameter must broadcast to the other input: shape [4] gives one number per channel"),
    ("Concat", {}, (channels_first(4, 3, 3), channels_first(4, 3, 5)),
     "(4, 3, 3) and (4, 3, 5) can't be concatenated along dim 1",
     "all other sizes must be equal"),
    ("Concat", {}, (SERIES, features(4)), "(6, 4) and (4) can't be concatenated along dim 2",
     "all other sizes must be equal"),
    ("Concat", {"dim": 0}, (SERIES, SERIES), f"dim is 0, {BATCH}", FROM_1),
    ("Concat", {"dim": 3}, (SERIES, SERIES), "dim is 3, but (6, 4) sequence has dimensions 1 to 2",
     "count the batch as 0, as PyTorch does"),
    ("Concat", {}, (parameter(4), parameter(4)),
     "at least one input must be computed from the data, got only Parameters",
     "write a single Parameter of the whole shape"),
    ("Reshape", {"shape": [7, 7]}, (IMAGE,), "shape is [7, 7], but (4, 3, 5) channels-first has 60 numbers per sample",
     "use -1 for one size to have it inferred"),
    ("Reshape", {"shape": [-1, 7]}, (IMAGE,),
     "shape is [-1, 7], but (4, 3, 5) channels-first has 60 numbers per sample",
     "leave out the batch: shape is that of one sample"),
    ("Reshape", {"shape": [-1, -1]}, (IMAGE,), "shape is [-1, -1], which contains -1 more than once",
     "use -1 for at most one size"),
    ("Reshape", {"shape": [0, 60]}, (IMAGE,), "shape is [0, 60], but sizes must be positive or -1",
     "leave out the batch, and use -1 for one unknown size"),
    ("Permute", {"dims": [1, 0, 2]}, (SERIES,), "dims are [1, 0, 2], which moves the batch; samples must not be mixed",
     "put 0, the batch, first"),
    ("Permute", {"dims": [2, 1]}, (SERIES,), "dims are [2, 1], without the batch", "write Permute: [0, 2, 1]"),
    ("Permute", {"dims": [0, 2, 1]}, (IMAGE,), "dims are [0, 2, 1], which does not fit (4, 3, 5) channels-first",
     "write each of 0 to 3 once, 0 (the batch) first"),
    ("Select", {"index": 6}, (SERIES,), "index is 6, but dim 1 of (6, 4) sequence has size 6",
     "use an index from -6 to 5"),
    ("Select", {"index": 0, "dim": 0}, (SERIES,), f"dim is 0, {BATCH}", FROM_1),
    ("Mean", {}, (features(4),), "dim is not set, and (4) features has no time or space dimensions",
     "write dim: 1 for one number per sample"),
    ("Mean", {"dim": [1, 0]}, (SERIES,), f"dim is 0, {BATCH}", FROM_1),
    ("Max", {"dim": [1, -2]}, (SERIES,), "dim 1 is listed twice", "list each dimension once"),
    ("Sum", {"dim": []}, (SERIES,), "dim is an empty list", "leave it out to reduce all time and space dimensions"),
    ("Sum", {"dim": 4}, (SERIES,), "dim is 4, but (6, 4) sequence has dimensions 1 to 2",
     "count the batch as 0, as PyTorch does"),
    ("GRU", {"hidden_size": 3}, (SERIES, features(3)), "the initial state must have shape (1, 3), got (3) features",
     "use NAME.state of a layer with the same settings"),
    ("LSTM", {"hidden_size": 3}, (SERIES, TensorInfo((1, 3), "features")),
     "the initial state must have shape (1, 6), got (1, 3) features",
     "use NAME.state of a layer with the same settings"),
    ("LSTM", {"hidden_size": 3}, (sequence(6, 4, 2),),
     "a recurrent layer expects a sequence (T, C), got (6, 4, 2) sequence",
     "put a 'Flatten: 2' before it"),
    ("GRU", {"hidden_size": 3}, (parameter(6, 4),), "the first input must be computed from the data, got a Parameter",
     "use the Parameter as the second input, the initial state"),
    ("Linear", {"out_features": 3}, (parameter(4),),
     "Linear expects an input with a batch dimension, and a Parameter or a Formula of constants has none",
     "combine it with another value by Add, Multiply, Concat or Formula; to give it the batch of an output x, write "
     "Formula: NAME + zeros_like(x[:, :1])"),
    ("LayerNorm", {}, (parameter(6, 4),),
     "LayerNorm expects an input with a batch dimension, and a Parameter or a Formula of constants has none",
     "combine it with another value by Add, Multiply, Concat or Formula; to give it the batch of an output x, write "
     "Formula: NAME + zeros_like(x[:, :1, :1])"),
    ("Bilinear", {"out_features": 3}, (features(4),), "expected two inputs, got 1", "write from: [_, NAME]"),
    ("CosineSimilarity", {}, (features(4), features(3)), "the inputs are (4) features and (3) features",
     "give both the same shape and layout"),
    ("MaxUnpool2d", {"kernel_size": 2}, (IMAGE,), "expected the indices of a MaxPool layer as the second input",
     "write from: [_, NAME.1], with {return_indices: true, name: NAME} in the MaxPool layer"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "given", "found", "fix"), REFUSED, ids=[each[3][:50] for each in REFUSED])
def test_what_does_not_fit_is_refused(
    name: str, settings: dict[str, Any], given: tuple[TensorInfo, ...], found: str, fix: str
) -> None:
    assert get_rule_refusal(name, settings, *given) == (found, fix)
