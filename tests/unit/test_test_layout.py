"""Where tests stand: in the room that they test, alone, with what they share in tests/helpers."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from helpers.paths import TESTS

MODULES = sorted(TESTS.rglob("test_*.py"))
HELPERS = sorted((TESTS / "helpers").glob("*.py"))
UNIT_ROOMS = set(
    "language parts data network losses metrics optim training analysis plots runs report config jobs sweeps cli "
    "compat inference".split()
)
ROOMS = {"unit", "golden", "cli", "faults", "parity", "docs", "soak"}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield f"{node.module}.{node.names[0].name}"
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)


def test_nothing_imports_a_test_module() -> None:
    modules = {"conftest", *(each.stem for each in MODULES)}
    found = [
        f"{path}: {name}" for path in (*MODULES, *HELPERS) for name in imported(path) if modules & {*name.split(".")}
    ]
    assert found == []


def test_each_test_stands_in_a_room() -> None:
    places = [each.relative_to(TESTS).parts for each in MODULES]
    assert {parts[0] for parts in places} <= ROOMS
    assert {parts[1] for parts in places if parts[0] == "unit" and len(parts) == 3} <= UNIT_ROOMS
    assert [name for name, count in Counter(each.name for each in MODULES).items() if count > 1] == []


def test_helpers_hold_no_tests() -> None:
    for path in HELPERS:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        functions = [each.name for each in nodes if isinstance(each, ast.FunctionDef)]
        assert [name for name in functions if name.startswith("test_")] == [], path
