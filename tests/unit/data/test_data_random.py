"""Noise with fields and targets of every kind, and data that aim at one of what they have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import dlspec as library
from dlspec.data.dataset import Dataset
from dlspec.data.sources import SOURCES, open_data
from dlspec.errors import DataError
from helpers.command_line import CommandResult

FIELDS = {
    "left": {"shape": [1, 8, 8]},
    "series": {"shape": [6, 4]},
    "table": {"shape": [5]},
    "words": {"vocab_size": 9, "length": 7},
}
# target → what it is: kind, a sample's shape, classes, outputs, dtype
TARGETS: dict[str, tuple[dict[str, Any], str, tuple[int, ...], int, int]] = {
    "digit": ({"num_classes": 3}, "classes", (), 3, 3),
    "same": ({"num_classes": 2}, "classes", (), 2, 1),
    "angle": ({}, "numbers", (), 0, 1),
    "box": ({"shape": [4]}, "numbers", (4,), 0, 4),
    "map": ({"shape": [8, 8], "num_classes": 5}, "classes", (8, 8), 5, 5),
    "ink": ({"shape": [8, 8], "num_classes": 2}, "classes", (8, 8), 2, 1),
    "tags": ({"shape": [7], "num_classes": 4}, "classes", (7,), 4, 4),
    "next": ({"next_of": "words"}, "classes", (7,), 9, 9),
}


def noise(**settings: Any) -> Dataset:
    return open_data(SOURCES["random"](**{"size": 60, **settings}))


@pytest.fixture(scope="module")
def everything() -> Dataset:
    return noise(fields=FIELDS, targets={name: row[0] for name, row in TARGETS.items()})


def test_every_field(everything: Dataset) -> None:
    found = {each.name: (each.shape, each.layout, each.vocab_size) for each in everything.fields}
    assert found == {
        "left": ((1, 8, 8), "channels-first", None),
        "series": ((6, 4), "sequence", None),
        "table": ((5,), "features", None),
        "words": ((7,), "tokens", 9),
    }
    for each in everything.fields:
        values = everything.train.tensors[each.name]
        assert values.shape == (len(everything.train), *each.shape) and values.is_contiguous()
        assert values.dtype == (torch.int64 if each.name == "words" else torch.float32)
    assert everything.train.tensors["words"].unique().tolist() == list(range(9))


@pytest.mark.parametrize("name", TARGETS)
def test_every_target(name: str, everything: Dataset) -> None:
    _, kind, shape, classes, outputs = TARGETS[name]
    target = next(each for each in everything.targets if each.name == name)
    assert (target.kind, target.shape, len(target.classes)) == (kind, shape, classes)
    assert everything.facts[name]["num_outputs"] == target.num_outputs == outputs
    assert everything.facts[name].get("num_classes", 0) == classes
    values = everything.train.targets[name]
    assert values.shape == (len(everything.train), *shape) and values.is_contiguous()
    assert values.dtype == (torch.int64 if kind == "classes" else torch.float32)
    if classes:
        assert values.unique().tolist() == list(range(classes))


def test_the_next_token_is_the_next(everything: Dataset) -> None:
    words, following = everything.train.tensors["words"], everything.train.targets["next"]
    assert torch.equal(words[:, 1:], following[:, :-1])
    assert everything.targets[-1].next_of == "words"


def test_splits_have_the_first_targets_classes_in_equal_proportions(everything: Dataset) -> None:
    shares = [split.targets["digit"].bincount() / len(split) for split in (everything.train, everything.test)]
    assert (shares[0] - shares[1]).abs().max() < 0.1


def test_the_same_noise_for_the_same_seed() -> None:
    settings: dict[str, Any] = {"fields": FIELDS, "targets": {"angle": {}, "next": {"next_of": "words"}}}
    one, same, other = (noise(**settings, split_seed=seed) for seed in (1, 1, 2))
    for name in ("left", "words", "angle", "next"):
        assert torch.equal(one.train.get_loss_target(name), same.train.get_loss_target(name))
        assert not torch.equal(one.train.get_loss_target(name), other.train.get_loss_target(name))


def test_what_is_left_out() -> None:
    assert {key: noise().facts[key] for key in ("shape", "num_classes")} == {"shape": [1, 28, 28], "num_classes": 10}
    tokens = noise(vocab_size=9, length=7)
    assert (tokens.fields[0].name, tokens.target.name, tokens.facts["num_classes"]) == ("input", "label", 10)
    assert noise(num_classes=None).target.kind == "numbers"
    assert noise(shape=[3], targets={"box": {"shape": [2]}}).target.num_outputs == 2


def test_a_saved_source_opens_the_same() -> None:
    source = SOURCES["random"](fields=FIELDS, targets={"next": {"next_of": "words"}}, size=60)
    again = SOURCES["random"](**source.model_dump(mode="json"))
    assert again == source and torch.equal(open_data(again).test.target, open_data(source).test.target)
    assert SOURCES["random"](**SOURCES["random"]().model_dump(mode="json")) == SOURCES["random"]()


# ---- one thing to predict, of all that there is ---------------------------------------------------------------------


def test_aimed_at_a_target() -> None:
    data = noise(fields=FIELDS, targets={"digit": {"num_classes": 3}, "angle": {}}, target="angle")
    assert (data.target.name, list(data.train.targets), data.facts["num_outputs"]) == ("angle", ["angle"], 1)


@pytest.mark.parametrize(
    ("field", "facts"),
    [
        ("left", {"num_outputs": 1}),
        ("series", {"num_outputs": 4}),
        ("table", {"num_outputs": 5}),
        ("words", {"num_outputs": 9, "num_classes": 9}),
    ],
)
def test_aimed_at_a_field(field: str, facts: dict[str, int]) -> None:
    data = noise(fields=FIELDS, target=field)
    assert (data.targets, data.train.targets, data.reconstructed_field) == ((), {}, field)
    assert {key: data.facts[key] for key in ("num_outputs", "num_classes") if key in data.facts} == facts


def test_aimed_at_nothing_that_is_there() -> None:
    with pytest.raises(DataError) as caught:
        noise(target="labl")
    assert (caught.value.key, str(caught.value)) == (
        "target",
        "random has no target or field 'labl'; did you mean 'label'?",
    )


# ---- real data that have such targets -------------------------------------------------------------------------------

WIDE = "{out_channels: 16, kernel_size: 5, padding: 2}"
REAL = {
    "image": (["data=digits", "data.target=image"], "[Flatten, {Linear: 64}, {Reshape: [1, 8, 8]}]", "MSELoss"),
    "features": (["data=breast_cancer", "data.target=features"], "[{Linear: 8}, {Linear: 30}]", "MSELoss"),
    "segments": (
        ["data=digits_segments"], f"[{{Conv2d: {WIDE}}}, ReLU, {{Conv2d: {{out_channels: 11, kernel_size: 1}}}}]",
        "CrossEntropyLoss",
    ),
    "words": (
        ["data=python_lines", "data.target=text", "data.limit=200", "data.max_length=12"],
        "[{Embedding: 16}, {GRU: 16}, {Linear: '${data.vocab_size}'}]", "CrossEntropyLoss",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_data_are_learned_from_the_command_line(
    dlspec: Callable[..., CommandResult], work: Path, name: str
) -> None:
    words, layers, loss = REAL[name]
    trainer = ["trainer.epochs=3", "trainer.curves=false", "trainer.pictures=false", "trainer.tensorboard=false"]
    said = dlspec(*words, f"model.layers={layers}", "optimizer.lr=0.01", *trainer, "hydra.run.dir=made")
    assert (said.code, said.err) == (0, "")
    assert yaml.safe_load((work / "made/spec.yaml").read_text())["loss"]["type"] == loss
    epochs = [json.loads(line) for line in (work / "made/metrics.jsonl").read_text().splitlines()]
    assert epochs[-1]["train/loss"] < 0.9 * epochs[0]["train/loss"]


# ---- each is learned by heart, by the loss that suits it ------------------------------------------------------------

DENSE = ["Flatten", {"Linear": 64}, "ReLU"]
PIXELS: list[Any] = [{"Conv2d": {"out_channels": 32, "kernel_size": 3, "padding": 1}}, "ReLU"]
PIXELS_END = {"Conv2d": {"out_channels": "${data.num_outputs}", "kernel_size": 1}}
END = {"Linear": "${data.num_outputs}"}
GPT = [
    {"Embedding": 32},
    "PositionalEmbedding",
    {"Residual": ["LayerNorm", {"Attention": {"num_heads": 2, "is_causal": True}}]},
    END,
]
IMAGES: dict[str, Any] = {"shape": [1, 8, 8]}
# what is predicted → data, layers, the loss that auto means
LEARNED: dict[str, tuple[dict[str, Any], list[Any], str]] = {
    "classes": ({**IMAGES, "num_classes": 4}, [*DENSE, END], "CrossEntropyLoss"),
    "yes or no": ({**IMAGES, "targets": {"same": {"num_classes": 2}}}, [*DENSE, END], "BCEWithLogitsLoss"),
    "numbers": ({**IMAGES, "targets": {"box": {"shape": [4]}}}, [*DENSE, END], "MSELoss"),
    "a class a pixel": (
        {**IMAGES, "targets": {"map": {"shape": [8, 8], "num_classes": 5}}}, [*PIXELS, PIXELS_END], "CrossEntropyLoss",
    ),
    "yes or no a pixel": (
        {**IMAGES, "targets": {"ink": {"shape": [8, 8], "num_classes": 2}}}, [*PIXELS, PIXELS_END], "BCEWithLogitsLoss",
    ),
    "numbers of a shape": (
        {**IMAGES, "targets": {"image": {"shape": [2, 8, 8]}}}, [*PIXELS, PIXELS_END], "MSELoss",
    ),
    "the input": (
        {**IMAGES, "target": "input"}, [*DENSE, {"Linear": 64}, {"Reshape": [1, 8, 8]}], "MSELoss",
    ),
    "a class a step": (
        {"fields": {"words": FIELDS["words"]}, "targets": {"tags": {"shape": [7], "num_classes": 4}}},
        [{"Embedding": 32}, {"LSTM": {"hidden_size": 32}}, END], "CrossEntropyLoss",
    ),
    "the next token": (
        {"fields": {"words": FIELDS["words"]}, "targets": {"next": {"next_of": "words"}}}, GPT, "CrossEntropyLoss",
    ),
    "tokens again": ({**FIELDS["words"], "target": "input"}, GPT, "CrossEntropyLoss"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LEARNED)
def test_learned_by_heart(kind: str) -> None:
    data, layers, loss = LEARNED[kind]
    source = {"type": "random", "size": 48, "validation": 0, "test": 0, **data}
    trainer = {"epochs": 12, "batch_size": 16, "progress": "none", "monitor": "train/loss"}
    spec = {"layers": layers, "optimizer": {"type": "Adam", "lr": 0.01}, "trainer": trainer}
    result = library.train(spec, source)
    losses = [row["train/loss"] for row in result.history]
    assert result.spec["loss"]["type"] == loss
    assert losses[-1] < (0.99 if "pixel" in kind else 0.95) * losses[0]
