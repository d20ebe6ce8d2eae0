"""Reads a text file, or those of a folder; whatever is wrong is a `DataError` that says where."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from dlspec.data.files.paths import expand_home
from dlspec.errors import Code, DataError, find_closest
from dlspec.limits import GIGABYTE, MAX_DATA_BYTES

MAX_FILE_BYTES = MAX_DATA_BYTES // 8
"""Each byte may become a token of eight."""
MAX_FILES = 100_000


def read_python_docs() -> str:
    """The topics of the running interpreter's help(), several 100 kB of English and Python."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def read_text(path: str, pattern: str) -> str:
    """The files' characters, one file after another, lines ended as in Python."""
    texts = [_decode_file(each, content) for each, content in _read_contents(path, pattern)]
    return "\n".join(texts).replace("\r\n", "\n")


def read_bytes(path: str, pattern: str) -> bytes:
    """The files' bytes as they are, one file after another."""
    return b"".join(content for _, content in _read_contents(path, pattern))


def _read_contents(path: str, pattern: str) -> list[tuple[Path, bytes]]:
    """Each file and what it holds; together at most half a gigabyte."""
    files, remaining_bytes, found = _find_files(expand_home(path), pattern), MAX_FILE_BYTES, []
    for each in files:
        content = _read_file(each, remaining_bytes + 1)
        remaining_bytes -= len(content)
        if remaining_bytes < 0:
            most = f"{MAX_FILE_BYTES / GIGABYTE:g} GB"
            raise DataError(
                "path",
                f"'{path}' holds more than {most}, which are the most that text reads: take a part",
                Code.TOO_LARGE,
            )
        found.append((each, content))
    return found


def _read_file(file: Path, max_bytes: int) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(max_bytes)
    except OSError as error:
        raise DataError("path", f"'{file}' can't be read: {error.strerror}", Code.FILE_UNREADABLE) from None


def _decode_file(file: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            "path", f"{file}:{line}: not in UTF-8; convert it, or take data.unit=bytes", Code.FILE_UNREADABLE
        ) from None


def _find_files(path: Path, pattern: str) -> list[Path]:
    """The file itself, or those below a folder whose names fit the pattern, in their paths' order."""
    try:
        if path.is_file():
            return [path]
        if not path.is_dir():
            raise _make_missing_error(path)
    except OSError as error:  # a name that is too long
        raise DataError("path", f"'{path}' can't be read: {error.strerror}", Code.FILE_UNREADABLE) from None
    found = []
    for each in path.rglob("*"):
        if fnmatchcase(each.name, pattern) and each.is_file():
            found.append(each)
        if len(found) > MAX_FILES:
            raise DataError("files", f"'{path}' has more than {MAX_FILES:,} files '{pattern}'", Code.TOO_LARGE)
    if not found:
        raise DataError(
            "files", f"'{path}' has no file '{pattern}'; write data.files='*.md', or another ending", Code.NO_MATCH
        )
    return sorted(found)


def _make_missing_error(path: Path) -> DataError:
    if path.exists():
        return DataError(
            "path", f"'{path}' is no file; a text file is wanted, or a folder of some", Code.FILE_UNREADABLE
        )
    siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    guess = find_closest(path.name, siblings)
    fix = f"did you mean '{path.parent / guess}'?" if guess else "write data.path=FILE.txt, or a folder of them"
    return DataError("path", f"no file '{path}'; {fix}", Code.FILE_UNREADABLE)
