"""What dlspec says to wrong specs and command lines, word for word.

The cases and texts stand in tests/golden/wrong_specs/. A case is a title, a command line, the files of a project, and
what stderr says (CONF is dlspec's own conf/):

    ===== a misspelled setting
    $ dlspec validate model=m
    --- conf/model/m.yaml
    layers:
      - Linear: {out_featurs: 10}
    --- says
    conf/model/m.yaml:2:14   ...

After a change of the words, `WRONG_SPECS=write pytest tests/golden/test_wrong_specs.py` writes every text anew; read
the difference as a newcomer would before committing it.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dlspec.cli.main import EXIT_INVALID
from dlspec.cli.main import run_command as main
from dlspec.config.conf_files import find_packaged_conf

FOLDER = Path(__file__).parent / "wrong_specs"
SAYS = "says"


@dataclass(frozen=True)
class Case:
    file: Path
    title: str
    words: tuple[str, ...]
    files: dict[str, str]
    message_has: str

    def __str__(self) -> str:
        return f"{self.file.stem}-{self.title}".replace(" ", "_")


def read_cases() -> list[Case]:
    return [case for path in sorted(FOLDER.glob("*.txt")) for case in read_file(path)]


def read_file(path: Path) -> Iterator[Case]:
    for chunk in path.read_text(encoding="utf-8").split("===== ")[1:]:
        head, *sections = ("\n" + chunk.rstrip("\n") + "\n").split("\n--- ")
        title, command = head.strip().split("\n$ dlspec ")
        texts = dict(each.split("\n", 1) for each in sections)
        yield Case(path, title, tuple(shlex.split(command)), texts, texts.pop(SAYS, ""))


def write_case(case: Case, says: str) -> None:
    """Replaces the case's text in its file."""
    *before, chunk = case.file.read_text(encoding="utf-8").partition(f"===== {case.title}\n")
    mine, separator, after = chunk.partition("\n===== ")
    kept = mine.split(f"\n--- {SAYS}\n")[0].rstrip("\n")
    case.file.write_text("".join([*before, f"{kept}\n--- {SAYS}\n{says}", separator, after]), encoding="utf-8")


@pytest.mark.parametrize("case", read_cases(), ids=str)
def test_says_exactly(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in case.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    code = main(list(case.words))
    says = capsys.readouterr().err.replace(str(tmp_path), "FOLDER").replace(str(find_packaged_conf()), "CONF")
    if os.environ.get("WRONG_SPECS") == "write":
        write_case(case, says)
        return
    assert says == case.message_has
    assert code == EXIT_INVALID
    assert sorted(tmp_path.rglob("*")) == before, "a refused spec must leave nothing behind"


def test_titles_are_unique_and_cases_many() -> None:
    cases = read_cases()
    assert len({str(case) for case in cases}) == len(cases) >= 80
