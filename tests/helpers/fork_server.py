"""A process that has imported everything and forks one for each command line: what those cost is the command's own."""

from __future__ import annotations

import gc
import io
import json
import os
import resource
import signal
import sys
import time
from typing import Any

MAX_SPEC_SECONDS = 30
"""A spec that computes for longer hangs, or takes ten times as long where the machine is busy with something else."""


def serve() -> None:
    """Reads a folder and a command line from each line of stdin, and answers how the command ended there."""
    from dlspec.cli.main import run_command
    from dlspec.compat.torchmetrics import skip_plot_imports

    skip_plot_imports()
    answers = os.dup(1)
    for line in sys.stdin:
        folder, arguments, is_forked, *streams = json.loads(line)
        answer = (
            _run_in_fork(run_command, folder, arguments, *streams)
            if is_forked
            else _run_here(run_command, folder, arguments)
        )
        os.write(answers, (json.dumps(answer) + "\n").encode())


def _run_here(run: Any, folder: str, arguments: list[str]) -> list[float]:
    """Warms this process up."""
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    code = run(arguments)
    gc.freeze()  # what is here now need not be looked at, nor copied, in every fork
    return [code, 0, 0]


def _run_in_fork(run: Any, folder: str, arguments: list[str], streams: dict[str, str] | None = None) -> list[float]:
    start = time.perf_counter()
    child = os.fork()
    if not child:
        _run_and_exit(run, folder, arguments, streams)
    _, status, usage = os.wait4(child, 0)
    return [os.waitstatus_to_exitcode(status), time.perf_counter() - start, usage.ru_maxrss / 1024]


def _redirect(streams: dict[str, str]) -> Any:
    """Gives the standard streams as a shell does, and returns what the program does then."""
    from dlspec.cli.main import main

    for name, target in streams.items():
        number = int(name)
        os.close(number)
        if target == "pipe":  # nobody reads from it
            reader, writer = os.pipe()
            os.close(reader)
            os.dup2(writer, number)
            os.close(writer)
        elif target != "closed":
            os.dup2(opened := os.open(target, os.O_WRONLY | os.O_CREAT), number)
            if opened != number:
                os.close(opened)
        stream = None if target == "closed" else io.TextIOWrapper(io.FileIO(number, "w", closefd=False))
        setattr(sys, {1: "stdout", 2: "stderr"}.get(number, "stdin"), stream)

    def run(arguments: list[str]) -> int:
        sys.argv = ["dlspec", *arguments]
        return main()

    return run


def _run_and_exit(run: Any, folder: str, arguments: list[str], streams: dict[str, str] | None) -> None:
    """The child's life: it may take some GB and seconds, then the test fails and the machine lives."""
    os.chdir(folder)
    for number in (1, 2):
        os.dup2(os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SPEC_SECONDS, MAX_SPEC_SECONDS))
    signal.alarm(10 * MAX_SPEC_SECONDS)
    code = 1
    try:
        code = (run if streams is None else _redirect(streams))(arguments)
    finally:
        if streams is None:
            sys.stdout.flush()
        if code == 1 and sys.exc_info()[0]:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        os._exit(code)


if __name__ == "__main__":
    serve()
