"""A model's params, inputs, layers and loss: what formulas make of them, and every mistake."""

from __future__ import annotations

from typing import Any

import pytest

from dlspec.language.expand.expander import expand_model
from dlspec.language.expand.graph import Node
from dlspec.language.expressions.expression_parsing import UnknownValue
from dlspec.language.parse.block import read_model
from dlspec.language.parse.part import NO_VALUE
from dlspec.language.problems import Problems, format_path
from dlspec.limits import DEFAULT_LIMITS, explain_raising_limit

CLASSES = UnknownValue("data.num_classes")


def expanded(model: Any) -> tuple[tuple[Node, ...], list[tuple[str, str, str]]]:
    problems = Problems()
    block = read_model(model, ("model",), problems)
    nodes = expand_model(block, problems).nodes if block else ()
    return nodes, [(format_path(each.path), each.found, each.fix) for each in problems.found]


def nodes_of(model: Any) -> tuple[Node, ...]:
    nodes, problems = expanded(model)
    assert not problems
    return nodes


def shown_parts(model: Any) -> list[Any]:
    """Each node as its type, its settings and its value."""
    return [
        (node.part.type, node.part.settings, None if node.part.value is NO_VALUE else node.part.value)
        for node in nodes_of(model)
    ]


WITH_PARAMS: list[tuple[dict[str, Any], Any, tuple[str, Any, Any]]] = [
    ({"n": 3}, {"Linear": "$n"}, ("Linear", {}, 3)),
    ({"n": 3}, {"Linear": "$(2 * n)"}, ("Linear", {}, 6)),
    ({"n": [1, 2]}, {"Conv2d": {"stride": "$n"}}, ("Conv2d", {"stride": [1, 2]}, None)),
    ({"n": 2}, {"Conv2d": {"stride": ["$n", 1]}}, ("Conv2d", {"stride": [2, 1]}, None)),
    ({"a": 1}, {"Linear": {"bias": "$(null if a else 3)"}}, ("Linear", {"bias": None}, None)),
    ({"a": 1}, {"Upsample": {"mode": "$('lin' + 'ear' if a else '')"}}, ("Upsample", {"mode": "linear"}, None)),
    ({"n": CLASSES}, {"Linear": "$n"}, ("Linear", {}, CLASSES)),
    ({"n": CLASSES}, {"Linear": "$(2 * n)"}, ("Linear", {}, CLASSES)),
    ({"n": 3, "m": "$(n + 1)"}, {"Linear": "$m"}, ("Linear", {}, 4)),
    ({"f": "ReLU"}, "$f", ("ReLU", {}, None)),
    ({"f": "ReLU"}, {"type": "$f", "inplace": True}, ("ReLU", {"inplace": True}, None)),
    ({"f": {"LeakyReLU": 0.1}}, "$f", ("LeakyReLU", {}, 0.1)),
    ({"f": {"LeakyReLU": {"negative_slope": 0.1}}}, "$f", ("LeakyReLU", {"negative_slope": 0.1}, None)),
    ({"f": {"type": "LeakyReLU", "negative_slope": 0.1}}, "$f", ("LeakyReLU", {"negative_slope": 0.1}, None)),
    (
        {"f": {"LeakyReLU": {"negative_slope": 0.1}}},
        {"$f": {"inplace": True, "negative_slope": 0.2}},
        ("LeakyReLU", {"inplace": True, "negative_slope": 0.2}, None),
    ),
    ({"f": "ReLU", "g": "$f"}, "$g", ("ReLU", {}, None)),
    ({"a": 0}, "$('ReLU' if a else 'GELU')", ("GELU", {}, None)),
    ({"s": {"out_features": 4, "bias": False}}, {"Linear": "$s"}, ("Linear", {"out_features": 4, "bias": False}, None)),
    ({}, {"Upsample": {"mode": "$$x"}}, ("Upsample", {"mode": "$x"}, None)),
]  # fmt: skip


@pytest.mark.parametrize(("params", "entry", "part"), WITH_PARAMS, ids=lambda each: str(each)[:40])
def test_params(params: dict[str, Any], entry: Any, part: Any) -> None:
    (found,) = shown_parts({"params": params, "layers": [entry]})
    assert found == part
    assert {key: type(each) for key, each in found[1].items()} == {key: type(each) for key, each in part[1].items()}


def test_a_list_and_a_mapping_of_layers() -> None:
    as_list = nodes_of({"layers": ["Flatten", {"Linear": 10, "name": "head"}, {"ReLU": {"name": "end"}}]})
    assert [(node.name, node.inputs[0].node) for node in as_list] == [("0", ""), ("head", "0"), ("end", "head")]
    as_mapping = nodes_of({"layers": {"b": "Flatten", "a": {"Linear": 10}, "gone": None, "c": {"type": "ReLU"}}})
    assert [(node.name, node.part.type) for node in as_mapping] == [("b", "Flatten"), ("a", "Linear"), ("c", "ReLU")]


def test_layouts() -> None:
    nodes = nodes_of({"layers": [{"Flatten": None, "layout": "sequence"}, {"Linear": {"layout": "tokens"}}, "ReLU"]})
    assert [node.layout for node in nodes] == ["sequence", "tokens", None]


def test_the_models_own_loss() -> None:
    problems = Problems()
    model = {"params": {"s": 0.1}, "loss": {"CrossEntropyLoss": {"label_smoothing": "$s"}}, "layers": ["Flatten"]}
    block = read_model(model, ("model",), problems)
    assert block is not None
    assert expand_model(block, problems).training_settings["loss"] == {"CrossEntropyLoss": {"label_smoothing": 0.1}}
    assert problems.found == []


def test_inputs() -> None:
    model = {"layers": ["Flatten"]}
    inputs = {"image": {"shape": [None, 28, 28]}, "text": {"vocab_size": 100, "length": None}, "more": None}
    block = read_model({**model, "inputs": inputs}, ("model",), Problems())
    assert block is not None
    assert [(each.name, each.facts) for each in block.inputs] == [
        ("image", {"shape": [None, 28, 28]}),
        ("text", {"vocab_size": 100, "length": None}),
        ("more", {}),
    ]
    block = read_model({**model, "inputs": ["x", "memory"]}, ("model",), Problems())
    assert block is not None
    assert [(each.name, each.path) for each in block.inputs] == [
        ("x", ("model", "inputs", 0)),
        ("memory", ("model", "inputs", 1)),
    ]


NO_LAYERS = "write 'layers:' and below it '- Flatten', '- Linear: 10', ..."
NAME = "use letters, digits and _, start with a letter, avoid Python keywords"
ENTRY = "write a layer's name, or NAME: {setting: value}"

REFUSED: list[tuple[Any, list[tuple[str, str, str]]]] = [
    (None, [("model", "no model", "write 'layers:' and a list of layers, or choose one: model=cnn")]),
    (
        [1],
        [
            (
                "model",
                "a model must be a mapping with 'layers', got [1]",
                "write 'layers:' and a list of layers, or choose one: model=cnn",
            )
        ],
    ),
    ({}, [("model.layers", "'layers' is missing or empty", NO_LAYERS)]),
    ({"layers": {"a": None}}, [("model.layers", "'layers' is missing or empty", NO_LAYERS)]),
    ({"layers": 3}, [("model.layers", "'layers' must be a list or a mapping, got 3", NO_LAYERS)]),
    ({"layers": False}, [("model.layers", "'layers' must be a list or a mapping, got false", NO_LAYERS)]),
    (
        {"layers": ["ReLU"] * (DEFAULT_LIMITS["layers"] + 1)},
        [("model.layers", "10,001 layers", f"at most 10,000 are allowed; {explain_raising_limit('layers')}")],
    ),
    ({"layers": [None]}, [("model.layers.0", "missing layer", ENTRY)]),
    ({"layers": {"a-b": "ReLU"}}, [("model.layers.a-b", "'a-b' is not a valid name for an output", NAME)]),
    ({"layers": [{"ReLU": {"name": 3}}]}, [("model.layers.0.ReLU.name", "3 is not a valid name for an output", NAME)]),
    (
        {"layers": [{"ReLU": None, "name": "a"}, {"ReLU": {"name": "a"}}]},
        [("model.layers.1.ReLU.name", "the name 'a' is already used", "names must be unique within a model or block")],
    ),
    (
        {"layers": [{"ReLU": None, "layout": "Sequence"}]},
        [("model.layers.0.layout", "unknown layout 'Sequence'", "did you mean 'sequence'?")],
    ),
    (
        {"params": 3, "layers": ["ReLU"]},
        [("model.params", "'params' must be a mapping", "write 'params: {width: 64}'")],
    ),
    (
        {"params": {"a": 1}, "layers": ["ReLU"]},
        [("model.params.a", "param 'a' is never used", "remove it, or use it as $a")],
    ),
    (
        {"params": {"a": None}, "layers": [{"Linear": "$a"}]},
        [
            (
                "model.params.a",
                "param 'a' has no value",
                "write a value in params, or set it on the command line: model.params.a=...",
            )
        ],
    ),
    (
        {"params": {"width": 1, "widths": 2}, "layers": [{"Linear": "$width"}]},
        [("model.params.widths", "param 'widths' is never used", "did you mean 'width'?")],
    ),
    (
        {"params": {"a": "$b", "b": 1}, "layers": [{"Linear": "$(a + b)"}]},
        [("model.params.a", "unknown param 'b'", "'b' is defined further down: move it up")],
    ),
    (
        {"params": {"a": 1}, "layers": [{"Linear": "$a", "bias": 3}]},
        [
            (
                "model.layers.0.bias",
                "expected one layer name, got 2 keys: Linear, bias",
                "write it as a setting: Linear: {bias: ...}",
            )
        ],
    ),
    (
        {"params": {"f": 3}, "layers": ["$f", "$f"]},
        [("model.params.f", "3 is not a valid layer", ENTRY)],
    ),
    (
        {"layers": [{"Linear": "$(1 / 0)"}]},
        [("model.layers.0.Linear", "'1 / 0': division by zero", "")],
    ),
    (
        {"inputs": {"x": {"size": 3}}, "layers": ["ReLU"]},
        [("model.inputs.x.size", "unknown key 'size' of an input", "available: layout, length, shape, vocab_size")],
    ),
    *(
        (
            {"inputs": {"x": {key: value}}, "layers": ["ReLU"]},
            [(f"model.inputs.x.{key}", f"'{key}' must be {wanted}, got {shown}", "")],
        )
        for key, value, shown, wanted in (
            ("shape", 3, "3", "a list of integers >= 1, with null for any size"),
            ("shape", [1, 0], "[1, 0]", "a list of integers >= 1, with null for any size"),
            ("length", True, "true", "an integer >= 1 or null"),
            ("vocab_size", "many", "'many'", "an integer >= 1 or null"),
            ("layout", [1], "[1]", "features, sequence, tokens, channels-first, channels-last or null"),
        )
    ),
    (
        {"inputs": [3, {"x": None}], "layers": ["ReLU"]},
        [
            (
                "model.inputs.1",
                "the list of input names contains a mapping",
                "write inputs: {NAME: {...}}, without the brackets",
            ),
            ("model.inputs.0", "3 is not a valid name for an input", NAME),
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("model", "said"), REFUSED, ids=lambda each: str(each)[:40])
def test_refused(model: Any, said: list[tuple[str, str, str]]) -> None:
    assert sorted(expanded(model)[1]) == sorted(said)


@pytest.mark.parametrize(
    "name", ["min", "make_divisible", "null", "true", "in_channels", "index", "class", "a b", "3", "ä"]
)
def test_words_that_can_not_name_a_param(name: str) -> None:
    said = [
        (
            f"model.params.{name}",
            f"'{name}' is not a valid name for a param",
            "use letters, digits and _; names of functions and keywords are reserved",
        )
    ]
    assert expanded({"params": {name: 1}, "layers": ["ReLU"]})[1] == said
