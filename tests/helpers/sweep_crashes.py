"""Sweeps of which all processes, or one of them, are killed just before a file operation in the sweep's folder."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import pytest

from helpers.command_line import MAX_WAIT_SECONDS, CommandResult, run_in_this_process

Victims = Literal["all", "sweep", "job"]
"""Which processes are killed: all at once, the sweep's own (those of its jobs notice, save and end), or a job's."""

# Without os.chmod: dlspec calls it only for a temporary file, just before it renames that.
CHANGING_EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
BROKEN = 99


class OperationCounter:
    """An audit hook that counts the file operations below a folder, of this process and those that it forks.

    Args:
        folder: the folder.
        last: the number of the operation before which processes are killed, from 1; None for none.
        victims: which processes.
        log: file to which a line is appended for each operation; None for none.
    """

    def __init__(self, folder: Path, last: int | None, victims: Victims, log: Path | None) -> None:
        self.folder, self.last, self.victims, self.log = str(folder), last, victims, log
        self.main = os.getpid()
        self.count = multiprocessing.get_context("fork").Value("i", 0)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        is_write = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & WRITE_FLAGS)
        path = _find_path(event, arguments) if is_write or event in CHANGING_EVENTS else ""
        if path != self.folder and not path.startswith(self.folder + "/"):
            return
        is_mine = self.victims != "job" or os.getpid() != self.main
        with self.count:
            self.count.value += is_mine
            is_last = is_mine and self.count.value == self.last
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{event} {os.path.relpath(path, self.folder)}\n")
        if is_last:
            self._kill()

    def _kill(self) -> None:
        if self.victims == "all":
            os.killpg(0, signal.SIGKILL)
        os.kill(self.main if self.victims == "sweep" else os.getpid(), signal.SIGKILL)


def _find_path(event: str, arguments: tuple[Any, ...]) -> str:
    """Return the absolute path that an operation changes."""
    path = arguments[1] if event == "os.rename" else arguments[0]
    folder = arguments[-1] if event in ("os.remove", "os.rmdir") else -1  # as a descriptor: `shutil.rmtree` gives one
    if isinstance(path, int):
        return str(Path(f"/proc/self/fd/{path}").readlink())
    root = Path(f"/proc/self/fd/{folder}").readlink() if isinstance(folder, int) and folder >= 0 else Path.cwd()
    return os.path.normpath(root / os.fsdecode(path))


def fork_group(action: Callable[[], int]) -> int:
    """Fork a child, the first of a new process group, that calls `action` and ends with its result; return its id."""
    child = os.fork()
    if child == 0:
        signal.alarm(MAX_WAIT_SECONDS)
        code = BROKEN
        try:
            os.setpgid(0, 0)
            code = action()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    with suppress(PermissionError, ProcessLookupError):  # the child may have done it, or be gone
        os.setpgid(child, child)
    return child


def wait_for_group(child: int) -> int:
    """Wait until the whole group has ended, maybe later than its first process; return that one's exit code."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    end = time.monotonic() + MAX_WAIT_SECONDS
    with suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(child, 0)
            time.sleep(0.01)
        raise AssertionError("a job's process did not end")
    return code


def run_until(
    folder: Path, operation: int | None, *words: str, victims: Victims = "all", log: Path | None = None
) -> CommandResult:
    """Run a command whose processes are killed before an operation in the folder; return how it ended.

    Args:
        folder: the sweep's folder.
        operation: the operation's number, from 1; None lets the command end.
        words: the command.
        victims: which processes are killed.
        log: file to which the operations are written.
    """
    said = folder.parent / "said.txt"
    said.write_text("")

    def run() -> int:
        _fork_job_processes()
        sys.addaudithook(OperationCounter(folder, operation, victims, log))
        result = run_in_this_process(*words)
        said.write_text(result.out + result.err)
        return result.code

    code = wait_for_group(fork_group(run))
    return CommandResult(code, said.read_text(), "")


def kill_after(seconds: float, has_started: Callable[[], bool], *words: str) -> bool:
    """Kill all processes of a command some seconds after it has started to train; return whether it still ran.

    Args:
        seconds: how long it may train.
        has_started: whether it has started.
        words: the command.
    """

    def run() -> int:
        _fork_job_processes()
        return run_in_this_process(*words).code

    child = fork_group(run)
    end = time.monotonic() + MAX_WAIT_SECONDS
    while not has_started() and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return wait_for_group(child) == -signal.SIGKILL


def _fork_job_processes() -> None:
    """Fork the processes of jobs from this one: they have its audit hook. Checkpoints are written in one thread."""
    from dlspec.sweeps.executors import process_executor
    from dlspec.training.callbacks.checkpoints import BackgroundWriter

    serve = process_executor._serve_tasks

    def close_and_serve(connection: Connection, *arguments: Any) -> None:
        for each in gc.get_objects():  # the ends of the sweep's process, or a job's process would not notice its end
            if type(each) is Connection and each is not connection and not each.closed:
                each.close()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # those of the command are no files
        serve(connection, *arguments)

    patch = pytest.MonkeyPatch()
    patch.setattr(process_executor, "START_METHOD", "fork")
    patch.setattr(process_executor, "_serve_tasks", close_and_serve)
    patch.setattr(BackgroundWriter, "start", lambda self, action: self._run(action))
