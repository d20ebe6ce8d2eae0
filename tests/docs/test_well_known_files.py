"""The settings of the table "Well-known files" in docs/data.md read files that are written as these data sets are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs" / "data.md"
ROWS = 56  # at most 50 different texts would be categories
TOXIC = "toxic,severe_toxic,obscene,threat,insult,identity_hate"
NEWS = ("rain in the north today", "a goal in extra time", "shares and oil rise again", "the new chip is small")


def repeat(line: Callable[[int], str], header: str = "") -> str:
    return "\n".join([header] * bool(header) + [line(row) for row in range(ROWS)]) + "\n"


def sentence(row: int) -> str:
    return f'EU NNP I-NP B-ORG\nrejects VBZ I-VP O\n" " O O\n{"German JJ I-NP B-MISC" + chr(10)}' * (1 + row % 3)


CONLL = "-DOCSTART- -X- -X- O\n\n" + repeat(sentence)
BEAT = repeat(lambda row: ",".join(f"{row * each % 7 / 7:.18e}" for each in range(1, 188)) + f",{row % 2:.18e}")
HAR = repeat(lambda row: "".join(f"{np.sin(row * each): 16.7e}" for each in range(1, 562)) + f" {1 + row % 3}")
AG_NEWS = repeat(lambda row: f'"{1 + row % 4}","A title","{NEWS[row % 4]} {row}"')
# By data set: the content of each file, and what `inspect` prints.
FILES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "Titanic": (
        {"train.csv": repeat(lambda row: f'{row + 1},{row % 3 // 2},3,"Braund, Mr. {row}",{row * 7 % 30},A/5 {row},,S',
                             "PassengerId,Survived,Pclass,Name,Age,Ticket,Cabin,Embarked")},
        ("2 classes, 0, 1", "number Age"),
    ),
    "Telco churn": (
        {"telco.csv": repeat(lambda row: f"{row:04}-QX,{row % 9},{' ' if row == 4 else row * 1.5},{'NY'[row % 2]}",
                             "customerID,tenure,TotalCharges,Churn")},
        ("number tenure, TotalCharges",),
    ),
    "Ames housing": (
        {"train.csv": repeat(lambda row: f"{row + 1},{'NA' if row % 3 else 'Grvl'},{row % 7},{90_000 + row * 37}",
                             "Id,Alley,OverallQual,SalePrice")},
        ("SalePrice: value", "category Alley"),
    ),
    "Wine quality": (
        {"winequality-red.csv": repeat(lambda row: f"{row * 0.1:.1f};{9 + row % 4};{4 + row % 3}",
                                       '"fixed acidity";"alcohol";"quality"')},
        ("delimiter semicolon", "3 classes, 4, 5, 6"),
    ),
    "Bike sharing": (
        {"train.csv": repeat(lambda row: f"2011-01-0{1 + row // 24} {row % 24:02}:00,{row % 5},9,{9 + row % 5}",
                             "datetime,casual,registered,count")},
        ("count: value", "date datetime"),
    ),
    "AG news": ({"train.csv": AG_NEWS, "test.csv": AG_NEWS}, ("4 classes, 1, 2, 3, 4", "text text")),
    "toxic comments": (
        {"train.csv": repeat(lambda row: f'{row:016x},"{NEWS[row % 4]}, ""{row}""",{row % 2},0,{row % 3 // 2},0,1,0',
                             f"id,comment_text,{TOXIC}")},
        ("6 labels, toxic, severe_toxic", "text comment_text"),
    ),
    "CoNLL-2003": ({"eng.train": CONLL, "eng.testa": CONLL, "eng.testb": CONLL}, ("ner: tags", "text word")),
    "heartbeats (MIT-BIH)": ({"mitbih_train.csv": BEAT, "mitbih_test.csv": BEAT}, ("188 columns", "beat: 2 classes")),
    "human activity (UCI HAR)": ({"train.txt": HAR}, ("562 columns", "3 classes, 1, 2, 3")),
}  # fmt: skip


def list_settings() -> dict[str, str]:
    """List the settings in the table, by data set."""
    section = DOCS.read_text().split("### Well-known files")[1].split("\n#")[0]
    rows = re.findall(r"^\| (.+?) \| .* \| `(data\..*)` \|$", section, re.M)
    return dict(rows)


def test_each_row_is_tested() -> None:
    assert list(list_settings()) == list(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_settings_read_the_file(name: str, dlspec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files, expected = FILES[name]
    for file, content in files.items():
        (tmp_path / file).write_text(content)
    found = dlspec("inspect", "data=table", *shlex.split(list_settings()[name]))
    assert found.code == 0, found.err
    assert all(each in found.out for each in expected), found.out
    assert re.search("train: python -m dlspec '?model=", found.out)
