"""An argument that a message prints, typed in a shell and read by Hydra, sets the value that was meant."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from dlspec.config.overrides import parse_overrides
from dlspec.formatting import format_argument

VALUES: list[Any] = [
    ";", "\t", "*.csv", "my file.csv", "it's", 'say "no"', "back\\slash", "größe", "$HOME", "a, b", "null", "1e3", "",
    3, 0.5, True, None, [], ["a", "b_2"], ["first name", "c,d", 3], {"old.*": None}, {"a b": ["c", "d*"]},
    {"text (de)": {"value": {"scale": "none"}}}, {"k=v": "x:y"},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_shell_and_hydra_read_the_value_that_was_printed(value: Any) -> None:
    (word,) = shlex.split(format_argument("data.setting", value))
    (override,) = parse_overrides([word])
    assert override.key_or_group == "data.setting"
    assert override.value() == value


def test_words_that_a_shell_leaves_alone_are_printed_without_quotes() -> None:
    assert format_argument("trainer.epochs", 3) == "trainer.epochs=3"
    assert format_argument("data.encoding", "utf-16") == "data.encoding=utf-16"
