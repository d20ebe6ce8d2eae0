"""Forking the fork server of `multiprocessing` from this process, instead of starting one that imports all again."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path
from typing import Any


def has_one_thread() -> bool:
    """Whether this process has one thread, with those of libraries, so that it can be forked; False where unknown."""
    try:
        return len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:  # not Linux
        return False


def fork_fork_server(prepare: Callable[[], None]) -> None:
    """Make a copy of this process the fork server, if there is none. It has the modules that are imported here.

    Call it at the start of a program, before anything but imports: whatever this process has in memory, each of the
    server's processes has too.

    Args:
        prepare: called in the server, before it forks any process.
    """
    resource_tracker.ensure_running()
    tracker = resource_tracker.getfd()

    def fork(path: Any, args: Any, descriptors: Sequence[int]) -> int:
        process = os.fork()
        if process == 0:
            try:
                _serve([each for each in (tracker, *descriptors) if each is not None], descriptors, prepare)
            finally:
                os._exit(0)
        return process

    untyped: Any = util
    before, untyped.spawnv_passfds = untyped.spawnv_passfds, fork
    try:
        forkserver.ensure_running()
    finally:
        untyped.spawnv_passfds = before


def _serve(kept: Sequence[int], descriptors: Sequence[int], prepare: Callable[[], None]) -> None:
    """Be the fork server until no process needs it."""
    limits = sorted({0, 1, 2, *kept})
    for low, high in zip(limits, [*limits[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)  # the other end of a pipe among them: it would never see that this process ended
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    prepare()
    untyped: Any = forkserver
    untyped._forkserver.__init__()  # its lock is held by the process that forked
    untyped.main(*descriptors, [])
