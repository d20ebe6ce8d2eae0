"""Arrays of several fields and targets: what they are taken for, what they state, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dlspec.data.arrays import dataset_from_arrays
from dlspec.data.dataset import Dataset, Field, Split, Target, shift_right
from dlspec.errors import DataError

ROWS, STEPS = 20, 4
TEXT = np.arange(ROWS * (STEPS + 1)).reshape(ROWS, STEPS + 1) % 7
TOKENS, NEXT = TEXT[:, :-1], TEXT[:, 1:]
CLASSES = np.arange(ROWS) % 3
NUMBERS = np.linspace(0, 1, ROWS)
LENGTHS = np.arange(ROWS) % STEPS + 1


def names(count: int) -> tuple[str, ...]:
    return tuple(str(index) for index in range(count))


def target_of(**arrays: Any) -> Target:
    return dataset_from_arrays({"x": TOKENS, **arrays}).target


KINDS: list[tuple[dict[str, Any], Target]] = [
    ({"target": NEXT}, Target("target", "classes", (STEPS,), names(7), next_of="x")),
    ({"target": NEXT, "x_lengths": LENGTHS}, Target("target", "classes", (STEPS,), names(7), None, "x", "x")),
    ({"target": TOKENS % 3}, Target("target", "classes", (STEPS,), names(3))),
    ({"target": TOKENS % 3, "x_lengths": LENGTHS}, Target("target", "classes", (STEPS,), names(3), lengths="x")),
    ({"target": TOKENS[:, :2] % 3 * 2, "x_lengths": LENGTHS}, Target("target", "classes", (2,), names(5))),
    ({"target": TOKENS % 3, "target_lengths": LENGTHS, "x_lengths": LENGTHS},
     Target("target", "classes", (STEPS,), names(3), lengths="target")),
    ({"target": np.zeros((ROWS, 4, 6)).astype(int) + CLASSES[:, None, None]},
     Target("target", "classes", (4, 6), names(3))),
    ({"target": TOKENS % 3 == 1}, Target("target", "numbers", (STEPS,), labels=names(STEPS))),
    ({"target": TOKENS % 3 == 1, "x_lengths": LENGTHS}, Target("target", "classes", (STEPS,), names(2), lengths="x")),
    ({"target": TOKENS[:, 0] % 3 == 1}, Target("target", "classes", (), names(2))),
    ({"target": TOKENS / 7, "x_lengths": LENGTHS}, Target("target", "numbers", (STEPS,), lengths="x")),
    ({"target": np.ones((ROWS, 1, 4, 6))}, Target("target", "numbers", (1, 4, 6))),
]  # fmt: skip


@pytest.mark.parametrize(("arrays", "target"), KINDS, ids=lambda each: str(each)[:40])
def test_what_a_target_is(arrays: dict[str, Any], target: Target) -> None:
    assert target_of(**arrays) == target
    assert target.is_next_token is bool(target.next_of)


def test_the_next_token_shares_the_vocabulary_of_its_text() -> None:
    once = np.array([[1, 2, 3]] * ROWS)
    (field,) = dataset_from_arrays({"x": once, "target": np.array([[2, 3, 9]] * ROWS)}).fields
    assert field.vocab_size == 10
    (field,) = dataset_from_arrays({"x": once, "target": np.array([[2, 4, 9]] * ROWS)}).fields
    assert field.vocab_size == 4


def several() -> Dataset:
    targets = {"label": CLASSES, "amount": NUMBERS, "words": NEXT}
    return dataset_from_arrays({"text": TOKENS, "text_lengths": LENGTHS, "more": np.ones((ROWS, 2)), "target": targets})


def test_several_fields_and_targets_state_their_facts_by_name() -> None:
    data = several()
    assert [each.name for each in data.fields] == ["text", "more"]
    assert [each.name for each in data.targets] == ["label", "amount", "words"]
    assert data.facts == {
        "text": {"shape": [STEPS], "layout": "tokens", "length": STEPS, "vocab_size": 7},
        "more": {"shape": [2], "layout": "features"},
        "label": {"num_outputs": 3, "num_classes": 3},
        "amount": {"num_outputs": 1},
        "words": {"num_outputs": 7, "num_classes": 7, "shape": [STEPS], "length": STEPS, "vocab_size": 7},
    }


def test_rows_of_all_tensors_stay_together() -> None:
    rows = np.arange(ROWS)
    arrays = {"x": rows[:, None] / 1.0, "y": rows[:, None], "y_lengths": np.ones(ROWS, int)}
    data = dataset_from_arrays({**arrays, "target": {"a": rows / 1.0, "b": rows % 2}})
    seen = []
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.tensors["x"][:, 0], split.targets["a"])
        assert torch.equal(split.tensors["y"][:, 0] % 2, split.targets["b"])
        assert len(split.tensors["y_lengths"]) == len(split)
        seen += split.targets["a"].tolist()
    assert sorted(seen) == rows.tolist()


def test_classes_keep_their_proportions_whichever_target_holds_them() -> None:
    targets = {"amount": np.linspace(0, 1, 100), "label": np.repeat([0, 1], [90, 10])}
    data = dataset_from_arrays({"x": np.ones((100, 2)), "target": targets})
    assert torch.bincount(data.train.targets["label"]).tolist() == [63, 7]


def test_a_target_of_tokens_is_an_input_too_moved_by_one() -> None:
    data = several()
    field = data.field("words")
    assert field == Field("words", (STEPS,), "tokens", 7)
    words = data.train.targets["words"]
    moved = data.sample("words", 2)
    assert torch.equal(moved, data.train.input("words")[:2])
    assert (moved[:, 0] == 0).all() and torch.equal(moved[:, 1:], words[:2, :-1])
    assert torch.equal(data.train.get_loss_target("words"), words)
    assert data.field("label") is None and data.field("amount") is None
    assert data.field("text") == data.fields[0]
    assert torch.equal(data.sample("text", 3), data.train.tensors["text"][:3])


def test_a_moved_target_keeps_its_own_lengths() -> None:
    data = dataset_from_arrays({"x": TOKENS, "y_lengths": LENGTHS, "target": {"y": TOKENS % 3}})
    assert data.field("y") == Field("y", (STEPS,), "tokens", 3, has_lengths=True)
    assert torch.equal(data.train.input("y_lengths"), data.train.tensors["y_lengths"])


def test_moving_by_one() -> None:
    assert shift_right(torch.tensor([[4, 5, 6]])).tolist() == [[0, 4, 5]]


def test_a_field_can_be_compared_with() -> None:
    data = several()
    assert data.get_loss_target("text") == Target("text", "classes", (STEPS,), names(7), lengths="text")
    assert data.get_loss_target("more") == Target("more", "numbers", (2,))
    assert data.get_loss_target("label") == data.targets[0]
    assert data.get_loss_target("none") is None


def test_data_without_a_target() -> None:
    data = dataset_from_arrays({"x": np.ones((ROWS, 3)), "target": None})
    assert data.targets == () and len(data.train) == 14
    assert data.facts == {
        "x": {"shape": [3], "layout": "features"},
        "shape": [3],
        "layout": "features",
        "num_outputs": 3,
    }


def test_tokens_that_are_all_the_same_can_not_be_given_again() -> None:
    with pytest.raises(DataError, match="'x' has only one distinct token; there is nothing to learn"):
        _ = dataset_from_arrays({"x": TOKENS * 0, "target": None}).effective_targets


def test_the_origin_is_kept() -> None:
    data = dataset_from_arrays({"x": TOKENS, "target": CLASSES}, validation=0.3, split_seed=4)
    assert data.origin == {"validation": 0.3, "test": 0.2, "split_seed": 4}


def test_a_split_without_targets_has_a_length() -> None:
    assert len(Split({"x": torch.zeros(3, 2)})) == 3


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"x": TOKENS, "target": {"x": CLASSES}}, "x", "'x' is both an input and a target: give one of them another name"),
    ({"x": TOKENS, "target": {"a-b": CLASSES}}, "a-b", "'a-b' can't be a field's name: use letters, digits and _"),
    ({"target": {"a": CLASSES}}, "", "only the target 'target' was given; add an array to predict it from"),
    ({"x": TOKENS, "target": {"a": CLASSES[:3]}}, "",
     "all arrays must have the same number of rows: x has 20, a has 3"),
    ({"x": TOKENS, "target": -NEXT}, "target", "'target' contains the class -6; classes must be 0 to 999,999"),
    ({"x": TOKENS, "target": NEXT * 10**6}, "target",
     "'target' contains the class 6000000; classes must be 0 to 999,999"),
    ({"x": TOKENS, "target": NEXT * 0}, "target", "'target' has only one class; there is nothing to learn"),
    ({"x": NUMBERS, "x_lengths": LENGTHS, "target": CLASSES}, "x_lengths",
     "'x_lengths' are lengths, but 'x' of shape [20] has no steps"),
    ({"x": TOKENS, "x_lengths": LENGTHS + 1, "target": CLASSES}, "x_lengths",
     "'x_lengths' must be whole numbers (N,) from 1 to 4, the steps of 'x'"),
    ({"x": TOKENS, "x_lengths": LENGTHS - 1, "target": CLASSES}, "x_lengths",
     "'x_lengths' must be whole numbers (N,) from 1 to 4, the steps of 'x'"),
    ({"x": TOKENS, "x_lengths": LENGTHS / 1, "target": CLASSES}, "x_lengths",
     "'x_lengths' must be whole numbers (N,) from 1 to 4, the steps of 'x'"),
    ({"x": TOKENS, "y": TOKENS}, "target",
     "no target 'target' among the arrays; available: x, y; for data without a target, pass 'target': None"),
]  # fmt: skip


@pytest.mark.parametrize("kind", [int, float, bool])
def test_a_target_stated_as_labels(kind: type) -> None:
    arrays = {"x": TOKENS, "x_lengths": LENGTHS, "target": (TOKENS % 3 == 1).astype(kind)}
    data = dataset_from_arrays(arrays, labels="target")
    assert data.target == Target("target", "numbers", (STEPS,), labels=names(STEPS))
    assert data.origin["labels"] == ["target"]
    assert set(data.train.target.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (TOKENS % 3, "'target' must be zeros and ones (N, L) for L labels, got shape [20, 4] with values from 0 to 2"),
        (CLASSES % 2, "'target' must be zeros and ones (N, L) for L labels, got shape [20] with values from 0 to 1"),
        ({"tags": TOKENS % 2}, "no target 'target'; available: tags"),
    ],
)
def test_what_are_not_labels(target: Any, text: str) -> None:
    with pytest.raises(DataError) as caught:
        dataset_from_arrays({"x": TOKENS, "target": target}, labels="target")
    assert str(caught.value) == text


@pytest.mark.parametrize(("arrays", "key", "text"), REFUSED, ids=lambda each: str(each)[:40])
def test_refused(arrays: dict[str, Any], key: str, text: str) -> None:
    with pytest.raises(DataError) as caught:
        dataset_from_arrays(arrays)
    assert (caught.value.key, str(caught.value)) == (key, text)
