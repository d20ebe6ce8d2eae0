"""The model that `inspect` suggests builds on the data, and the settings that it suggests work as printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dlspec as library
from dlspec.data.dataset import Dataset, Field, Split, Target
from dlspec.data.inspection.model_suggestion import TAGGER, suggest_model

WORDS = ["good", "game", "oil", "price", "rises", "again", "team"]


@pytest.fixture
def comments(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({
        "note": [" ".join(generator.choice(WORDS, 5)) for _ in range(60)],
        "likes": generator.integers(0, 90, 60), "hit": generator.integers(0, 2, 60),
        "insult": generator.integers(0, 2, 60),
    })  # fmt: skip
    frame.to_csv(tmp_path / "comments.csv", index=False)
    return tmp_path / "comments.csv"


def find_command(printed: str) -> list[str]:
    """Return the arguments of the printed command that trains."""
    (line,) = re.findall(r"train: python -m dlspec (.*)", printed)
    return shlex.split(line)


def test_a_table_with_texts_gets_a_command_without_them(dlspec: Any, comments: Path) -> None:
    printed = dlspec(
        "inspect", "data=table", f"data.path={comments}", "data.target=hit", "data.columns={likes: number}"
    )
    assert "several inputs (features, note)" in printed.out
    command = find_command(printed.out)
    assert "data.columns={note: null}" in command
    summary = dlspec("summary", *command)
    assert summary.code == 0 and "(2) features" in summary.out  # likes and insult


def test_targets_of_yes_and_no_are_suggested_as_labels(dlspec: Any, comments: Path) -> None:
    given = ["data=table", f"data.path={comments}", "data.only=[note]"]
    printed = dlspec("inspect", *given, "data.target=[hit, insult]").out
    (setting,) = re.findall(r"they can be labels: '(.*)'", printed)
    command = find_command(dlspec("inspect", *given, setting).out)
    assert dlspec("summary", *command).code == 0
    assert "they can be labels" not in dlspec("inspect", *given, "data.target=[hit, likes]").out


def test_tags_get_a_model_with_an_output_for_each_step(dlspec: Any, tmp_path: Path) -> None:
    lines = [f"{word} {'N' if at % 2 else 'V'}" + "\n" * (1 + at % 4 // 3) for at, word in enumerate(WORDS * 20)]
    (tmp_path / "tags.conll").write_text("\n".join(lines))
    printed = dlspec("inspect", "data=table", f"data.path={tmp_path / 'tags.conll'}", "data.target={column_2: tags}")
    command = find_command(printed.out)
    assert command[0] == f"model={TAGGER}"
    assert dlspec("summary", *command).code == 0


TEXT, IMAGE = Field("text", (12,), "tokens", 50), Field("image", (1, 16, 16), "channels-first")
SUGGESTED = [
    (IMAGE, Target("digit", "classes", (), ("0", "1", "2")), "cnn"),
    (IMAGE, Target("map", "classes", (16, 16), ("0", "1", "2")), "unet"),
    (Field("image", (1, 8, 8), "channels-first"), Target("map", "classes", (8, 8), ("0", "1", "2")), ""),
    (TEXT, Target("next", "classes", (12,), tuple(map(str, range(50))), next_of="text"), "gpt_small"),
    (TEXT, Target("kinds", "numbers", (2,), labels=("a", "b")), "text_cnn"),
    (Field("load", (24, 3), "sequence"), Target("next", "numbers"), ""),
]


@pytest.mark.parametrize(("field", "target", "model"), SUGGESTED)
def test_the_model_fits_the_target(field: Field, target: Target, model: str) -> None:
    empty = Split({}, {})
    found = suggest_model(Dataset("mine", (field,), (target,), empty, empty, empty))
    assert found.model == model
    assert bool(found.obstacle) is not bool(model)
    if model:
        fields = {"vocab_size": field.vocab_size, "length": 12} if field.vocab_size else {"shape": list(field.shape)}
        targets: dict[str, Any] = {"num_classes": len(target.classes)} if target.classes else {}
        targets |= {"shape": list(target.shape)} if target.shape else {}
        targets = {"next_of": "text"} if target.next_of else targets
        data = {"type": "random", "fields": {field.name: fields}, "targets": {target.name: targets}}
        assert library.build({"model": model}, data=data)
