"""The tutorial of docs/predict.md: its commands run in their order, and print what the page shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from helpers.command_line import QUICK, CommandResult
from helpers.docs_examples import read_doc

PAGE = read_doc("predict.md")
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def test_the_page_runs_as_written(dlspec: Callable[..., CommandResult], work: Path) -> None:
    names: dict[str, object] = {}
    printed = ""
    for block in BLOCK.finditer(PAGE.split("## Evaluating")[0]):
        if block[1] == "python":
            exec(compile(block[2], "predict.md", "exec"), names)
            continue
        for line in block[2].splitlines():
            words = shlex.split(line)[3:]
            said = dlspec(*words, *(QUICK if words[0] != "predict" else []))
            assert said.code == (3 if "damaged" in line else 0), said.err
            printed += said.out + said.err
    assert "predictions.csv: 69 rows\n" in printed
    assert "\n    damaged.csv:3: 32 cells, but the header has 31\n" in printed
    assert list(pd.read_csv("predictions.csv")) == ["patient", "benign", "benign.yes"]
    assert list(pd.read_csv("answers.csv")) == ["patient", "benign"]
    assert pd.read_json("strict.jsonl", lines=True)["patient"].tolist()[0] == "p500"
    assert pd.read_csv("damaged_answers.csv")["problem"].count() == 1
    assert pd.read_csv("comma.csv").equals(pd.read_csv("predictions.csv"))
