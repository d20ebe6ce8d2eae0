"""Read a text file, or all text files of a folder. Every error is a `DataError` with the file."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from dlspec.data.files.paths import expand_home
from dlspec.errors import Code, DataError, find_closest
from dlspec.limits import GIGABYTE, MAX_DATA_BYTES

MAX_FILE_BYTES = MAX_DATA_BYTES // 8  # each byte may become a token, which takes 8 bytes
MAX_FILES = 100_000


def read_python_docs() -> str:
    """Read the topics of Python's help(), several 100 kB of English and Python."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def read_text(path: str, pattern: str) -> str:
    """Read the files as one string, in the order of their paths, with `\\n` at line ends."""
    texts = [_decode_file(each, content) for each, content in _read_contents(path, pattern)]
    return "\n".join(texts).replace("\r\n", "\n")


def read_bytes(path: str, pattern: str) -> bytes:
    """Read the files as bytes, unchanged, in the order of their paths."""
    return b"".join(content for _, content in _read_contents(path, pattern))


def _read_contents(path: str, pattern: str) -> list[tuple[Path, bytes]]:
    """Read each file's content; DataError if they are too large together."""
    files, remaining_bytes, found = _find_files(expand_home(path), pattern), MAX_FILE_BYTES, []
    for each in files:
        content = _read_file(each, remaining_bytes + 1)
        remaining_bytes -= len(content)
        if remaining_bytes < 0:
            most = f"{MAX_FILE_BYTES / GIGABYTE:g} GB"
            raise DataError(
                "path",
                f"'{path}' contains more than {most}, the most that text reads; use a part of it",
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
            "path", f"{file}:{line}: not valid UTF-8; convert the file, or write data.unit=bytes", Code.FILE_UNREADABLE
        ) from None


def _find_files(path: Path, pattern: str) -> list[Path]:
    """Return the file itself, or the files below a folder whose names match the pattern, sorted by path."""
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
            "files", f"no file in '{path}' matches '{pattern}'; write for example 'data.files=\"*.md\"'", Code.NO_MATCH
        )
    return sorted(found)


def _make_missing_error(path: Path) -> DataError:
    if path.exists():
        return DataError("path", f"'{path}' must be a text file or a folder of text files", Code.FILE_UNREADABLE)
    siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    guess = find_closest(path.name, siblings)
    fix = f"did you mean '{path.parent / guess}'?" if guess else "write data.path=FILE.txt, or a folder of text files"
    return DataError("path", f"no file '{path}'; {fix}", Code.FILE_UNREADABLE)
