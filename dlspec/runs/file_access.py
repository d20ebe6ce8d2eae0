"""The rule for all files below the folder of a run or sweep, which may come from someone else.

The folder that the user names, and everything above it, may be a link (`runs -> /scratch`). Below it:

- No folder is a link, so everything that is written stays inside: `refuse_links`.
- A file that is written as a whole is written under a temporary name and renamed (`io.write_bytes`). That replaces
  whatever has its name: a link, a pipe, a device, or a file with other names elsewhere.
- A file that is appended to is opened by `open_to_append`, which replaces the same things.
- A file that is read is opened by `open_to_read`, which refuses everything but a regular file: a pipe would wait for a
  writer, and a device may never end.
- The lock is opened by `open_lock_file`, which refuses the same things.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from dlspec.errors import UserError

# Flags for opening a file: refuse symbolic links, and do not wait on a pipe. Windows has neither flag.
NO_FOLLOW_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def refuse_links(root: Path, folders: Iterable[Path]) -> None:
    """Check that folders lie in `root` and are not reached through symbolic links below it. They may be missing.

    Raises:
        UserError: if one of them lies elsewhere, or a link or a file has the name of a folder on the way to it.
    """
    checked: set[str] = set()
    for folder in folders:
        path = str(root)
        for part in _list_parts_below(root, folder):
            path = os.path.join(path, part)  # noqa: PTH118  # pathlib takes seconds for 20,000 jobs
            if path not in checked:
                _refuse_link(path)
                checked.add(path)


def _list_parts_below(root: Path, folder: Path) -> tuple[str, ...]:
    parts = folder.relative_to(root).parts if folder.is_relative_to(root) else ("..",)
    if ".." in parts:
        raise UserError(f"'{_format_path(folder)}' is not inside '{_format_path(root)}'; choose a folder in it")
    return parts


def _format_path(path: str | Path) -> str:
    from dlspec.language.yaml.yaml_files import format_file_path  # here: `status` does not import yaml

    return format_file_path(Path(path))


def _refuse_link(folder: str) -> None:
    mode = _read_mode(folder)
    if mode is None or stat.S_ISDIR(mode):
        return
    shown = _format_path(folder)
    if stat.S_ISLNK(mode):
        raise UserError(f"'{shown}' is a symbolic link: replace it with the folder that it points to")
    raise UserError(f"'{shown}' is not a folder: move it away")


def _read_mode(path: str | Path) -> int | None:
    """Return the mode of what has this name, without following a link; None if there is nothing."""
    try:
        return os.lstat(path).st_mode
    except (OSError, ValueError):  # ValueError: a zero byte in its name
        return None


def is_regular_file(path: Path) -> bool:
    """Whether `path` is a regular file, and not a link to one."""
    mode = _read_mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_special_file(path: Path) -> bool:
    """Whether `path` is a link, a pipe or a device."""
    mode = _read_mode(path)
    return mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def open_to_read(path: Path) -> int:
    """Open a regular file and return its descriptor; OSError if it is anything else, such as a link or a pipe."""
    if not stat.S_ISREG(os.lstat(path).st_mode):  # before opening it: some devices act when they are opened
        raise _make_special_file_error(path)
    return _require_regular(os.open(path, os.O_RDONLY | NO_FOLLOW_FLAGS), path)


def open_to_append(path: Path) -> int:
    """Open a regular file that has no other name, to append to it, and return its descriptor.

    It is created if it is missing. A link, a pipe or a device is replaced by an empty file, and a file with several
    hard links by a copy. OSError if that is impossible.
    """
    _replace_special_file(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_FOLLOW_FLAGS, 0o666)
    return _require_regular(descriptor, path)


def open_lock_file(path: Path) -> int:
    """Open a regular file to lock it, and return its descriptor; create it if it is missing.

    OSError if it is anything else. Unlike other files it is never replaced: another process may hold the lock.
    """
    mode = _read_mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise _make_special_file_error(path)
    return _require_regular(os.open(path, os.O_RDWR | os.O_CREAT | NO_FOLLOW_FLAGS, 0o666), path)


def _replace_special_file(path: Path) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISREG(found.st_mode):
        if found.st_nlink > 1:
            _replace_by_copy(path, found.st_mode)
    elif not stat.S_ISDIR(found.st_mode):
        path.unlink()


def _replace_by_copy(path: Path, mode: int) -> None:
    """Replace a file that has other names by a copy: the others may lie outside of the folder."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as copy, os.fdopen(open_to_read(path), "rb") as original:
            shutil.copyfileobj(original, copy)
        Path(temporary).chmod(stat.S_IMODE(mode))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _require_regular(descriptor: int, path: Path) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _make_special_file_error(path)
    return descriptor


def _make_special_file_error(path: Path) -> OSError:
    return OSError(errno.EINVAL, "not a regular file", str(path))
