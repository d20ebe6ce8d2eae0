"""Files that keep decoded images between runs: their layout, their folder, and which are removed. Without torch.

A file belongs to one set of images, read in one way: its name is a hash of both. It has one place for each image, which
is empty at first. Several processes may read and write it at once without a lock: a place always gets the same bytes.

    header      4096 bytes: JSON, padded with spaces
    checksums   uint32 for each image: the CRC of its values; 0 for an empty place
    values      the images, all of one size

The checksum is written after the values. A process verifies each image once before it uses it, so that an image whose
writing was interrupted counts as absent.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlspec.data.files.download import find_cache_folder
from dlspec.limits import get_limit
from dlspec.runs.file_access import open_to_read
from dlspec.runs.io import get_free_disk_bytes

CACHE_FORMAT = 1
CACHE_KEY = "dlspec_image_cache"  # its value in a header is the format
ENDING = ".images"
STATISTICS_ENDING = ".statistics.json"  # of small files beside them, of `kept_statistics`
HEADER_BYTES = PAGE_BYTES = 4096
CHECKSUM_BYTES = 4
DTYPES = ("uint8", "float32", "int64")
MAX_NAME = 100  # characters of the data's name in a header
FREE_SHARE = 0.1  # of the free disk space that stays free
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


@dataclass(frozen=True)
class CacheLayout:
    """What a file contains, and where."""

    rows: int
    shape: tuple[int, ...]  # of one image
    dtype: str
    data: str = ""  # name of the data set, to be shown

    @property
    def row_bytes(self) -> int:
        """Size of one image."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def values_start(self) -> int:
        """Where the first image is."""
        return -(-(HEADER_BYTES + CHECKSUM_BYTES * self.rows) // PAGE_BYTES) * PAGE_BYTES

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return self.values_start + self.rows * self.row_bytes

    def make_header(self) -> bytes:
        """Make the first bytes of the file."""
        names = {"rows": self.rows, "shape": list(self.shape), "dtype": self.dtype, "data": self.data[:MAX_NAME]}
        return json.dumps({CACHE_KEY: CACHE_FORMAT, **names}).encode().ljust(HEADER_BYTES)

    def has_places_of(self, other: CacheLayout) -> bool:
        """Whether another file has the same places."""
        return (self.rows, self.shape, self.dtype) == (other.rows, other.shape, other.dtype)


def compute_checksum(values: bytes | memoryview) -> int:
    """Compute the checksum of an image, which is never 0."""
    return zlib.crc32(values) or 1


def find_image_cache_folder() -> Path:
    """Return the folder of the files."""
    return find_cache_folder("images")


# ---- opening and creating --------------------------------------------------------------------------------------------


def open_cache_file(folder: Path, name: str, layout: CacheLayout) -> int:
    """Open a file to read and write it, and return its descriptor. It is created if it is absent or damaged.

    Args:
        folder: where the files are
        name: name of the file, without its ending
        layout: what it contains

    Raises:
        OSError: if it can't be created.
    """
    path = folder / f"{name}{ENDING}"
    descriptor = _open_existing(path, layout)
    if descriptor is None:
        folder.mkdir(parents=True, exist_ok=True)
        _create(path, layout)
        descriptor = _open_existing(path, layout)
    if descriptor is None:
        raise OSError(f"'{path}' can't be opened")
    os.utime(path)  # its last use
    return descriptor


def _open_existing(path: Path, layout: CacheLayout) -> int | None:
    for _ in range(2):  # another process may have created it between the first look and the second
        found = read_layout(path)
        if found is not None and found.has_places_of(layout):
            return os.open(path, os.O_RDWR | NO_FOLLOW)
        if not os.path.lexists(path):
            return None
    path.unlink(missing_ok=True)
    return None


def _create(path: Path, layout: CacheLayout) -> None:
    """Create a file of empty places. If another process creates it at the same time, that one's stays."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(layout.make_header())
            file.truncate(layout.file_bytes)  # sparse: it takes no space before images are written
        _publish(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _publish(temporary: str, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        Path(temporary).replace(path)


def read_layout(path: Path) -> CacheLayout | None:
    """Read the header of a file; None if it is absent, damaged, or of another format."""
    try:
        with os.fdopen(open_to_read(path), "rb") as file:
            header = json.loads(file.read(HEADER_BYTES))
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError, RecursionError):
        return None
    layout = _parse_header(header) if isinstance(header, Mapping) else None
    return layout if layout is not None and layout.file_bytes == size else None


def _parse_header(header: Mapping[str, Any]) -> CacheLayout | None:
    rows, shape, dtype, data = (header.get(key) for key in ("rows", "shape", "dtype", "data"))
    is_shape = isinstance(shape, list) and all(type(each) is int and each > 0 for each in shape)
    if header.get(CACHE_KEY) != CACHE_FORMAT or type(rows) is not int or rows < 1 or not is_shape:
        return None
    if dtype not in DTYPES or not isinstance(data, str) or not isinstance(shape, list):
        return None
    return CacheLayout(rows, tuple(shape), str(dtype), data)


# ---- the folder ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CacheFile:
    """A file of the cache, as listed."""

    path: Path
    layout: CacheLayout | None  # None for a file that is damaged, or was not completed
    used_bytes: int  # on the disk: empty places take none
    last_use: float  # seconds since 1970


def list_cache_files(folder: Path) -> list[CacheFile]:
    """List the files of the cache, the most recently used first."""
    try:
        paths = [each for each in folder.iterdir() if ENDING in each.name]
    except OSError:
        return []
    found = (_describe_file(each) for each in paths)
    return sorted((each for each in found if each is not None), key=lambda each: -each.last_use)


def _describe_file(path: Path) -> CacheFile | None:
    try:
        status = path.lstat()
    except OSError:  # removed by another process
        return None
    used = status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
    layout = read_layout(path) if path.suffix == ENDING and not path.name.startswith(".") else None
    return CacheFile(path, layout, used, status.st_mtime)


def remove_cache_files(folder: Path) -> list[CacheFile]:
    """Remove all files of the cache, and return those with images. Processes that use them go on without harm."""
    files = list_cache_files(folder)
    for path in folder.glob(f"*{STATISTICS_ENDING}"):
        path.unlink(missing_ok=True)
    for each in files:
        each.path.unlink(missing_ok=True)
    return files


def make_room(folder: Path, name: str, file_bytes: int) -> str:
    """Make room for a file: remove those whose last use is longest ago, until all together are within the limit.

    Args:
        folder: where the files are
        name: name of the file, without its ending
        file_bytes: its size once it is full

    Returns:
        Where room is lacking: `limit` or `disk`; "" if the file has room.
    """
    limit = get_limit("cache_bytes")
    if file_bytes > limit:
        return "limit"
    others = [each for each in list_cache_files(folder) if each.path.name != f"{name}{ENDING}"]
    total = file_bytes + sum(each.used_bytes for each in others)
    while others and total > limit:
        oldest = others.pop()
        oldest.path.unlink(missing_ok=True)
        total -= oldest.used_bytes
    own = _describe_file(folder / f"{name}{ENDING}")
    needed = file_bytes - (own.used_bytes if own else 0)
    return "disk" if needed > (1 - FREE_SHARE) * get_free_disk_bytes(folder) else ""
