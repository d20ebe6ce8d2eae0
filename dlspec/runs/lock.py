"""Lock a run folder, so that only one process trains in it. The system frees the lock however the process ends."""

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
from dlspec.runs.file_access import open_lock_file, open_to_read, refuse_links
from dlspec.runs.file_names import LOCK_FILE, RUN_SUBFOLDERS

log = logging.getLogger("dlspec")

MAX_TRIES, SECONDS_BETWEEN_TRIES = 10, 0.02  # is_run_locked takes the lock for some microseconds
MAX_HOLDER_BYTES = 300

if sys.platform == "win32":
    import msvcrt

    LOCK_OFFSET = 1 << 30  # on Windows locked bytes cannot be read, so lock a byte after the end of the file

    def _lock(descriptor: int, is_shared: bool) -> None:
        os.lseek(descriptor, LOCK_OFFSET, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int, is_shared: bool) -> None:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Lock a run folder for training while the context is open.

    If the file system does not support locks, log a warning and continue without one.

    Raises:
        UserError: if another process trains in the folder, it is not writable, or a link in it leads elsewhere.
    """
    refuse_links(folder, [folder / each for each in RUN_SUBFOLDERS])
    try:
        descriptor = open_lock_file(folder / LOCK_FILE)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"can't write to '{folder}': {error.strerror}") from None
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
    """Whether a process trains in `folder`; None if that is unknown, because locks are not supported."""
    try:
        descriptor = open_to_read(folder / LOCK_FILE)
    except OSError as error:
        return False if error.errno == errno.ENOENT else None
    try:
        is_free = _try_lock(descriptor, is_shared=True)
        return None if is_free is None else not is_free
    finally:
        os.close(descriptor)


def try_lock_file(descriptor: int) -> bool:
    """Lock an open file until it is closed; False if another process has locked it, or locks are not supported."""
    return bool(_try_lock(descriptor))


def _acquire_lock(descriptor: int, folder: Path) -> None:
    for _ in range(MAX_TRIES):
        is_ours = _try_lock(descriptor)
        if is_ours is not False:
            break
        time.sleep(SECONDS_BETWEEN_TRIES)
    else:
        raise UserError(_format_in_use(descriptor, folder))
    if is_ours is None:
        log.warning("%s can't be locked: do not start a second process that trains in it", folder)
    if os.fstat(descriptor).st_nlink > 1:  # its other names may lie outside of the folder
        return
    with suppress(OSError):  # the lock works without the name of its owner, if the disk is full
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _try_lock(descriptor: int, is_shared: bool = False) -> bool | None:
    """Take the lock if it is free, and return whether it was; None if locks are not supported."""
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
    return (
        f"'{format_file_path(folder)}' is in use: {holder} trains there; "
        "wait until it finishes, stop it, or train in another folder"
    )


_OPEN_LOCKS: set[int] = set()  # this process's locks


def _release_in_child() -> None:
    """Close inherited lock files in a forked child, which must not keep the lock after its parent's end."""
    for descriptor in _OPEN_LOCKS:
        os.close(descriptor)
    _OPEN_LOCKS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
