"""What the tests of the command line share: a folder to work in, and the program called in this process."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

QUICK = "trainer.max_steps=2 trainer.limit_batches=2 trainer.curves=false trainer.tensorboard=false".split()


class Said(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def dlspec(work: Path) -> Callable[..., Said]:
    """`python -m dlspec WORDS` in this process."""
    from dlspec.__main__ import run as main

    def call(*words: str) -> Said:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(words)
        return Said(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture
def write(work: Path) -> Callable[[str, str], Path]:
    """Writes a file below the working directory."""

    def put(name: str, text: str) -> Path:
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return put
