"""Create the folder of a run, write its files so that no reader ever sees a partial file, and read them back.

Reports read run folders without torch, so nothing here imports it.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from dlspec.compat.pyyaml import SectionDumper
from dlspec.errors import UserError
from dlspec.runs.file_access import open_to_append, open_to_read
from dlspec.runs.file_names import RUN_SUBFOLDERS

MAX_NAME_LENGTH = 80
MAX_JSON_BYTES = 1_000_000
MAX_JSON_LINES_BYTES = 1_000_000_000


def to_safe_name(name: str) -> str:
    """Convert a name to one path component: no separators, no leading dot or dash, 1 to 80 characters."""
    safe = re.sub(r"[^\w.+=,-]+", "_", name, flags=re.ASCII).lstrip("._-")
    return safe[:MAX_NAME_LENGTH].rstrip("._") or "unnamed"


def create_unique_folder(root: Path, name: str) -> Path:
    """Create a new empty folder in `root`, named `name` or, if that exists, `name_2`, `name_3`, ..."""
    root.mkdir(parents=True, exist_ok=True)
    count = 1
    while True:
        folder = root / (name if count == 1 else f"{name}_{count}")
        try:
            folder.mkdir()  # fails if it exists, so of two jobs that start together only one gets the name
        except FileExistsError:
            count += 1
        else:
            return folder


def make_run_folder(root: Path, name: str) -> Path:
    """Create the new folder of a run or sweep, with exactly this name; UserError if that is impossible."""
    if not is_printable_name(name) or "${" in name or name in ("", ".", ".."):
        fix = "choose another folder: hydra.run.dir=FOLDER, or for a sweep hydra.sweep.dir=FOLDER"
        raise UserError(f"can't use {name!r} as the name of a folder; {fix}")
    try:
        return create_unique_folder(root, name)
    except OSError as error:
        fix = "choose another folder: hydra.run.dir=FOLDER, or for a sweep hydra.sweep.dir=FOLDER"
        raise UserError(f"can't create a folder in '{root}': {error.strerror}; {fix}") from None


def is_printable_name(name: str) -> bool:
    r"""Whether a name has no control characters; bytes that are not UTF-8 (`\udc80` to `\udcff`) are allowed."""
    return all(each.isprintable() or "\udc80" <= each <= "\udcff" for each in name)


def get_free_disk_bytes(folder: Path) -> int:
    """Return the free disk space in bytes for a folder, which does not have to exist yet."""
    existing_folder = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
    return shutil.disk_usage(existing_folder).free


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file completely or not at all: under a temporary name in the same folder, synced, then renamed."""
    with open_replacement(path) as file:
        file.write(content)


@contextmanager
def open_replacement(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` after it was written completely and synced."""
    with _open_temporary(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    if _FOLDERS.unsynced is None:
        sync_folder(path.parent)
    else:
        _FOLDERS.unsynced.add(path.parent)


class _Folders(threading.local):
    unsynced: set[Path] | None = None  # those of the files that this thread writes together


_FOLDERS = _Folders()


@contextmanager
def sync_folders_once() -> Iterator[None]:
    """Sync each folder once for all files that this thread writes in it inside the `with` block, at its end.

    A file is still synced before it replaces another. After a power cut within the block, any of the files may be as it
    was before, so use it for files that do not depend on each other.
    """
    if _FOLDERS.unsynced is not None:  # inside another one
        yield
        return
    folders = _FOLDERS.unsynced = set()
    try:
        yield
    finally:
        _FOLDERS.unsynced = None
        for folder in folders:
            sync_folder(folder)


@contextmanager
def _open_temporary(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` after it was written completely."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
        Path(temporary).chmod(find_default_mode(0o666))  # mkstemp makes files that only their owner can read
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path)  # a full disk gives no name, and users do not know the temporary one
        raise


def remove_temporary_files(folder: Path) -> None:
    """Delete the temporary files of a killed process. Call it only while no other process writes to the folder."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _LEFTOVER_PATTERN.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)


def find_temporary_files(path: Path) -> list[Path]:
    """Find the temporary files that replace `path` when they are complete: of a process that writes, or was killed."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}")
    return [each for each in path.parent.iterdir() if pattern.fullmatch(each.name)]


def remove_leftovers_of_run(folder: Path) -> None:
    """Delete the temporary files of a killed process below a run's folder, also Hydra's; links are not followed."""
    remove_temporary_files(folder)
    for name in RUN_SUBFOLDERS:
        if not (folder / name).is_symlink():
            remove_temporary_files(folder / name)


_LEFTOVER_PATTERN = re.compile(r"\..+\.(safetensors|jsonl?|yaml|png|txt|dlspec|html|csv)\.[a-z0-9_]{8}", re.DOTALL)


def append_bytes(path: Path, content: bytes) -> None:
    """Append to a file, everything or nothing: a full disk leaves no partial line. Raise OSError if that fails.

    Links are not followed: someone else's folder must not redirect the output to another file.
    """
    with os.fdopen(open_to_append(path), "ab", buffering=0) as file:
        size, left = os.fstat(file.fileno()).st_size, memoryview(content)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(size)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all, with '?' for the bytes of file names that are not UTF-8."""
    write_bytes(path, text.encode(errors="replace"))


def write_bytes_unsynced(path: Path, content: bytes) -> None:
    """Write a file as `write_bytes` does, but without waiting for the disk."""
    with _open_temporary(path) as file:
        file.write(content)


def write_text_unsynced(path: Path, text: str) -> None:
    """Write a text file as `write_text` does, but without waiting for the disk."""
    write_bytes_unsynced(path, text.encode(errors="replace"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file completely or not at all; nan and infinities become null."""
    write_bytes(path, encode_json(value, indent=2) + b"\n")


def write_json_unsynced(path: Path, value: Any) -> None:
    """Write a JSON file as `write_json` does, but without waiting for the disk: for files that change often."""
    write_bytes_unsynced(path, encode_json(value, indent=2) + b"\n")


def encode_json(value: Any, indent: int | None = None) -> bytes:
    r"""Encode a value as JSON; nan and infinities become null.

    A file's name may contain bytes that are not UTF-8. They are written as JSON's escapes (`\udce9`), so that the name
    that is read back names the same file.
    """
    text = json.dumps(replace_non_finite(value), indent=indent, ensure_ascii=False)
    return text.encode(errors="backslashreplace")


def write_yaml(path: Path, value: Any) -> None:
    """Write a YAML file completely or not at all; names that are not UTF-8 get U+FFFD, as YAML can't contain them."""
    write_text(path, _make_yaml_dumper().dump(_replace_surrogates(value)))


@cache
def _make_yaml_dumper() -> SectionDumper:
    import yaml  # here: `status` does not import it

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # in C where PyYAML has it: 25 times as fast
    return SectionDumper(lambda value: str(yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True)))


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub(r"[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, Mapping):
        return {_replace_surrogates(key): _replace_surrogates(each) for key, each in value.items()}
    return [_replace_surrogates(each) for each in value] if isinstance(value, list | tuple) else value


def replace_non_finite(value: Any) -> Any:
    """Convert a value for JSON: nan and infinities become None, keys strings and tuples lists, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): replace_non_finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(each) for each in value]
    return value


def read_json_object(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any] | None:
    """Read a JSON file that contains an object; None if it does not, is missing or has more than `max_bytes` bytes."""
    content = read_small_file(path, max_bytes)
    try:
        value = None if content is None else json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_small_file(path: Path, max_bytes: int) -> bytes | None:
    """Read a regular file; None if it is missing, not regular or has more than `max_bytes` bytes."""
    content = read_first_bytes(path, max_bytes + 1)
    return None if content is None or len(content) > max_bytes else content


def read_first_bytes(path: Path, max_bytes: int) -> bytes | None:
    """Read the first `max_bytes` bytes of a regular file; None if it is missing or not regular."""
    try:
        with os.fdopen(open_to_read(path), "rb") as file:
            return file.read(max_bytes)
    except (OSError, ValueError):
        return None


def read_json_lines(path: Path, max_bytes: int = MAX_JSON_LINES_BYTES) -> list[dict[str, Any]]:
    """Read the objects of a .jsonl file, up to a line that a killed process left incomplete.

    Return [] if the file is missing, not regular or has more than `max_bytes` bytes.
    """
    objects = []
    for line in (read_small_file(path, max_bytes) or b"").splitlines():
        try:
            objects.append(json.loads(line))
        except (ValueError, RecursionError):
            break
    return objects


@cache
def find_default_mode(most: int) -> int:
    """Return the mode of files (`most` is 0o666) or folders (0o777) that this user creates."""
    mask = os.umask(0)  # the mask can only be read by setting it
    os.umask(mask)
    return most & ~mask


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename survives a power failure. Does nothing on systems without it (Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
