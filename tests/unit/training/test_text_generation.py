"""What a network of next tokens writes after its training."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dlspec as library
from dlspec.data.arrays import dataset_from_arrays
from dlspec.data.dataset import Dataset
from dlspec.data.prepare.decoding import make_decoder
from dlspec.data.prepare.vocabulary import Vocabulary
from dlspec.training.callbacks import prediction_plots
from dlspec.training.evaluation import text_generation
from dlspec.training.evaluation.prediction_view import PredictionView
from dlspec.training.evaluation.text_generation import TEMPERATURES, find_first_sample, generate_tokens

ROWS, STEPS = 240, 8
WORDS = "one two three four five".split()
GENERATOR = np.random.default_rng(0)
COUNTED = (np.arange(STEPS + 1) + GENERATOR.integers(0, 5, size=(ROWS, 1))) % 5 + 2
FULL = np.full(ROWS, STEPS)
VOCABULARY = Vocabulary(tuple(WORDS), STEPS).to_json()
TRAINER = {"epochs": 12, "device": "cpu", "progress": "none", "tensorboard": False, "curves": False}

RECURRENT = [{"Embedding": 8}, {"LSTM": 24}, {"Linear": 7}]
ATTENDING = [
    {"Embedding": 16},
    "PositionalEmbedding",
    {"Residual": ["LayerNorm", {"Attention": {"num_heads": 2, "is_causal": True}}]},
    {"Residual": ["LayerNorm", {"Linear": 32}, "ReLU", {"Linear": 16}]},
    {"Linear": 7},
]
CONVOLVING = [
    {"Embedding": 16},
    {"Permute": [0, 2, 1]},
    {"ConstantPad1d": {"padding": [2, 0], "value": 0.0}},
    {"Conv1d": {"out_channels": 32, "kernel_size": 3}},
    "ReLU",
    {"Conv1d": {"out_channels": 7, "kernel_size": 1}},
]
FIXED = [
    {"Embedding": 16},
    {"Parameter": {"shape": [STEPS, 16], "name": "places"}},
    {"Add": {"from": ["_", "places"]}},
    {"GRU": 24},
    {"Linear": 7},
]
DECODING = [
    {"Embedding": {"embedding_dim": 8, "from": "way"}},
    {"GRU": {"hidden_size": 24, "name": "read"}},
    {"Embedding": {"embedding_dim": 8, "from": "text"}},
    {"GRU": {"hidden_size": 24, "from": ["_", "read.state"]}},
    {"Linear": 7},
]
AFTER = {"text": COUNTED[:, :-1], "target": COUNTED[:, 1:]}
AGAIN = {"text": COUNTED[:, :-1], "target": None}


@pytest.fixture(autouse=True)
def _short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlspec.training.callbacks.prediction_plots.MIN_STEPS", 1)


RUNS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "recurrent": (RECURRENT, AFTER),
    "its own tokens": (RECURRENT, AGAIN),
    "with lengths": (RECURRENT, {**AFTER, "text_lengths": FULL}),
    "its own tokens, with lengths": (RECURRENT, {**AGAIN, "text_lengths": FULL}),
    "positions": (ATTENDING, AFTER),
    "its own tokens, positions": (ATTENDING, AGAIN),
    "channels first": (CONVOLVING, AFTER),
    "of one length": (FIXED, AFTER),
    "its own tokens, of one length": (FIXED, AGAIN),
    "a decoder": (DECODING, {"way": COUNTED[:, :3], "target": {"text": COUNTED[:, :-1]}}),
}


def counting(arrays: dict[str, Any]) -> Dataset:
    return replace(dataset_from_arrays(arrays), preprocessing={"text": VOCABULARY})


def train(layers: list[Any], data: Dataset, folder: Path) -> str:
    inputs = {"inputs": ["way", "text"]} if layers is DECODING else {}
    model = {"layers": layers, **inputs}
    spec = {"model": model, "trainer": TRAINER, "optimizer": {"type": "Adam", "lr": 0.02}}
    run = library.train(spec, data, folder=folder).folder
    assert run is not None
    assert "can't draw" not in (run / "log.txt").read_text()
    return (run / "samples.txt").read_text()


@pytest.mark.parametrize("name", RUNS)
def test_what_was_learned_is_written_on_and_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts from one to five, far beyond what the network sees at once."""
    monkeypatch.setattr(text_generation, "MAX_TOKENS", 40)
    layers, arrays = RUNS[name]
    parts = train(layers, counting(arrays), tmp_path).split("\n\n\n")
    assert len(parts) == len(TEMPERATURES)
    for part, temperature in zip(parts, TEMPERATURES, strict=True):
        heading, _, text = part.strip().split("\n")
        said = [WORDS.index(word) for word in text.split()]
        begun = " ".join(WORDS[(said[0] + step) % 5] for step in range(4))
        assert heading == f"temperature {temperature}, 40 tokens after '{begun}'"
        assert len(said) == 44
        right = [(one + 1) % 5 == other for one, other in pairwise(said)]
        assert sum(right) >= 41, text


def test_tokens_that_nothing_names_are_not_written(tmp_path: Path) -> None:
    spec = {"layers": RECURRENT, "trainer": {**TRAINER, "epochs": 1}}
    run = library.train(spec, dataset_from_arrays(AFTER), folder=tmp_path).folder
    assert run is not None
    assert not (run / "samples.txt").exists()


def view_of(layers: list[Any], data: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch) -> PredictionView:
    views: list[PredictionView] = []
    monkeypatch.setattr(prediction_plots, "generate_texts", lambda view: views.append(view) or {})
    library.train({"layers": layers, "trainer": {**TRAINER, "epochs": 1}}, data, folder=folder)
    return views[0]


def test_the_same_is_written_again_and_nothing_is_disturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of([*RECURRENT[:2], {"Dropout": 0.5}, RECURRENT[2]], counting(AFTER), tmp_path, monkeypatch)
    target, state = view.targets[0], torch.get_rng_state()
    view.network.train()
    monkeypatch.setattr(text_generation, "MAX_TOKENS", 40)
    first, again = (generate_tokens(view, target, find_first_sample(view, target), 2) for _ in range(2))
    assert all(torch.equal(*each) for each in zip(first, again, strict=True))
    assert view.network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert min(int(each.min()) for each in first) >= 2, "padding and unknown words are not said"


def test_a_slow_network_writes_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of(RECURRENT, counting(AFTER), tmp_path, monkeypatch)
    target, seconds = view.targets[0], iter(range(1000))
    first = find_first_sample(view, target)
    written = generate_tokens(view, target, first, clock=lambda: float(next(seconds)))
    assert [len(each) for each in written] == [text_generation.MAX_SECONDS] * len(TEMPERATURES)


def test_a_split_that_has_padding_begins_with_what_is_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of(RECURRENT, counting({**AFTER, "text_lengths": FULL - 3}), tmp_path, monkeypatch)
    assert find_first_sample(view, view.targets[0]).shape == (1, STEPS - 3)


@pytest.mark.parametrize("unit", ["characters", "bytes"])
def test_a_running_text_is_written_on(unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_generation, "MAX_TOKENS", 120)
    (tmp_path / "text.txt").write_text("äbc " * 2000, encoding="utf-8")
    data = {"type": "text", "path": str(tmp_path / "text.txt"), "length": 16, "unit": unit}
    layers = [{"Embedding": 8}, {"GRU": 24}, {"Linear": "${data.vocab_size}"}]
    spec = {"model": {"layers": layers}, "data": data, "trainer": {**TRAINER, "epochs": 6}}
    result = library.train({**spec, "optimizer": {"type": "Adam", "lr": 0.02}}, folder=tmp_path)
    assert result.folder is not None
    assert "test/bits_per_character" in result.results
    text = (result.folder / "samples.txt").read_text(encoding="utf-8").split("\n")[2]
    assert text.count("äbc äbc") > 8


def test_words_are_decoded() -> None:
    decoder = make_decoder(VOCABULARY)
    assert decoder is not None
    assert (decoder.decode([2, 6, 1, 3]), decoder.num_reserved) == ("one five … two", 2)
    assert make_decoder({"kind": "divide", "by": 16.0}) is None
    assert make_decoder(None) is None
