"""Which field each of a model's inputs takes, and what is said where they do not match."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from dlspec.data.dataset import Dataset, Field, Target
from dlspec.language.parse.model_inputs import ModelInput
from dlspec.language.problems import Problems
from dlspec.network.inputs import match_inputs
from helpers.loss_cases import ROWS, make_data

IMAGE, TEXT = Field("image", (1, 4, 4), "channels-first"), Field("text", (5,), "tokens", 9)
LABEL, WORDS = Target("label", "classes", (), ("a", "b")), Target("words", "classes", (3,), ("a", "b", "c"))


def data(*fields: Field) -> Dataset:
    return make_data(LABEL, WORDS, fields=fields, **{each.name: torch.zeros(ROWS, *each.shape) for each in fields})


def matched(inputs: dict[str, dict[str, Any]], opened: Dataset) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """The fields' names by the inputs', and the mistakes."""
    problems = Problems()
    stated = [ModelInput(name, ("model", "inputs", name), facts) for name, facts in inputs.items()]
    found = match_inputs(stated, opened, problems)
    told = [(".".join(map(str, each.path)), each.found, each.fix) for each in problems.found]
    return {name: field.name for name, field in found.items()}, told


MATCHED: list[tuple[dict[str, Any], Dataset, dict[str, str]]] = [
    ({}, data(IMAGE), {"image": "image"}),
    ({"x": {}}, data(IMAGE), {"x": "image"}),
    ({"text": {}}, data(IMAGE, TEXT), {"text": "text"}),
    ({"text": {"vocab_size": 9, "length": 5}, "image": {"shape": [1, None, 4]}}, data(IMAGE, TEXT),
     {"text": "text", "image": "image"}),
    ({"image": {}, "words": {}}, data(IMAGE), {"image": "image", "words": "words"}),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "opened", "wanted"), MATCHED)
def test_matched(inputs: dict[str, Any], opened: Dataset, wanted: dict[str, str]) -> None:
    assert matched(inputs, opened) == (wanted, [])


FITTING = "use data that fit, or change the model's inputs"
REFUSED: list[tuple[dict[str, Any], Dataset, list[tuple[str, str, str]]]] = [
    ({}, data(IMAGE, TEXT),
     [("model", "made_up has 2 fields (image, text), and the model does not declare its inputs",
       "write inputs: [image, text] in the model, or only those that it needs")]),
    ({"imag": {}, "tokens": {}}, data(IMAGE, TEXT),
     [("model.inputs.imag", "made_up has no field 'imag'", "did you mean 'image'?"),
      ("model.inputs.tokens", "made_up has no field 'tokens'", "available: image, text, words")]),
    ({"image": {}, "label": {}}, data(IMAGE),
     [("model.inputs.label", "'label' is a target of made_up, not a field", "use a field: image")]),
    ({"image": {"shape": [3, 4, 4]}, "text": {"vocab_size": 8}}, data(IMAGE, TEXT),
     [("model.inputs.image.shape", "the model expects shape [3, 4, 4], but 'image' of made_up has [1, 4, 4]", FITTING),
      ("model.inputs.text.vocab_size", "the model expects vocab_size 8, but 'text' of made_up has 9", FITTING)]),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "opened", "told"), REFUSED)
def test_refused(inputs: dict[str, Any], opened: Dataset, told: list[tuple[str, str, str]]) -> None:
    assert matched(inputs, opened)[1] == told


@pytest.mark.parametrize(("takes_tokens", "advice"), [
    (True, "keep only 'review': 'data.drop=[age,title]'"), (False, "keep only 'features': 'data.drop=[review,title]'")
])  # fmt: skip
def test_the_columns_to_leave_out_are_those_that_the_model_does_not_take(takes_tokens: bool, advice: str) -> None:
    fields = (
        Field("features", (1,), "features"),
        Field("review", (5,), "tokens", 9),
        Field("title", (5,), "tokens", 9),
    )
    saved = {"columns": {}, "fields": {"features": {"columns": ["age"]}, "review": {"columns": ["review"]},
                                       "title": {"columns": ["title"]}}}  # fmt: skip
    problems = Problems()
    match_inputs([], replace(data(*fields), preprocessing=saved), problems, takes_tokens=takes_tokens)
    assert problems.found[0].fix.endswith(f"; or {advice}")
