"""One process trains in a folder, and the lock of one that was killed is free, whatever lives on of it."""

from __future__ import annotations

import errno
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dlspec.errors import UserError
from dlspec.runs import lock as run_lock
from dlspec.runs.file_names import LOCK_FILE
from dlspec.runs.lock import is_run_locked, lock_run_folder
from helpers.command_line import make_environment

# Holds the lock; a fork, a worker of multiprocessing and a program that it started live longer than itself.
HOLDER = """
import multiprocessing, os, subprocess, sys, time
from pathlib import Path
from dlspec.runs.lock import lock_run_folder

with lock_run_folder(Path.cwd()):
    forked = os.fork()
    if not forked:
        time.sleep(60)
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    program = subprocess.Popen(["sleep", "60"], close_fds=False)
    print(forked, worker.pid, program.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_frees_the_lock_though_children_live(work: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, env=make_environment())
    assert holder.stdout is not None
    children = [int(each) for each in holder.stdout.readline().split()]
    try:
        assert is_run_locked(work)
        with (
            pytest.raises(UserError, match=rf"is in use: process {holder.pid} on \S+ trains there; wait"),
            lock_run_folder(work),
        ):
            pass
        holder.kill()
        holder.wait()
        assert is_run_locked(work) is False
        for child in children:
            os.kill(child, 0)  # raises where it is gone: then nothing was tested
    finally:
        holder.kill()
        for child in children:
            os.kill(child, 9)
        holder.stdout.close()


def test_the_lock_is_free_again_when_the_training_is_over(tmp_path: Path) -> None:
    assert is_run_locked(tmp_path) is False
    for _ in range(2):
        with lock_run_folder(tmp_path):
            assert is_run_locked(tmp_path)
        assert is_run_locked(tmp_path) is False


def test_who_only_asks_keeps_nobody_from_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LOCK_FILE).touch()
    asking = os.open(tmp_path / LOCK_FILE, os.O_RDONLY)
    run_lock._lock(asking, is_shared=True)
    monkeypatch.setattr("time.sleep", lambda _: os.close(asking))
    with lock_run_folder(tmp_path):
        assert is_run_locked(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, is_shared: bool) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_lock, "_lock", refuse)
    with caplog.at_level(logging.WARNING), lock_run_folder(tmp_path):
        assert is_run_locked(tmp_path) is None
    told = f"{tmp_path} can't be locked: do not start a second process that trains in it"
    assert [each.message for each in caplog.records] == [told]


def _link(path: Path) -> None:
    (path.parent / "precious").write_text("mine")
    path.symlink_to("precious")


@pytest.mark.parametrize("make", [_link, Path.mkdir])
def test_what_is_no_lock_is_refused_and_left_as_it_is(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / LOCK_FILE)
    with pytest.raises(OSError, match=re.escape(f"{tmp_path / LOCK_FILE}")), lock_run_folder(tmp_path):
        pass
    assert not (tmp_path / "precious").exists() or (tmp_path / "precious").read_text() == "mine"
