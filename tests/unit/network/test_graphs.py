"""What the words of the language make: names in the state dict, and the same numbers as PyTorch written by hand."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn.functional import relu

import dlspec as library
from dlspec.language.problems import Problems
from dlspec.layouts import TensorInfo
from dlspec.network.memory_limits import limit_memory_growth
from helpers.layer_table import (
    build_layers,
    build_valid_layers,
    channels_first,
    channels_last,
    features,
    get_refusal,
    make_batch,
    make_graph,
    sequence,
)

ROW, IMAGE, STEPS = features(4), channels_first(3, 8, 8), sequence(5, 4)


def weights_of(model: Any, given: TensorInfo) -> list[str]:
    """The names of the weights, those of biases and running means left out."""
    names = build_valid_layers(model, given).module.state_dict()
    return [name for name in names if name.endswith("weight") or "." not in name]


# ---- names in the state dict ---------------------------------------------------------------------------------------

CONV = {"Conv2d": {"out_channels": "$c", "kernel_size": 1}}
NAMES: list[tuple[Any, TensorInfo, list[str]]] = [
    ([{"Linear": 3}, "ReLU", {"Linear": {"out_features": 2, "name": "head"}}], ROW, ["0.weight", "head.weight"]),
    ([{"Linear": 3, "if": False}, {"Linear": 2}], ROW, ["1.weight"]),
    ({"a": {"Linear": 3}, "b": {"Linear": 2}}, ROW, ["a.weight", "b.weight"]),
    ([{"Linear": {"out_features": 3, "repeat": 2}}], ROW, ["0.0.weight", "0.1.weight"]),
    ([{"Linear": {"out_features": 3, "repeat": 1, "name": "n"}}], ROW, ["n.0.weight"]),
    ([{"Linear": {"out_features": 3, "repeat": 2, "name": "n$index"}}], ROW, ["n0.weight", "n1.weight"]),
    ([{"Residual": ["ReLU", {"Linear": 4}]}], ROW, ["0.body.1.weight"]),
    ([{"Residual": {"body": {"Linear": 4}}}], ROW, ["0.body.weight"]),
    ([{"Residual": {"body": [{"Linear": 3}], "shortcut": "auto"}}], ROW, ["0.body.0.weight", "0.shortcut.0.weight"]),
    ([{"Residual": {"body": [{"Linear": 3}], "shortcut": [{"Linear": 3}]}, "name": "r"}], ROW,
     ["r.body.0.weight", "r.shortcut.0.weight"]),
    ([{"Residual": {"body": [{"Conv2d": {"out_channels": 5, "kernel_size": 1}}, "BatchNorm2d"], "shortcut": "auto"}}],
     IMAGE, ["0.body.0.weight", "0.body.1.weight", "0.shortcut.0.weight", "0.shortcut.1.weight"]),
    ([{"Sequential": [{"Linear": 3}, {"Linear": 4}], "repeat": 2}], ROW,
     ["0.0.0.weight", "0.0.1.weight", "0.1.0.weight", "0.1.1.weight"]),
    ([{"Parallel": {"branches": {"one": {"Linear": 3}, "two": [{"Linear": 2}], "rest": []}}}], ROW,
     ["0.one.weight", "0.two.0.weight"]),
    ([{"Parallel": [{"Linear": 3}, {"Linear": 2, "repeat": 2}]}], ROW, ["0.0.weight", "0.1.0.weight", "0.1.1.weight"]),
    ([{"TimeDistributed": ["ReLU", {"Linear": 2}]}], STEPS, ["0.1.weight"]),
    ([{"Parameter": {"shape": [4], "name": "scale"}}, {"Formula": "_ * scale"}], ROW, ["scale"]),
    ([{"Attention": 2}], STEPS, [f"0.{each}_proj.weight" for each in ("q", "k", "v", "out")]),
    ({"blocks": {"conv": {"params": {"c": 2}, "layers": {"conv": CONV, "norm": "BatchNorm2d"}}},
      "layers": ["conv", {"conv": 5, "name": "wide"}]}, IMAGE,
     ["0.conv.weight", "0.norm.weight", "wide.conv.weight", "wide.norm.weight"]),
]  # fmt: skip


@pytest.mark.parametrize(("model", "given", "names"), NAMES, ids=[str(each[2]) for each in NAMES])
def test_names_in_the_state_dict(model: Any, given: TensorInfo, names: list[str]) -> None:
    assert weights_of(model, given) == names


# ---- the same numbers as by hand -----------------------------------------------------------------------------------

By = Callable[[dict[str, nn.Module], Tensor], Tensor]
COMPUTED: dict[str, tuple[Any, TensorInfo, By]] = {
    "from": (
        [{"Linear": {"out_features": 4, "name": "a"}}, "ReLU", {"Add": {"from": ["_", "a"]}}, {"Linear": 2}], ROW,
        lambda m, x: m["3"](relu(m["a"](x)) + m["a"](x)),
    ),
    "from by name": (
        [{"Linear": {"out_features": 4, "name": "m"}}, {"MultiheadAttention": {"num_heads": 1, "from": {"key": "m",
          "value": "m", "query": "_"}}}], STEPS,
        lambda m, x: m["1"](m["m"](x), m["m"](x), m["m"](x)),
    ),
    "share": (
        [{"Linear": {"out_features": 4, "name": "a"}}, "Tanh", {"share": "a"}, {"share": "a", "repeat": 2}], ROW,
        lambda m, x: m["a"](m["a"](m["a"](torch.tanh(m["a"](x))))),
    ),
    "share of a block": (
        {"blocks": {"two": {"layers": [{"Linear": 4}, "ReLU"]}},
         "layers": [{"two": None, "name": "t"}, {"share": "t"}]}, ROW,
        lambda m, x: relu(m["t.0"](relu(m["t.0"](x)))),
    ),
    "copies": (
        [{"Linear": {"out_features": 4, "name": "s", "repeat": 3}}, {"Concat": {"from": ["s.*", "s.0"]}}], ROW,
        lambda m, x: torch.cat([m["s.0"](x), m["s.1"](m["s.0"](x)), m["s.2"](m["s.1"](m["s.0"](x))), m["s.0"](x)], 1),
    ),
    "a container sees the names around it": (
        {"inputs": ["x"], "layers": [{"Sequential": [{"Linear": {"out_features": 2, "name": "new"}},
          {"Concat": {"from": ["x", "new"]}}], "name": "d", "repeat": 1}]}, ROW,
        lambda m, x: torch.cat([x, m["d.0.new"](x)], 1),
    ),
    "if_equal": (
        [{"Residual": {"body": [{"Linear": 4}], "shortcut": "if_equal"}},
         {"Residual": {"body": [{"Linear": 3}], "shortcut": "if_equal"}}], ROW,
        lambda m, x: m["1.body.0"](x + m["0.body.0"](x)),
    ),
    "auto": (
        [{"Residual": {"body": [{"Conv2d": {"out_channels": 5, "kernel_size": 3, "stride": 2, "padding": 1}}],
          "shortcut": "auto"}}], IMAGE, lambda m, x: m["0.body.0"](x) + m["0.shortcut.0"](x),
    ),
    "parallel": (
        [{"Parallel": {"branches": [{"Linear": 2}, []], "merge": "Concat"}}, {"Parallel": [[{"Linear": 3}, "ReLU"]]}],
        ROW, lambda m, x: relu(m["1.0.0"](torch.cat([m["0.0"](x), x], 1))),
    ),
    "multiplied": (
        [{"Parallel": {"branches": {"a": {"Linear": 3}, "b": {"Linear": 3}}, "merge": "Multiply"}}],
        ROW, lambda m, x: m["0.a"](x) * m["0.b"](x),
    ),
    "branches": (
        [{"Parallel": {"branches": {"a": {"Linear": 3}, "b": {"Linear": 3}}, "merge": None}, "name": "p"},
         {"Multiply": {"from": ["p.a", "p.b"]}}], ROW, lambda m, x: m["p.a"](x) * m["p.b"](x),
    ),
    "formula": (
        [{"Linear": {"out_features": 4, "name": "a"}}, {"Formula": "a * sigmoid(_) - exp(a / 2)"}], ROW,
        lambda m, x: m["a"](x) * torch.sigmoid(m["a"](x)) - torch.exp(m["a"](x) / 2),
    ),
    "time": (
        [{"TimeDistributed": [{"Linear": 3}, {"Unflatten": {"dim": 1, "unflattened_size": [3, 1]}}, "Flatten"]}],
        STEPS, lambda m, x: torch.stack([m["0.0"](x[:, at]) for at in range(5)], 1),
    ),
    "recurrent outputs": (
        [{"LSTM": {"hidden_size": 3, "name": "r"}}, "Mean", {"Concat": {"from": ["_", "r.last", "r.1"]}}], STEPS,
        lambda m, x: torch.cat([m["r"](x)[0].mean(1), m["r"](x)[0][:, -1], m["r"](x)[0][:, -1]], 1),
    ),
    "channels": (
        [{"Conv2d": {"out_channels": "$(2 * in_channels)", "kernel_size": 1, "groups": "$in_channels"}},
         {"Reshape": ["$(in_channels // 2)", -1]}], IMAGE, lambda m, x: m["0"](x).reshape(len(x), 3, -1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPUTED)
def test_computes_what_it_says(name: str) -> None:
    model, given, by_hand = COMPUTED[name]
    network = build_valid_layers(model, given)
    modules = {each.name: each.module for each in network.layers}
    network.module.eval()
    x = make_batch(given, 3)
    torch.testing.assert_close(network.module(x), _first(by_hand(modules, x)))


def _first(given: Any) -> Tensor:
    found: Tensor = given[0] if isinstance(given, tuple) else given
    return found


def test_shared_weights_are_there_once_and_get_both_gradients() -> None:
    network = build_valid_layers([{"Linear": {"out_features": 4, "name": "a"}}, {"share": "a"}], ROW)
    assert list(network.module.state_dict()) == ["a.weight", "a.bias"]
    assert [(each.name, each.is_reused) for each in network.layers] == [("a", False), ("1", True)]
    assert network.layers[0].module is network.layers[1].module


def test_tied_weights_are_one() -> None:
    layers = {"words": {"Linear": 4}, "back": {"Linear": {"out_features": 4, "bias": False, "tie": "words"}}}
    module = build_valid_layers(layers, ROW).module
    assert module.back.weight is module.words.weight
    assert len(list(module.parameters())) == 2
    inner = [{"Residual": [{"Linear": {"out_features": 4, "name": "a"}}, {"Linear": 4, "tie": "a.weight"}]}]
    network = build_valid_layers(inner, ROW)
    assert network.layers[0].module.weight is network.layers[1].module.weight


def test_parametrized() -> None:
    module = build_valid_layers([{"Linear": {"out_features": 3, "parametrize": "weight_norm"}}], ROW).module
    assert list(module.state_dict()) == ["0.bias", "0.parametrizations.weight.original0",
                                         "0.parametrizations.weight.original1"]  # fmt: skip


def test_stochastic_depth_drops_whole_samples_in_training_alone() -> None:
    module = build_valid_layers([{"Residual": {"body": [{"Linear": 4}], "stochastic_depth": 0.5}}], ROW).module
    torch.manual_seed(0)
    x = make_batch(ROW, 64)
    kept = ~torch.isclose(module.train()(x), x).all(1)
    assert 10 < kept.sum() < 54
    assert not torch.isclose(module.eval()(x), x).all(1).any()


def test_the_forward_reads_as_written_by_hand() -> None:
    layers = [
        {"Linear": {"out_features": 4, "name": "stem"}},
        {"Residual": ["LayerNorm", {"Linear": 4}]},
        {"Concat": {"from": ["_", "stem"]}},
    ]
    module = build_valid_layers(layers, ROW).module
    assert isinstance(module, fx.GraphModule)
    lines = [line.strip().split(";")[0] for line in module.code.strip().splitlines()]
    assert [line for line in lines if line] == [
        "def forward(self, x):",
        "stem = self.stem(x)",
        'body_layer_norm = getattr(getattr(self, "1").body, "0")(stem)',
        'body_linear = getattr(getattr(self, "1").body, "1")(body_layer_norm)',
        "add = body_linear + stem",
        "cat = torch.cat([add, stem], dim = 1)",
        "return cat",
    ]


# ---- roles ---------------------------------------------------------------------------------------------------------

ROLES: list[tuple[list[Any], TensorInfo, TensorInfo]] = [
    ([{"Reshape": [3, 64]}], IMAGE, channels_first(3, 64)),
    ([{"Permute": [0, 2, 3, 1]}, {"Reshape": [2, 4, 2, 4, 3]}, {"Reshape": [8, 8, 3]}], IMAGE, channels_last(8, 8, 3)),
    ([{"Permute": [0, 2, 3, 1]}, {"Reshape": [2, 4, 2, 4, 3]}, "Mean"], IMAGE, features(3)),
    ([{"Unflatten": {"dim": 1, "unflattened_size": [3, 1]}}, {"Permute": [0, 2, 1, 3, 4]}, "ReLU",
      {"Flatten": {"start_dim": 1, "end_dim": 2}}], IMAGE, channels_first(3, 8, 8)),
    ([{"Reshape": [5, 2, 2]}, {"Reshape": [5, 4]}], STEPS, sequence(5, 4)),
    ([{"Reshape": [3, 8, 8]}], features(192), IMAGE),
]  # fmt: skip


@pytest.mark.parametrize(("layers", "given", "gives"), ROLES, ids=[str(each[0]) for each in ROLES])
def test_roles_are_followed(layers: list[Any], given: TensorInfo, gives: TensorInfo) -> None:
    output = build_valid_layers(layers, given).output
    assert (output.shape, output.layout) == (gives.shape, gives.layout)


# ---- what only a whole network shows -------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [{"Add": {"from": ["_", "stem"]}}, {"Formula": "_ + stem"}], ids=str)
def test_inplace_over_what_is_taken_later_is_refused(after: Any) -> None:
    layers = [{"Linear": {"out_features": 4, "name": "stem"}}, {"ReLU": {"inplace": True}}, after]
    found, fix = get_refusal(layers, ROW)
    assert (found, fix) == ("inplace would overwrite the output of 'stem', which a later layer reads", "leave it out")
    assert build_valid_layers([*layers[:2], {"Linear": 2}], ROW).output == features(2)


def test_every_mistake_of_shape_that_stands_alone_is_told() -> None:
    layers = [
        {"Linear": {"out_features": 4, "name": "a"}},
        {"Conv1d": {"out_channels": 2, "kernel_size": 1, "from": "a", "name": "b"}},
        {"LSTM": {"hidden_size": 2, "from": "a", "name": "c"}},
        {"Concat": {"from": ["b", "c"]}},
    ]
    problems = Problems()
    assert build_layers(layers, ROW, problems) is None
    assert [each.path[2] for each in problems.found] == [1, 2]
    assert problems.found[0].note == "shapes: x (4) -> a Linear (4) -> b Conv1d"


def test_a_network_that_is_to_give_its_tokens_again_sees_the_past_alone() -> None:
    words = np.random.default_rng(0).integers(1, 6, size=(200, 8))
    spec = {
        "layers": [{"Embedding": 8}, {"LSTM": 16}, {"Linear": "${data.vocab_size}"}],
        "trainer": {"epochs": 5, "device": "cpu", "progress": "none", "curves": False},
        "optimizer": {"type": "Adam", "lr": 0.02},
    }
    result = library.train(spec, {"words": words, "target": None})
    assert result.results["test/accuracy"] < 0.5  # by chance 0.2: nothing can be copied
    both = {**spec, "layers": [{"Embedding": 8}, {"LSTM": {"hidden_size": 8, "bidirectional": True}}, {"Linear": 6}]}
    with pytest.raises(library.SpecError, match="LSTM sees the future"):
        library.train(both, {"words": words, "target": None})


@pytest.mark.parametrize("count", [10, 200])
def test_expanding_grows_with_the_layers_alone(count: int) -> None:
    problems = Problems()
    graph = make_graph([{"Residual": [{"Linear": 4}, "ReLU"], "repeat": count}], problems)
    assert (len(graph.nodes), problems.found) == (3 * count, [])


# ---- what looked right and was not ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 16, 32, 64])
@pytest.mark.parametrize("before", ["BatchNorm2d", "Tanh", "GELU"])
def test_inplace_behind_a_layer_of_its_own_is_right(size: int, before: str) -> None:
    conv = {"Conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}}
    build_valid_layers(
        [conv, before, {"ReLU": {"inplace": True}}, conv, "Flatten", {"Linear": 1}], channels_first(3, size, size)
    )


def test_inplace_over_a_view_of_what_is_taken_later_is_refused_in_copies_too() -> None:
    lstm = {"LSTM": {"hidden_size": 4}}
    layers: list[Any] = [
        {"LSTM": {**lstm["LSTM"], "name": "a"}},
        {"LSTM": {**lstm["LSTM"], "name": "b"}},
        {"ReLU": {"inplace": True, "from": "b.last", "name": "r"}},
        {"Select": {"index": -1, "from": "b", "name": "s"}},
        {"Concat": {"from": ["r", "s", "a.last"]}},
    ]
    assert get_refusal(layers, sequence(12, 4))[0].startswith("inplace would overwrite the output of 'b'")


def test_each_copy_reads_a_from_that_a_param_brings() -> None:
    layers = [{"Linear": {"out_features": 4, "name": "m"}},
              {"Attention": {"num_heads": 1, "from": "$src", "repeat": 2}}]  # fmt: skip
    graph = make_graph({"params": {"src": ["_", "m"]}, "layers": layers}, Problems())
    assert [[ref.node for ref in node.inputs.values()] for node in graph.nodes[1:]] == [["m", "m"], ["1.0", "m"]]


def test_a_merge_stands_for_one_branch_too() -> None:
    layers = [{"Parallel": {"branches": {"a": {"Linear": 4}}, "merge": {"Formula": "a * 2"}}}]
    network = build_valid_layers(layers, ROW)
    x = make_batch(ROW, 3)
    torch.testing.assert_close(network.module(x), network.layers[0].module(x) * 2)


def test_the_norm_of_an_inner_residual_is_the_bodys_end() -> None:
    inner = {"Residual": {"shortcut": "if_equal", "body": [{"Linear": 3}, "BatchNorm1d"]}}
    assert weights_of([{"Residual": {"shortcut": "auto", "body": [inner]}}], ROW)[-2:] == [
        "0.shortcut.0.weight", "0.shortcut.1.weight"
    ]  # fmt: skip


def test_names_inside_containers_are_the_users_own() -> None:
    assert weights_of([{"TimeDistributed": [{"Linear": {"out_features": 2, "name": "unfold"}}]}], STEPS) == [
        "0.unfold.weight"
    ]


def test_further_inputs_of_time_distributed_are_their_step_or_the_whole_value() -> None:
    layers = [
        {"Linear": {"out_features": 6, "name": "query"}},
        {"GRU": {"hidden_size": 2, "output": "last", "name": "summary"}},
        {
            "TimeDistributed": [{"Linear": 6}, {"Add": {"from": ["_", "query"]}}, {"Concat": {"from": ["_", "s"]}}],
            "from": {"_": "query", "query": "query", "s": "summary"},
        },
    ]
    network = build_valid_layers(layers, STEPS).module
    x = make_batch(STEPS, 3)
    query = network.query(x)
    summary = network.summary.forward(query)
    summary = summary[0] if isinstance(summary, tuple) else summary
    linear = next(each for name, each in network.named_modules() if name.endswith("2.0"))
    wanted = torch.cat([linear(query) + query, summary.unsqueeze(1).expand(-1, 5, -1)], 2)
    torch.testing.assert_close(network(x), wanted)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (["_", "short"], "has 3 steps instead of 5"),
        (["_", "gru.1"], "inside TimeDistributed an input needs a name, got 'gru.1'"),
        (["_", "_"], "inside TimeDistributed an input needs a name, got '_'"),
    ],
)
def test_what_time_distributed_can_not_take_is_told(inputs: list[str], said: str) -> None:
    layers = [
        {"Formula": "_[:, :3]", "name": "short"},
        {"GRU": {"hidden_size": 4, "from": "input"}, "name": "gru"},
        {"TimeDistributed": [{"Linear": 4}, {"Add": {"from": ["_", "short"]}}], "from": inputs},
        "Mean",
        {"Linear": 1},
    ]
    with pytest.raises(library.SpecError) as raised:
        library.build({"model": {"inputs": ["input"], "layers": layers}}, {"shape": [5, 4], "num_classes": 2})
    assert said in str(raised.value)


def test_a_branch_that_nothing_takes_is_told() -> None:
    problems = Problems()
    make_graph([{"Parallel": {"branches": {"a": {"Linear": 4}, "b": {"Linear": 4}}, "merge": None}}, "ReLU"], problems)
    assert [(each.path[-1], each.found) for each in problems.found] == [("b", "nothing uses the output of this entry")]


def test_memory_is_bounded_for_a_while_alone() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_DATA)

    def grow() -> None:
        for _ in range(50):
            with limit_memory_growth():
                torch.ones(10, 10) @ torch.ones(10, 10)

    threads = [Thread(target=grow) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
