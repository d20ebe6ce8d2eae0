"""The cases of tests/golden/wrong_specs/: a command line, the files of a project, and what stderr says."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.paths import ROOT

WRONG_SPECS = ROOT / "tests" / "golden" / "wrong_specs"
SAYS = "says"


@dataclass(frozen=True)
class Case:
    """One case: its file and title, the words of the command line, the project's files by path, and the message."""

    file: Path
    title: str
    words: tuple[str, ...]
    files: dict[str, str]
    message_has: str

    def __str__(self) -> str:
        return f"{self.file.stem}-{self.title}".replace(" ", "_")


def read_cases() -> list[Case]:
    """Read all cases, in the order of the files."""
    return [case for path in sorted(WRONG_SPECS.glob("*.txt")) for case in read_file(path)]


def read_file(path: Path) -> Iterator[Case]:
    """Read the cases of one file."""
    for chunk in path.read_text(encoding="utf-8").split("===== ")[1:]:
        head, *sections = ("\n" + chunk.rstrip("\n") + "\n").split("\n--- ")
        title, command = head.strip().split("\n$ dlspec ")
        texts = dict(each.split("\n", 1) for each in sections)
        yield Case(path, title, tuple(shlex.split(command)), texts, texts.pop(SAYS, ""))


def write_case(case: Case, says: str) -> None:
    """Replace the case's message in its file."""
    *before, chunk = case.file.read_text(encoding="utf-8").partition(f"===== {case.title}\n")
    mine, separator, after = chunk.partition("\n===== ")
    kept = mine.split(f"\n--- {SAYS}\n")[0].rstrip("\n")
    case.file.write_text("".join([*before, f"{kept}\n--- {SAYS}\n{says}", separator, after]), encoding="utf-8")


def write_files(files: dict[str, str], folder: Path) -> None:
    """Write the files of a project into a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
