"""The command `export`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.churn_table import train_churn_run
from helpers.command_line import CommandResult

Command = Callable[..., CommandResult]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield train_churn_run(folder)


def test_what_was_exported_and_checked_is_printed(run: Path, work: Path, dlspec: Command) -> None:
    said = dlspec("export", f"run={run}", "output=churn.pt2")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "churn.pt2: pt2" and "  returns churned.probabilities, churned.index" in lines
    assert "  takes age: float32 (batch), a number; NaN where missing" in lines
    assert lines[-1].startswith("  checked: 64 random rows, as the run's data can't be read again")
    assert [each.name for each in work.iterdir()] == ["churn.pt2"]


def test_the_weights_come_with_their_preparation(run: Path, work: Path, dlspec: Command) -> None:
    said = dlspec("export", f"run={run}", "output=churn.safetensors")
    assert said.code == 0 and "all tensors are equal to the run's" in said.out
    assert set(json.loads((work / "churn.prepare.json").read_text())["columns"]) == {"age", "country", "income"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no output is given; write for example python -m dlspec export run=latest output=model.onnx"),
        (["output=model"], "the output 'model' does not say its format; end it in .onnx, .pt2 or .safetensors"),
        (["output=m.pt2", "format=onxx"], "unknown format 'onxx'; did you mean 'onnx'?"),
        (["output=a/m.pt2"], "no folder 'a' for the output 'm.pt2'; create it, or name another file"),
        (["output=m.safetensors", "prepare=false"], "prepare has no effect on format=safetensors"),
        (["output=m.pt2", "data.path=x.csv"], "data.path has no effect on an export; leave it out"),
    ],
)
def test_wrong_words(run: Path, work: Path, dlspec: Command, words: list[str], message: str) -> None:
    said = dlspec("export", f"run={run}", *words)
    assert said.code == 2 and said.err.startswith(message)
    assert not list(work.iterdir())
