"""Find the files of a path, a list of paths or a glob, and open them: unzipped, with a limit, only regular files."""

from __future__ import annotations

import glob
import gzip
import io
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unicodedata import normalize

from dlspec.data.files.paths import expand_home
from dlspec.errors import Code, DataError, find_closest
from dlspec.formatting import format_argument
from dlspec.limits import GIGABYTE, MAX_DATA_BYTES

MAX_FILES = 1_000_000
BUFFER_BYTES = 1 << 18
_GZIP_MAGIC = b"\x1f\x8b"
# What the first bytes of other files mean.
_OTHER_FORMATS: Sequence[tuple[bytes, str]] = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook; save the sheet as CSV"),
    (b"PAR1", "a Parquet file; write data.format=parquet"),
    (b"ARROW1", "an Arrow file; save it as Parquet or CSV"),
    (b"\x93NUMPY", "a NumPy array; save it with numpy.savez, with a name for each column"),
    (b"\x89HDF", "an HDF5 file; save the table as CSV, Parquet or npz"),
    (b"SQLite format 3", "an SQLite database; save the table as CSV"),
    (b"%PDF", "a PDF; save the table as CSV"),
    (b"BZh", "a bzip2 file; unpack it"),
    (b"\xfd7zXZ", "an xz file; unpack it"),
    (b"(\xb5/\xfd", "a zstd file; unpack it"),
)


def find_input_files(path: str | Sequence[str], base: Path | None = None, setting: str = "data.path") -> list[Path]:
    """Find the files of a path, a list of paths, or a glob such as `data/*.csv`, sorted by name within a glob.

    Args:
        path: what the setting `path` contains
        base: the folder that relative paths start from; None: the working folder
        setting: the setting that messages suggest

    Returns:
        At least one file. Each is a regular file and is listed once.

    Raises:
        DataError: if a file does not exist or is not a regular file.
    """
    paths = [path] if isinstance(path, str) else list(path)
    if not paths:
        raise DataError("path", f"no file is given; write {setting}=FILE.csv", Code.MISSING_VALUE)
    found = [file for each in paths for file in _find_files_of_one(each, base, setting)]
    seen: set[Path] = set()
    for file in found:
        if file in seen:
            raise DataError("path", f"'{file}' is given twice, so each of its rows would occur twice", Code.CONFLICT)
        seen.add(file)
    return found


def _find_files_of_one(path: str, base: Path | None, setting: str) -> list[Path]:
    file = expand_home(path)
    file = base / file if base is not None else file
    try:
        if glob.has_magic(path) and not file.exists():
            # Not Path.glob, which takes a relative pattern alone.
            found = glob.iglob(str(file), recursive=True)  # noqa: PTH207
            matches = _drop_linked_copies(Path(each) for each in found if Path(each).is_file())
            if not matches:
                raise DataError("path", f"no file matches '{path}'", Code.NO_MATCH)
            return matches
        return [check_regular_file(file, setting)]
    except (OSError, ValueError) as error:  # a name that is too long or contains NUL
        reason = getattr(error, "strerror", None) or error
        raise DataError("path", f"'{path}' can't be read: {reason}", Code.FILE_UNREADABLE) from None


def _drop_linked_copies(files: Iterable[Path]) -> list[Path]:
    """Sort files by name. One that `**` finds again through a link to a folder, perhaps above it, is listed once."""
    found: dict[tuple[Path, str], Path] = {}
    resolve = cache(Path.resolve)
    for file in sorted(files, key=lambda each: (len(each.parts), each)):
        found.setdefault((resolve(file.parent), file.name), file)
    return sorted(found.values())


def check_regular_file(file: Path, setting: str = "data.path") -> Path:
    """Return the file; DataError if it does not exist, or is a folder, pipe or device, which could block forever."""
    file = find_normal_form(file)
    if not file.exists():
        if file.is_symlink():
            raise DataError("path", f"'{file}' is a link to a file that does not exist", Code.FILE_UNREADABLE)
        siblings = [each.name for each in file.parent.iterdir()] if file.parent.is_dir() else []
        guess = find_closest(file.name, siblings[:10_000])
        fix = f"did you mean '{file.parent / guess}'?" if guess else f"write {setting}=FILE.csv"
        raise DataError("path", f"no file '{file}'; {fix}", Code.FILE_UNREADABLE)
    if file.is_dir():
        fix = f"write {format_argument(setting, f'{file}/*.csv')} for all its CSV files"
        raise DataError("path", f"'{file}' is a folder; {fix}", Code.FILE_UNREADABLE)
    if not stat.S_ISREG(file.stat().st_mode):
        raise DataError("path", f"'{file}' must be a regular file, not a pipe or device", Code.FILE_UNREADABLE)
    return file


def find_normal_form(file: Path) -> Path:
    """Return the path as the disk writes it, if only the normal form of its characters differs (macOS writes NFD)."""
    if str(file).isascii() or file.exists():
        return file
    found = Path(file.anchor)
    for part in file.parts[1:] if file.anchor else file.parts:
        if not (found / part).exists() and found.is_dir():
            wanted = normalize("NFC", part)
            part = next((each.name for each in found.iterdir() if normalize("NFC", each.name) == wanted), part)
        found /= part
    return found


@contextmanager
def report_read_errors(file: Path) -> Iterator[None]:
    """Turn errors of opening, reading and unzipping into a DataError with the file's name."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        found = f"'{file}' is a damaged gzip file ({error}); get the file again"
        raise DataError("path", found, Code.FILE_UNREADABLE) from None
    except OSError as error:
        found = f"'{file}' can't be read: {error.strerror or error}"
        raise DataError("path", found, Code.FILE_UNREADABLE) from None


@contextmanager
def open_binary(file: Path) -> Iterator[io.BufferedReader]:
    """Open a file for reading, unzipped if its content is gzip. Raises DataError beyond MAX_DATA_BYTES."""
    with report_read_errors(file), file.open("rb") as raw:
        start = raw.read(16)
        raw.seek(0)
        _refuse_other_formats(file, start)
        inner = gzip.GzipFile(fileobj=raw, mode="rb") if start.startswith(_GZIP_MAGIC) else raw
        stream: io.BufferedReader = io.BufferedReader(_BoundedStream(file, inner), BUFFER_BYTES)
        with stream:
            yield stream


def _refuse_other_formats(file: Path, start: bytes) -> None:
    for magic, meaning in _OTHER_FORMATS:
        if start.startswith(magic):
            raise DataError("path", f"'{file}' is {meaning}", Code.FILE_UNREADABLE)


class _BoundedStream(io.RawIOBase):
    """A binary stream that raises DataError after MAX_DATA_BYTES: a small gzip file can contain far more."""

    def __init__(self, file: Path, inner: io.BufferedIOBase | gzip.GzipFile) -> None:
        self._file, self._inner, self._remaining = file, inner, MAX_DATA_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._inner.readinto(buffer) or 0
        self._remaining -= count
        if self._remaining < 0:
            found = f"'{self._file}' contains more than {MAX_DATA_BYTES // GIGABYTE} GB"
            raise DataError("path", f"{found}, the most that a table may have; use a part of it", Code.TOO_LARGE)
        return count
