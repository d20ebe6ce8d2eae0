"""What the tests of the command line share: a folder to work in, and the program called in this process."""

from __future__ import annotations

import importlib
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from helpers.command_line import Said

# One thread a test process, before PyTorch is imported: two of them on two cores wait for nobody, and a run in this one
# equals another's to the last bit, which has one thread too.
os.environ["OMP_NUM_THREADS"] = "1"

# Where pytest runs in the background of a shell script it has been started with SIGINT ignored, and what the tests
# start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _parts_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it, or errors of later tests would count it among the choices."""
    importlib.import_module("dlspec.reading")  # registers what is dlspec's own
    from dlspec.data.source import SOURCES
    from dlspec.registry.torch_parts import LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS

    for registry in (LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS):
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
        monkeypatch.setattr(registry, "_schemas", dict(registry._schemas))
    known = dict(SOURCES)
    yield
    SOURCES.clear()
    SOURCES.update(known)


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
