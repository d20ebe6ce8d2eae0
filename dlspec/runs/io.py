"""A run's folder on disk: made, written so that no reader ever sees half a file, and read back.

A report reads run folders without torch, so nothing here imports it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from dlspec.errors import UserError
from dlspec.runs.file_names import LOG_FILE

MAX_NAME_LENGTH = 80
MAX_JSON_BYTES = 1_000_000
NO_FOLLOW_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""For opening: no name that leads elsewhere, and no pipe that waits for a reader. (Windows has neither flag.)"""


def to_safe_name(name: str) -> str:
    """`name` as one path component: no separators, no leading dot or dash, at most 80 characters, never empty."""
    safe = re.sub(r"[^\w.+=,-]+", "_", name, flags=re.ASCII).lstrip("._-")
    return safe[:MAX_NAME_LENGTH].rstrip("._") or "unnamed"


def create_unique_folder(root: Path, name: str) -> Path:
    """A new empty folder under `root`: `name` made safe, with `_2`, `_3`, ... behind it where that is taken."""
    root.mkdir(parents=True, exist_ok=True)
    stem, count = to_safe_name(name), 1
    while True:
        folder = root / (stem if count == 1 else f"{stem}_{count}")
        try:
            folder.mkdir()  # making it is the test: of two jobs that start together, only one gets the name
        except FileExistsError:
            count += 1
        else:
            return folder


def make_run_folder(root: Path, name: str) -> Path:
    """A run's or sweep's new folder; UserError where it can't be made there."""
    try:
        return create_unique_folder(root, name)
    except OSError as error:
        fix = "choose another place: hydra.run.dir=FOLDER, or for a sweep hydra.sweep.dir=FOLDER"
        raise UserError(f"can't make a folder in '{root}': {error.strerror}; {fix}") from None


def free_bytes(folder: Path) -> int:
    """How much this user may still write there, whether the folder is there yet or not."""
    existing_folder = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
    return shutil.disk_usage(existing_folder).free


def write_bytes(path: Path, content: bytes) -> None:
    """Puts `content` at `path` whole or not at all: a temporary name in the same folder, synced, then renamed."""
    with open_replacement(path) as file:
        file.write(content)


@contextmanager
def open_replacement(path: Path) -> Iterator[BinaryIO]:
    """A file with a temporary name; once all is in it and synced it takes the place of `path`."""
    with _open_temporary(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


@contextmanager
def _open_temporary(path: Path) -> Iterator[BinaryIO]:
    """A file with a temporary name, which takes the place of `path` once all is in it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        Path(temporary).chmod(_find_default_file_mode())  # mkstemp's own mode hides the file from everybody else
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path)  # a full disk names no file, and nobody knows the temporary one
        raise


def remove_leftovers(folder: Path) -> None:
    """Deletes the half-written files of a process that was killed; nobody else may write there."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _LEFTOVER_PATTERN.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)


_LEFTOVER_PATTERN = re.compile(r"\..+\.(safetensors|jsonl?|yaml|png|txt|dlspec)\.[a-z0-9_]{8}", re.DOTALL)


def append_bytes(path: Path, content: bytes) -> None:
    """Adds `content` to a file, all of it or nothing: a full disk leaves no half line. Raises OSError.

    A name that leads elsewhere is refused: whoever made the folder may want to write there with our hands.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_FOLLOW_FLAGS
    with os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0) as file:
        size, left = os.fstat(file.fileno()).st_size, memoryview(content)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(size)
            raise


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`value` as JSON; what JSON has no word for (nan, infinities) becomes null."""
    write_text(path, _format_json(value))


def write_json_unsynced(path: Path, value: Any) -> None:
    """As `write_json`, but without waiting for the disk: for what is soon written again."""
    with _open_temporary(path) as file:
        file.write(_format_json(value).encode())


def _format_json(value: Any) -> str:
    return json.dumps(replace_non_finite(value), indent=2, ensure_ascii=False) + "\n"


def write_yaml(path: Path, value: Any) -> None:
    import yaml

    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def replace_non_finite(value: Any) -> Any:
    """`value` with every nan and infinity in it, however deep, replaced by None: the rest of JSON's world."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): replace_non_finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(each) for each in value]
    return value


def read_json_object(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any] | None:
    """The mapping that a JSON file of at most `max_bytes` bytes holds; None for any other file, and for none."""
    content = read_small_file(path, max_bytes)
    try:
        value = None if content is None else json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_small_file(path: Path, max_bytes: int) -> bytes | None:
    """What a plain file of at most `max_bytes` bytes holds; None for a larger one, for what is no file, and for none."""
    content = read_first_bytes(path, max_bytes + 1)
    return None if content is None or len(content) > max_bytes else content


def read_first_bytes(path: Path, max_bytes: int) -> bytes | None:
    """The first `max_bytes` bytes of a plain file; None for what is no file, and for none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer
        with os.fdopen(descriptor, "rb") as file:
            return file.read(max_bytes) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except (OSError, ValueError):
        return None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file in order; without a last line that a kill cut off; none where there is no file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    objects = []
    for line in lines:
        try:
            objects.append(json.loads(line))
        except ValueError:
            break
    return objects


class LogFile(logging.Handler):
    """Adds to a file; where that fails it is told once, on the terminal, and who logs goes on."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path.absolute()  # hydra.job.chdir may move
        self._warned = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            append_bytes(self.path, f"{self.format(record)}\n".encode(errors="replace"))
        except OSError as error:
            if not self._warned:
                print(f"can't write {self.path}: {error.strerror or error}", file=sys.stderr)
            self._warned = True


def add_log_file(folder: Path) -> logging.Handler:
    """A handler that adds what is logged, the user's own modules too, to the run's log.txt.

    Remove it from the root logger and close it when the run is over.
    """
    handler = LogFile(folder / LOG_FILE)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    return handler


@cache
def _find_default_file_mode() -> int:
    """The mode that a new file has for this user."""
    mask = os.umask(0)  # there is no way to read it without setting it
    os.umask(mask)
    return 0o666 & ~mask


def sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut, where the system can sync a folder at all (Windows can't)."""
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
