"""One process trains in a run folder: it has a lock that the system frees when it ends, however it ends."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dlspec.errors import UserError, printable
from dlspec.runs.io import NO_LINK
from dlspec.runs.layout import LOCK

log = logging.getLogger("dlspec")

TRIES, SECONDS_BETWEEN_TRIES = 10, 0.02  # who only asks has the lock for some microseconds
LONGEST_HOLDER = 300

if sys.platform == "win32":
    import msvcrt

    FAR = 1 << 30  # Windows lets nobody read what is locked, so that is a byte behind the file's end

    def _lock(descriptor: int, is_shared: bool) -> None:
        os.lseek(descriptor, FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int, is_shared: bool) -> None:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Within it no other process trains in `folder`; UserError where one does, or where nothing can be written.

    Where the file system has no locks, that is told and the training goes on without one.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | NO_LINK, 0o666)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"can't write in '{folder}': {error.strerror}") from None
        raise
    _HELD.add(descriptor)
    try:
        _take(descriptor, folder)
        yield
    finally:
        if descriptor in _HELD:  # not in a forked child
            _HELD.remove(descriptor)
            os.close(descriptor)


def is_held(folder: Path) -> bool | None:
    """Whether a process trains in `folder`; None where that can't be found out."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | NO_LINK)
    except OSError as error:
        return False if error.errno == errno.ENOENT else None
    try:
        is_free = _try(descriptor, is_shared=True)
        return None if is_free is None else not is_free
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    for _ in range(TRIES):
        is_ours = _try(descriptor)
        if is_ours is not False:
            break
        time.sleep(SECONDS_BETWEEN_TRIES)
    else:
        raise UserError(_refusal(descriptor, folder))
    if is_ours is None:
        log.warning("%s can't be locked: nothing keeps a second process from training there", folder)
    with suppress(OSError):  # a full disk: the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _try(descriptor: int, is_shared: bool = False) -> bool | None:
    """Takes the lock if it is free: whether it was; None where there are no locks."""
    try:
        _lock(descriptor, is_shared)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES) else None
    return True


def _refusal(descriptor: int, folder: Path) -> str:
    from dlspec.language.yaml.yaml_files import display_name

    os.lseek(descriptor, 0, os.SEEK_SET)
    line = os.read(descriptor, LONGEST_HOLDER).decode(errors="replace").partition("\n")[0]
    holder = printable(line) or "another process"
    return f"'{display_name(folder)}' is in use: {holder} trains there; wait for its end or stop it, or train elsewhere"


_HELD: set[int] = set()  # this process's locks


def _let_go_in_child() -> None:
    """A forked child has its parent's open files: it must not hold a dead parent's lock."""
    for descriptor in _HELD:
        os.close(descriptor)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
