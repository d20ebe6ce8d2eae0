"""The tutorial of docs/text.md: its commands run on a file of such messages, and its settings are taken."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import dlspec as library
from dlspec.config.composition import compose
from dlspec.data.sources import SOURCES, open_data
from helpers.command_line import QUICK, CommandResult
from helpers.docs_examples import read_doc

PAGE = read_doc("text.md")
WORDS = [shlex.split(line) for line in re.findall(r"^python -m dlspec .*$", PAGE, flags=re.MULTILINE)]
ROWS_OF_TABLE = re.findall(r"^\| [^|]+ \| (`.*`) \|$", PAGE, flags=re.MULTILINE)
ARGUMENTS = [shlex.split(each)[0] for row in ROWS_OF_TABLE for each in re.findall(r"`([^`]+)`", row)
             if not each.startswith("pip")]  # fmt: skip


def write_messages(path: Path) -> None:
    ham = [f"see you at {row % 12}, bring the {row} keys, ok" for row in range(150)]
    spam = [f'WINNER! call {row}00 now, a free "prize" is yours' for row in range(30)]
    frame = pd.DataFrame({"label": ["ham"] * len(ham) + ["spam"] * len(spam), "text": ham + spam})
    frame.sample(frac=1, random_state=0).to_csv(path, index=False)


def test_the_commands_run_as_written(dlspec: Callable[..., CommandResult], work: Path) -> None:
    write_messages(Path("messages.csv"))
    assert [words[3] for words in WORDS] == ["inspect", "model=text_cnn", "-m"]
    inspected = dlspec(*WORDS[0][3:])
    assert inspected.code == 0 and "spam is positive" in inspected.out, inspected.err
    assert "train: python -m dlspec model=text_cnn data=messages" in inspected.out
    trained = dlspec(*WORDS[1][3:], *QUICK)
    assert trained.code == 0, trained.err
    model = library.predictor(next(Path("runs").glob("2*/*")))
    found = model.predict([{"text": "WINNER!! You have won a free ticket, call now"}, {"text": "See you at lunch?"}])
    assert list(found.columns) == ["row", "label", "label.spam"]


@pytest.mark.soak
def test_the_sweep_runs_as_written(dlspec: Callable[..., CommandResult], work: Path) -> None:
    write_messages(Path("messages.csv"))
    dlspec(*WORDS[0][3:])
    swept = dlspec(*WORDS[2][3:], *QUICK, "hydra/launcher=dlspec")
    assert swept.code == 0, swept.err
    assert len(pd.read_csv("runs/messages/leaderboard.csv")) == 4


def test_the_settings_of_the_table_are_taken(work: Path, write: Callable[[str, str], Path]) -> None:
    write_messages(Path("messages.csv"))
    write("conf/data/messages.yaml", "type: table\npath: messages.csv\ntarget: {label: class}\ncolumns: {text: text}\n")
    assert len(ARGUMENTS) == 8
    for argument in ARGUMENTS:
        settings = dict(compose(["data=messages", argument]).tree["data"])
        if argument.startswith("data.") and "bpe" not in argument:
            data = open_data(SOURCES[settings.pop("type")](**settings))
            assert [each.name for each in data.fields] == ["text"]
