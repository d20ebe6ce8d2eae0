"""What the tests of the command line share: a folder to work in, and the program called in this process."""

from __future__ import annotations

import gc
import importlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from dlspec import progress_lines
from dlspec.compat.torchmetrics import skip_plot_imports
from dlspec.parts.registry import Registry
from helpers.command_line import MAX_WAIT_SECONDS, CommandResult, run_in_this_process

# One thread a test process, before PyTorch is imported: two of them on two cores wait for nobody, and a run in this one
# equals another's to the last bit, which has one thread too.
os.environ["OMP_NUM_THREADS"] = "1"

# Where pytest runs in the background of a shell script it has been started with SIGINT ignored, and what the tests
# start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# As in the program: torchmetrics without what it imports for its plots alone takes 0.3 s in place of 3.6.
skip_plot_imports()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Import what most tests need, before they are collected; the process that only hands out tests does without."""
    if session.config.getoption("dist", "no") != "no" and not hasattr(session.config, "workerinput"):
        return
    importlib.import_module("dlspec.parts.torch.torch_metrics").metric_registry()
    # No test fails for how long it takes: on a busy machine that says nothing.
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")
    # As in the program, the garbage collector leaves alone what importing made: looking at it takes 0.4 s each time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session", autouse=True)
def _use_empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests keep no images and statistics in the user's cache, and find none there; downloads are linked."""
    from dlspec.data.files.download import find_cache_folder

    downloads, folder = find_cache_folder("mnist"), tmp_path_factory.mktemp("cache")
    if downloads.is_dir():
        (folder / "mnist").symlink_to(downloads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLSPEC_CACHE", str(folder))
        yield


@pytest.fixture(scope="session", autouse=True)
def _wait_for_no_disk() -> Iterator[None]:
    """What tests write need not outlive a power failure: a small run would wait a dozen times, some ms each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses what is no file, too
        yield


@pytest.fixture(scope="session", autouse=True)
def _show_no_progress() -> Iterator[None]:
    """No command says how far it is because the machine is busy: tests compare all that it says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress_lines, "SECONDS_BEFORE_FIRST", MAX_WAIT_SECONDS)
        yield


@pytest.fixture(scope="session")
def _registries() -> Sequence[Registry[Any]]:
    importlib.import_module("dlspec.jobs.spec_reading")  # registers what is dlspec's own
    from dlspec.data.sources.source import SOURCES
    from dlspec.parts.torch.torch_parts import LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS

    return LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS, SOURCES


@pytest.fixture(autouse=True)
def _restore_registries(_registries: Sequence[Registry[Any]]) -> Iterator[None]:
    """What a test registers is gone after it, or errors of later tests would count it among the choices.

    The schemas of all other parts stay: making one takes 0.3 ms.
    """
    before = [dict(each._classes) for each in _registries]
    yield
    for registry, classes in zip(_registries, before, strict=True):
        if registry._classes != classes:
            changed = {name for name, each in registry._classes.items() if classes.get(name) is not each}
            registry._classes = classes
            registry._described = {name: each for name, each in registry._described.items() if name not in changed}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def dlspec(work: Path) -> Callable[..., CommandResult]:
    """`python -m dlspec WORDS` in this process."""
    return run_in_this_process


@pytest.fixture
def composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Python, Hydra composes the same config once in a test: that takes most of the time of a small run."""
    from dlspec.jobs import python_spec

    compose = python_spec.compose_or_raise
    composed: dict[tuple[str, ...], Any] = {}

    def compose_once(overrides: Sequence[str], hydra: Any) -> Any:
        key = tuple(overrides)
        if key not in composed:
            composed[key] = compose(overrides, hydra)
        return composed[key]

    monkeypatch.setattr(python_spec, "compose_or_raise", compose_once)


@pytest.fixture
def write(work: Path) -> Callable[[str, str], Path]:
    """Writes a file below the working directory."""

    def write_file(name: str, text: str) -> Path:
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file
