"""The tutorial of docs/tabular.md: its commands run in their order, and `inspect` prints what the page shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from helpers.command_line import QUICK, CommandResult
from helpers.docs_examples import find_examples, read_doc

PAGE = read_doc("tabular.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
PYTHON, INLINE = [found[2] for found in BLOCK.finditer(PAGE) if found[1] == "python"], "hydra/launcher=dlspec"


def find_commands() -> Iterator[tuple[list[str], str]]:
    """Find each command with the text that the page shows below it, '' for none."""
    blocks = list(BLOCK.finditer(PAGE))
    for block, after in pairwise(blocks):
        if block[1] != "bash":
            continue
        lines = block[2].splitlines()
        for line in lines:
            shown = after[2] if after[1] == "text" and line is lines[-1] else ""
            yield shlex.split(line)[3:], shown


def run_page(dlspec: Callable[..., CommandResult], words: list[str]) -> CommandResult:
    if words[0] in ("inspect", "report"):
        return dlspec(*words)
    words = [word.replace("data.fold=0,1,2,3,4", "data.fold=0,4") for word in words]
    return dlspec(*words, *QUICK, *([INLINE] if words[0] == "-m" else []))


@pytest.mark.soak  # 22 s
def test_the_commands_run_as_written(
    dlspec: Callable[..., CommandResult], work: Path, write: Callable[[str, str], Path]
) -> None:
    names: dict[str, object] = {}
    exec(compile(PYTHON[0], "tabular.md", "exec"), names)
    (selected,) = find_examples("tabular.md", PAGE)
    write("conf/data/selected.yaml", selected.text)
    found = list(find_commands())
    assert len(found) == 9 and {words[0] for words, _ in found} == {"inspect", "report", "model=mlp", "-m"}
    for words, shown in found:
        said = run_page(dlspec, words)
        assert said.code == 0, said.err
        if words[0] == "inspect" and shown:
            assert [line for line in shown.splitlines() if line not in said.out.splitlines()] == ["..."]
    assert len(pd.read_csv("runs/tumours/leaderboard.csv")) == 4
    assert pd.read_csv("runs/folds/leaderboard.csv")["finished"].tolist() == [2, 2]
    exec(compile(PYTHON[1], "tabular.md", "exec"), names)
    training = PYTHON[2].replace('"epochs": 10', '"max_steps": 2, "progress": "none"')
    exec(compile(training, "tabular.md", "exec"), names)
