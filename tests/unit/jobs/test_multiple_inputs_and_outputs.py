"""Several inputs, outputs, targets and losses, from arrays to a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dlspec as library

ROWS = 240
GENERATOR = np.random.default_rng(0)
LEFT, RIGHT = GENERATOR.normal(size=(ROWS, 4)), GENERATOR.normal(size=(ROWS, 3))
LABEL = (LEFT[:, 0] + RIGHT[:, 0] > 0).astype(int) + (LEFT[:, 1] > 1)
AMOUNT = LEFT[:, 2] - RIGHT[:, 1]
DATA = {"left": LEFT, "right": RIGHT, "target": {"label": LABEL, "amount": AMOUNT}}

TRUNK = [
    {"Linear": {"out_features": 16, "from": "left", "name": "one"}},
    {"Linear": {"out_features": 16, "from": "right", "name": "other"}},
    {"Add": {"from": ["one", "other"]}},
    {"ReLU": {"name": "both"}},
]
HEADS = [
    {"Linear": {"out_features": 3, "from": "both", "name": "kind"}},
    {"Linear": {"out_features": 1, "from": "both", "name": "size"}},
]
MODEL = {"inputs": ["left", "right"], "layers": [*TRUNK, *HEADS], "outputs": ["kind", "size"]}
LOSS = {
    "kind": {"type": "CrossEntropyLoss", "output": "kind", "target": "label"},
    "size": {"type": "MSELoss", "output": "size", "target": "amount", "factor": 0.5},
}
QUICK = {"trainer": {"epochs": 40, "batch_size": 16, "device": "cpu", "progress": "none", "curves": False}}
FAST = {"optimizer": {"type": "Adam", "lr": 0.02}}


def train(model: dict[str, Any], arrays: dict[str, Any] = DATA, **more: Any) -> library.Result:
    return library.train({"model": model, **QUICK, **FAST, **more}, arrays)


def test_two_inputs_two_outputs_and_two_losses_learn() -> None:
    result = train(MODEL, loss=LOSS)
    assert result.results["test/label_accuracy"] > 0.85
    assert result.results["test/amount_r2_score"] > 0.9
    for phase in ("train", "val", "test"):
        parts = [result.results[f"{phase}/loss_{name}"] for name in ("kind", "size")]
        assert result.results[f"{phase}/loss"] == pytest.approx(parts[0] + 0.5 * parts[1], rel=1e-5)
    assert {name.partition("/")[2] for name in result.results if "/" in name} == {
        "loss", "loss_kind", "loss_size", "label_accuracy", "amount_mean_absolute_error", "amount_r2_score"
    }  # fmt: skip
    output = result.network(torch.zeros(2, 4), torch.zeros(2, 3))
    assert {name: tuple(each.shape) for name, each in output.items()} == {"kind": (2, 3), "size": (2, 1)}


def test_auto_joins_outputs_and_targets_of_one_name() -> None:
    model = {**MODEL, "outputs": {"label": "kind", "amount": "size"}}
    result = train(model, trainer={**QUICK["trainer"], "epochs": 2})
    assert {name: each["type"] for name, each in result.spec["loss"].items()} == {
        "label": "CrossEntropyLoss", "amount": "MSELoss"
    }  # fmt: skip
    assert "val/loss_label" in result.results


def test_a_models_own_losses_may_have_params() -> None:
    own = {**MODEL, "params": {"share": 0.25}, "loss": {**LOSS, "size": {**LOSS["size"], "factor": "$share"}}}
    result = train(own, trainer={**QUICK["trainer"], "epochs": 1})
    assert result.spec["loss"]["size"]["factor"] == 0.25


def test_a_run_can_be_repeated_from_what_it_saved(tmp_path: Path) -> None:
    short = {**QUICK["trainer"], "epochs": 2}
    first = train(MODEL, loss=LOSS, trainer=short, data={"validation": 0.3, "split_seed": 5})
    assert first.spec["data"] == {"type": "arrays", "validation": 0.3, "test": 0.2, "split_seed": 5}
    assert [(each["type"], each["target"]) for each in first.spec["metrics"]] == [
        ("Accuracy", "label"), ("MeanAbsoluteError", "amount"), ("R2Score", "amount")
    ]  # fmt: skip
    again = library.train(first.spec, DATA)
    assert again.results == first.results
    assert again.spec == first.spec


def test_a_metric_may_be_of_one_target() -> None:
    chosen = [{"F1Score": {"average": "macro", "target": "label"}}, {"MeanSquaredError": {}}]
    result = train(MODEL, loss=LOSS, metrics=chosen, trainer={**QUICK["trainer"], "epochs": 1})
    assert {name for name in result.results if name.startswith("val/") and "loss" not in name} == {
        "val/label_f1_score", "val/amount_mean_squared_error"
    }  # fmt: skip


MISSPELLED = {"Linear": {"out_features": 16, "from": "rigth", "name": "other"}}
REFUSED: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({**MODEL, "outputs": ["kind", "size"]}, {},
     ["model.outputs   can't match 2 targets (label, amount) with 2 outputs (kind, size)   "
      "name each output like its target, "
      "or write which belong together: loss: {main: {type: LOSS, output: kind, target: label}}"]),
    (MODEL, {"loss": {**LOSS, "size": {**LOSS["size"], "output": "sizes", "target": "amout"}}},
     ["loss.size.output   the model has no output 'sizes'   did you mean 'size'?",
      "loss.size.target   the data have no target or field 'amout'   did you mean 'amount'?"]),
    (MODEL, {"loss": LOSS, "metrics": [{"AUROC": {"target": "amount"}}]},
     ["metrics.0   AUROC expects classes or labels, but 'amount' has numbers   "
      "use metrics=auto, which chooses by the target"]),
    (MODEL, {"loss": LOSS, "metrics": [{"Accuracy": {"target": "lable"}}]},
     ["metrics.0.Accuracy.target   no target 'lable' is predicted   did you mean 'label'?"]),
    ({**MODEL, "inputs": ["left", "rigth"], "layers": [TRUNK[0], MISSPELLED, *TRUNK[2:], *HEADS]}, {"loss": LOSS},
     ["model.inputs.1   arrays has no field 'rigth'   did you mean 'right'?"]),
]  # fmt: skip


@pytest.mark.parametrize(("model", "more", "told"), REFUSED)
def test_refused(model: dict[str, Any], more: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(library.SpecError) as caught:
        train(model, **more)
    found = [f"{each.path}   {each.found}   {each.fix}" for each in caught.value.problems]
    assert found == told


# ---- tokens --------------------------------------------------------------------------------------------------------

STEPS = 8
COUNTED = (np.arange(STEPS + 1) + GENERATOR.integers(0, 5, size=(ROWS, 1))) % 5


def test_the_next_token_is_learned() -> None:
    layers = [{"Embedding": 8}, {"LSTM": {"hidden_size": 16}}, {"Linear": "${data.num_outputs}"}]
    result = train({"layers": layers}, {"x": COUNTED[:, :-1], "target": COUNTED[:, 1:]})
    assert result.results["test/accuracy"] > 0.95


def test_a_decoder_is_taught_with_the_right_past() -> None:
    """It repeats a word, given its sum with what came before: without that input nothing could be learned."""
    words = GENERATOR.integers(1, 6, size=(ROWS, STEPS))
    before = np.concatenate([np.zeros((ROWS, 1), int), words[:, :-1]], 1)
    model = {
        "inputs": ["sums", "words"],
        "layers": [
            {"Embedding": {"embedding_dim": 16, "from": "sums", "name": "given"}},
            {"Embedding": {"embedding_dim": 16, "from": "words", "name": "past"}},
            {"Concat": {"from": ["given", "past"]}},
            {"Linear": 64},
            "ReLU",
            {"Linear": "${data.words.num_classes}"},
        ],
    }
    result = train(model, {"sums": (words + before) % 6, "target": {"words": words}})
    assert result.results["test/accuracy"] > 0.95


def test_a_decoder_that_sees_the_answer_is_refused() -> None:
    words = GENERATOR.integers(1, 6, size=(ROWS, STEPS))
    layers = [{"Embedding": 8}, {"GRU": {"hidden_size": 8, "bidirectional": True}}, {"Linear": 6}]
    with pytest.raises(library.SpecError) as caught:
        train({"inputs": ["words"], "layers": layers}, {"x": LEFT, "target": {"words": words}})
    (problem,) = caught.value.problems
    assert problem.path == "model.layers.1"
    assert problem.found.startswith(
        "GRU sees the future: the last token of 'words' changes its outputs at earlier steps"
    )


def test_an_autoencoder_gives_its_input_again() -> None:
    flat = GENERATOR.normal(size=(ROWS, 2)) @ GENERATOR.normal(size=(2, 6))
    result = train({"layers": [{"Linear": 2}, {"Linear": 6}]}, {"x": flat, "target": None})
    assert result.spec["loss"]["target"] == "x"
    assert result.results["test/r2_score"] > 0.9
