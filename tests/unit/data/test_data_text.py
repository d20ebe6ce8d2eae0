"""A running text as windows: what they hold, where the parts end, what is kept of it, and what it costs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import dlspec
from dlspec.data.batches.batch_loader import BatchLoader, BatchPlan, move_to_device
from dlspec.data.dataset import Dataset
from dlspec.data.prepare.alphabet import Alphabet
from dlspec.data.sources import SOURCES, open_data
from dlspec.errors import DataError
from helpers.paths import SHARED

CPU = torch.device("cpu")
SENTENCE = "the quick brown fox jumps over the lazy dog; "
SHAKESPEARE = SHARED / "data" / "text" / "tinyshakespeare.txt"


def text(folder: Path, content: str | bytes = SENTENCE * 20, **settings: Any) -> Dataset:
    (folder / "in.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_data(SOURCES["text"](**{"path": str(folder / "in.txt"), "length": 8, **settings}))


def strings(data: Dataset, tokens: torch.Tensor) -> list[str]:
    alphabet = Alphabet.from_json(json.loads(json.dumps(data.preprocessing["text"])))
    return [alphabet.decode(row) for row in tokens.tolist()]


def test_windows_stand_side_by_side_and_the_target_is_the_next_character(tmp_path: Path) -> None:
    data = text(tmp_path, validation=0, test=0)
    windows, following = (strings(data, each) for each in (data.train.tensors["text"], data.train.target))
    whole = SENTENCE * 20
    assert windows == [whole[start : start + 8] for start in range(0, len(whole) - 8, 8)]
    assert following == [whole[start + 1 : start + 9] for start in range(0, len(whole) - 8, 8)]
    assert (data.target.name, data.target.next_of, len(data.validation), len(data.test)) == ("next", "text", 0, 0)


def test_the_vocabulary_is_the_texts_characters_from_0(tmp_path: Path) -> None:
    data = text(tmp_path, "naïve 字 café\r\n" * 20)
    assert data.target.classes == tuple("\n acefnvéï字")
    facts = {key: data.facts[key] for key in ("vocab_size", "num_classes", "num_outputs", "length", "shape")}
    assert facts == {"vocab_size": 11, "num_classes": 11, "num_outputs": 11, "length": 8, "shape": [8]}
    assert data.preprocessing["text"] == {"kind": "characters", "length": 8, "characters": "\n acefnvéï字"}


def test_bytes_are_always_256(tmp_path: Path) -> None:
    data = text(tmp_path, "字\r\n".encode() * 30 + b"\xff" * 20, unit="bytes", validation=0, test=0)
    assert (data.facts["vocab_size"], len(data.target.classes)) == (256, 256)
    assert data.train.tensors["text"][0].tolist() == list(("字\r\n" * 2).encode())[:8]
    assert data.preprocessing["text"] == {"kind": "bytes", "length": 8}


def test_parts_follow_each_other(tmp_path: Path) -> None:
    content = "".join(chr(0x4E00 + index) for index in range(1000))
    data = text(tmp_path, content, validation=0.2, test=0.1, stride=3)
    first = [row[0] for row in strings(data, data.train.tensors["text"])]
    assert first == [content[index] for index in range(0, 700 - 8, 3)]
    for split, start, end in ((data.validation, 700, 900), (data.test, 900, 1000)):
        assert strings(data, split.tensors["text"])[0][0] == content[start]
        assert strings(data, split.target)[-1][-1] == content[start + (end - start - 1) // 8 * 8]


def test_limit_takes_the_first_windows(tmp_path: Path) -> None:
    data = text(tmp_path, limit=2, stride=1)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [2, 2, 2]
    assert strings(data, data.train.tensors["text"]) == ["the quic", "he quick"]


def test_a_folders_files_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name, content in {"z.txt": "4444", "a.txt": "1111", "b/c/x.txt": "2222", "b/y.txt": "33", "n.md": "5"}.items():
        (tmp_path / name).write_text(content)
    data = open_data(SOURCES["text"](path=str(tmp_path), length=3, validation=0, test=0))
    assert "".join(strings(data, data.train.tensors["text"])) == "1111\n2222\n33\n44"


def test_pythons_own_topics() -> None:
    from pydoc_data.topics import topics

    data = open_data(SOURCES["text"]())
    (first, *_) = strings(data, data.train.tensors["text"])
    assert topics[min(topics)].startswith(first)
    assert len(data.train) * 64 > 200_000


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="Shakespeare's text is not here")
def test_shakespeare_as_nanogpt_divides_it() -> None:
    data = open_data(SOURCES["text"](path=str(SHAKESPEARE), test=0, stride=1))
    assert data.facts["vocab_size"] == 65
    assert (len(data.train), len(data.validation)) == (1_003_854 - 64, (111_540 - 1) // 64)


# ---- what a checkpoint keeps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["añ字\n", b"a\xc3\xb1"])
def test_what_is_encoded_is_decoded(content: str | bytes) -> None:
    alphabet = Alphabet.fit(content, 3)
    again = Alphabet.from_json(json.loads(json.dumps(alphabet.to_json())))
    whole = content if isinstance(content, str) else content.decode()
    assert again == alphabet and again.decode(again.encode(whole).tolist()) == whole


def test_a_character_that_was_not_learned() -> None:
    with pytest.raises(DataError, match="'é' is not one of the 4 characters of the training text"):
        Alphabet.fit("cafe", 3).encode("café")


SAVED = {"kind": "characters", "length": 3, "characters": "ab"}


@pytest.mark.parametrize(
    ("saved", "why"),
    [
        ([], "expected kind, length and characters, or kind and length for bytes"),
        ({**SAVED, "kind": "bytes"}, "expected kind, length and characters, or kind and length for bytes"),
        ({**SAVED, "length": 10**12}, "length must be 1 to 1,000,000"),
        ({**SAVED, "length": True}, "length must be 1 to 1,000,000"),
        ({**SAVED, "characters": ""}, "characters must be a string of at least two characters"),
        ({**SAVED, "characters": ["a", "b"]}, "characters must be a string of at least two characters"),
        ({**SAVED, "characters": "aba"}, "a character is listed twice"),
        ({**SAVED, "characters": "a\ud800"}, "characters contain a lone surrogate"),
    ],
)
def test_saved_characters(saved: object, why: str) -> None:
    with pytest.raises(DataError) as caught:
        Alphabet.from_json(saved)
    assert str(caught.value) == f"the saved characters can't be used: {why}"


# ---- windows are views ----------------------------------------------------------------------------------------------


def storage_bytes(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def test_overlapping_windows_are_never_copied_as_a_whole(tmp_path: Path) -> None:
    data = text(tmp_path, SENTENCE * 200, stride=1)
    batches = BatchLoader(data.train, ["text"], ["next"], BatchPlan(32), CPU)
    for each in batches.tensors:
        assert len(each) > 7000 and storage_bytes(each) == 8 * len(SENTENCE * 200)
    (inputs, targets) = next(batches.iterate_shuffled(0, 1))
    assert torch.equal(inputs[0][:, 1:], targets[0][:, :-1]) and storage_bytes(inputs[0]) == 32 * 8 * 8


class Elsewhere(torch.Tensor):
    """A tensor whose way to another device really copies, as it does on a GPU."""

    def to(self, device: torch.device) -> torch.Tensor:  # type: ignore[override]
        return self.as_subclass(torch.Tensor).clone(memory_format=torch.preserve_format)


@pytest.mark.parametrize("stride", [1, 3, 8, 11])
def test_windows_are_placed_as_views(stride: int) -> None:
    windows = torch.arange(1000)[5:].unfold(0, 8, stride)
    there = move_to_device(windows.as_subclass(Elsewhere), CPU)
    assert torch.equal(there, windows)
    assert storage_bytes(there) <= 8 * 1000


OTHERS = {
    "no rows": torch.zeros(0, 8),
    "no windows": torch.arange(100).unfold(0, 8, 11)[:0],
    "no numbers": torch.zeros(0),
    "repeated": torch.ones(4).expand(3, 4),
    "turned": torch.eye(3).t(),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_tensors_are_placed_too(kind: str) -> None:
    assert torch.equal(move_to_device(OTHERS[kind], CPU), OTHERS[kind])


# ---- a model learns it ----------------------------------------------------------------------------------------------

GPT: list[Any] = [
    {"Embedding": 32},
    "PositionalEmbedding",
    {"Residual": ["LayerNorm", {"Attention": {"num_heads": 2, "is_causal": True}}]},
    {"Linear": "${data.vocab_size}"},
]


def test_a_model_learns_the_next_character(tmp_path: Path) -> None:
    data = {"type": "text", "path": str(tmp_path / "in.txt"), "length": 16, "stride": 1}
    (tmp_path / "in.txt").write_text(SENTENCE * 40)
    trainer = {"epochs": 4, "limit_batches": 30, "progress": "none"}
    spec = {"layers": GPT, "optimizer": {"type": "Adam", "lr": 0.01}, "trainer": trainer}
    result = dlspec.train(spec, data)
    assert result.spec["loss"]["type"] == "CrossEntropyLoss"
    assert result.history[-1]["val/loss"] < 1.0 < math.log(len(set(SENTENCE)))


def test_a_model_that_sees_the_next_character_is_refused(tmp_path: Path) -> None:
    layers = [{"Embedding": 8}, {"Attention": {"num_heads": 2}}, {"Linear": "${data.vocab_size}"}]
    data = {"type": "text", "length": 16, "limit": 100}
    with pytest.raises(dlspec.UserError, match="Attention sees the future"):
        dlspec.train({"layers": layers, "trainer": {"max_steps": 1, "progress": "none"}}, data)
