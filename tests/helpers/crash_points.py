"""Processes that are killed just before one of their file operations."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.command_line import MAX_WAIT_SECONDS, CommandResult, run_in_this_process

KILLED, BROKEN = 77, 99
CHANGING_EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.link", "os.symlink"}
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class OperationCounter:
    """An audit hook that counts the operations that change files below a folder, and ends the process before one.

    Args:
        root: the folder.
        last: the number of the operation before which the process ends, from 1; None for none.
        is_torn: whether a file that this operation opens for writing is left with half of a line.
    """

    def __init__(self, root: Path, last: int | None = None, *, is_torn: bool = False) -> None:
        self.root, self.last, self.is_torn = str(root), last, is_torn
        self.operations: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        is_write = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & WRITE_FLAGS)
        if not is_write and event not in CHANGING_EVENTS:
            return
        path = arguments[1] if event == "os.rename" else arguments[0]
        if isinstance(path, int) or path is None:
            path = self.root if event == "os.truncate" else ""  # dlspec truncates only files of its run by number
        path = str(Path.cwd() / os.fsdecode(path)) if path else ""
        if not path.startswith(self.root):
            return
        self.operations.append(f"{event} {os.path.relpath(path, self.root)}")
        if len(self.operations) == self.last:
            if self.is_torn and is_write:
                tear(path, arguments[2])
            os._exit(KILLED)


def tear(path: str, flags: int) -> None:
    """Write half of a line to a file, as a process that is killed while it writes."""
    if not Path(path).is_dir():
        kept = flags & (os.O_TRUNC | os.O_APPEND)
        os.write(os.open(path, kept | os.O_CREAT | os.O_WRONLY, 0o666), b'{"epoch": 1, "st')


def call_in_child(action: Callable[[], int]) -> int:
    """Fork, call `action` in the child, and return its exit code, which `action` returns.

    A child that hangs, as one that was forked while another thread held a lock may do, is ended by SIGALRM.
    """
    child = os.fork()
    if child == 0:
        signal.alarm(MAX_WAIT_SECONDS)
        code = BROKEN
        try:
            code = action()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def list_operations(work: Path, *words: str) -> list[str]:
    """Run a command in a child to its end, and return the file operations that it made below `work`."""
    reader, writer = os.pipe()

    def run() -> int:
        counter = prepare(work)
        code = run_in_this_process(*words).code
        os.write(writer, "\n".join(counter.operations).encode())
        return code

    code = call_in_child(run)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        operations = pipe.read().decode().split("\n")
    assert code == 0, f"{words} ended with code {code}"
    return operations


def run_until(work: Path, operation: int, *words: str, is_torn: bool = False) -> int:
    """Run a command in a child that is killed before an operation, counted from 1; return its exit code."""

    def run() -> int:
        prepare(work, operation, is_torn=is_torn)
        return run_in_this_process(*words).code

    return call_in_child(run)


def run_to_end(*words: str) -> CommandResult:
    """Run a command in a child, and return how it ended."""
    reader, writer = os.pipe()

    def run() -> int:
        said = run_in_this_process(*words)
        os.write(writer, said.err.encode()[-4000:])
        return said.code

    code = call_in_child(run)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        return CommandResult(code, "", pipe.read().decode())


def prepare(work: Path, last: int | None = None, *, is_torn: bool = False) -> OperationCounter:
    """Count the operations of this process, which writes its checkpoints in one thread: so their order is fixed."""
    from dlspec.training.callbacks.checkpoints import BackgroundWriter

    pytest.MonkeyPatch().setattr(BackgroundWriter, "start", lambda self, action: self._run(action))
    counter = OperationCounter(work, last, is_torn=is_torn)
    sys.addaudithook(counter)
    return counter
