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

from dlspec.errors import UserError, replace_control_characters
from dlspec.runs.file_names import LOCK_FILE
from dlspec.runs.io import NO_FOLLOW_FLAGS

log = logging.getLogger("dlspec")

MAX_TRIES, SECONDS_BETWEEN_TRIES = 10, 0.02  # who only asks has the lock for some microseconds
MAX_HOLDER_BYTES = 300

if sys.platform == "win32":
    import msvcrt

    LOCK_OFFSET = 1 << 30  # Windows lets nobody read what is locked, so that is a byte behind the file's end

    def _lock(descriptor: int, is_shared: bool) -> None:
        os.lseek(descriptor, LOCK_OFFSET, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int, is_shared: bool) -> None:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Within it no other process trains in `folder`; UserError where one does, or where nothing can be written.

    Where the file system has no locks, that is told and the training goes on without one.
    """
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | NO_FOLLOW_FLAGS, 0o666)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"can't write in '{folder}': {error.strerror}") from None
        raise
    _OPEN_LOCKS.add(descriptor)
    try:
        _acquire_lock(descriptor, folder)
        yield
    finally:
        if descriptor in _OPEN_LOCKS:  # not in a forked child
            _OPEN_LOCKS.remove(descriptor)
            os.close(descriptor)


def is_run_locked(folder: Path) -> bool | None:
    """Whether a process trains in `folder`; None where that can't be found out."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | NO_FOLLOW_FLAGS)
    except OSError as error:
        return False if error.errno == errno.ENOENT else None
    try:
        is_free = _try_lock(descriptor, is_shared=True)
        return None if is_free is None else not is_free
    finally:
        os.close(descriptor)


def _acquire_lock(descriptor: int, folder: Path) -> None:
    for _ in range(MAX_TRIES):
        is_ours = _try_lock(descriptor)
        if is_ours is not False:
            break
        time.sleep(SECONDS_BETWEEN_TRIES)
    else:
        raise UserError(_format_in_use(descriptor, folder))
    if is_ours is None:
        log.warning("%s can't be locked: nothing keeps a second process from training there", folder)
    with suppress(OSError):  # a full disk: the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _try_lock(descriptor: int, is_shared: bool = False) -> bool | None:
    """Takes the lock if it is free: whether it was; None where there are no locks."""
    try:
        _lock(descriptor, is_shared)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES) else None
    return True


def _format_in_use(descriptor: int, folder: Path) -> str:
    from dlspec.language.yaml.yaml_files import format_file_path

    os.lseek(descriptor, 0, os.SEEK_SET)
    line = os.read(descriptor, MAX_HOLDER_BYTES).decode(errors="replace").partition("\n")[0]
    holder = replace_control_characters(line) or "another process"
    return f"'{format_file_path(folder)}' is in use: {holder} trains there; wait for its end or stop it, or train elsewhere"


_OPEN_LOCKS: set[int] = set()  # this process's locks


def _release_in_child() -> None:
    """A forked child has its parent's open files: it must not hold a dead parent's lock."""
    for descriptor in _OPEN_LOCKS:
        os.close(descriptor)
    _OPEN_LOCKS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
