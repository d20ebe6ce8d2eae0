"""How long a run may be planned to take: checked before it starts, and raised only by a variable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.command_line import QUIET, CommandResult

Run = Callable[..., CommandResult]
WORDS = ("model=linear", "data=random", "data.size=320", "data.validation=0", "data.test=0", *QUIET)
LONG = "{type: StepLR, step_size: 1, warmup: 1000000001}"


@pytest.mark.parametrize(
    ("word", "key", "count"),
    [
        ("trainer.epochs=1e18", "epochs", "1,000,000,000,000,000,000"),
        ("trainer.epochs=1000001", "epochs", "1,000,001"),
        ("trainer.patience=1000001", "patience", "1,000,001"),
        *((f"trainer.{key}=1000000001", key, "1,000,000,001") for key in ("max_steps", "limit_batches", "accumulate")),
        ("trainer.checkpoint_steps=1000000001", "checkpoint_steps", "1,000,000,001"),
        (f"scheduler={LONG}", "warmup", "1,000,000,001"),
    ],
)
def test_a_count_with_zeros_too_many_is_refused(work: Path, dlspec: Run, word: str, key: str, count: str) -> None:
    said = dlspec(*WORDS, word)
    limit, variable = ("1,000,000", "EPOCHS") if key in ("epochs", "patience") else ("1,000,000,000", "STEPS")
    assert said.code == 2
    assert f"'{key}' is {count}, at most {limit} are allowed" in said.err
    assert f"set the environment variable DLSPEC_MAX_{variable}" in said.err
    assert not any(work.iterdir())


def test_the_steps_of_all_epochs_count(work: Path, dlspec: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLSPEC_MAX_STEPS", "19")
    words = (*WORDS, "trainer.batch_size=32", "trainer.epochs=2", "trainer.progress=none", "hydra.run.dir=run")
    refused = dlspec(*words)  # 320 samples in batches of 32: 10 steps in each of two epochs
    assert refused.code == 2
    assert "2 epochs of these data are 20 steps, at most 19 are allowed" in refused.err
    assert not any(work.iterdir())
    assert dlspec(*words, "trainer.max_steps=19").code == 0


def test_a_variable_raises_the_limit(work: Path, dlspec: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLSPEC_MAX_EPOCHS", "2000000")
    said = dlspec(*WORDS, "trainer.epochs=1500000", "trainer.max_steps=1", "trainer.progress=none")
    assert said.code == 0
