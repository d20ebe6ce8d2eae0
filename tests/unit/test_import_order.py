"""One direction, no circle: what stands later may import what stands earlier, never the other way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.paths import ROOT

PACKAGE = ROOT / "dlspec"
ORDER = (
    "errors limits text layouts compat spec runs report layers registry data building reading training preparing "
    "config jobs sweeps app python_spec api cli __main__"
).split()
FILES = sorted(PACKAGE.rglob("*.py"))


def place(module: str) -> str:
    """The part of the package that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports from the top"
            module = node.module or ""
            yield from (f"dlspec.{each.name}" for each in node.names) if module == "dlspec" else [module]
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)


def test_every_part_has_its_place() -> None:
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert parts - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_what_stands_earlier(path: Path) -> None:
    mine = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if mine == "__init__":
        return  # it names the public face, and imports it when it is asked for
    used = {place(each) for each in imported(path) if each.split(".")[0] == "dlspec"}
    later = {each for each in used if each and ORDER.index(each) > ORDER.index(mine)}
    assert not later, f"{mine} imports {', '.join(sorted(later))}"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["summary", "--help"], ["--version"]], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys; from dlspec.cli.main import run as main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'hydra', 'omegaconf', 'pydantic', 'numpy', 'rich'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "dlspec" in done.stdout
