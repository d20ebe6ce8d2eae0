"""The syntax trees of dlspec's own files, parsed once a process and only where a test asks for them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from helpers.paths import ROOT

PACKAGE = ROOT / "dlspec"
FILES = sorted(PACKAGE.rglob("*.py"))


@cache
def parse_package() -> Mapping[Path, ast.Module]:
    """The tree of each file of dlspec."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
