"""`evaluate` gives the results of training for every kind of target, each within its interval."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.command_line import QUIET

TASKS = {
    "classes": ["model=cnn", "data=digits"],
    "two classes": ["model=mlp", "data=breast_cancer"],
    "a number": ["model=mlp", "data=diabetes"],
    "texts": ["model=text_cnn", "data=python_lines", "data.limit=500"],
    "pixels": ["model=unet", "data=digits_segments", "data.limit=100"],
    "next characters": ["model=gpt_small", "data=python_docs", "trainer.limit_batches=2"],
    "reconstruction": ["model=autoencoder", "data=digits", "data.target=image"],
    "a written text": [
        "model=seq2seq", "data=random", "data.fields={source: {vocab_size: 50, length: 12}}",
        "data.targets={answer: {num_classes: 50, shape: [9]}}", "data.size=100",
    ],
}  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("task", TASKS)
def test_results_equal_those_of_training(dlspec, work: Path, task: str) -> None:
    said = dlspec(*TASKS[task], "trainer.max_steps=6", "trainer.progress=none", "hydra.run.dir=made", *QUIET)
    assert said.code == 0, said.err
    evaluated = dlspec("evaluate", "run=made", "resamples=100")
    assert evaluated.code == 0, evaluated.err
    (path,) = (work / "made/evaluations").glob("*.json")
    metrics = json.loads(path.read_text())["metrics"]
    expected = json.loads((work / "made/result.json").read_text())["test"]
    assert {f"test/{name}": each["value"] for name, each in metrics.items()} == expected
    assert all(each["low"] <= each["value"] <= each["high"] for each in metrics.values())
