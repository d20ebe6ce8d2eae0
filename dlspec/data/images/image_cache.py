"""`data.cache`: keep decoded images in memory or in a file, so that only the first epoch decodes them."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from dlspec.data.images.cache_files import (
    CACHE_FORMAT,
    CacheLayout,
    find_image_cache_folder,
    make_room,
    open_cache_file,
)
from dlspec.data.images.row_stores import FileStore, MemoryStore, RowStore
from dlspec.data.lazy_array import Digest, LazyArray, MapTasks
from dlspec.errors import Code, DataError
from dlspec.formatting import first_line, format_bytes
from dlspec.limits import GIGABYTE, explain_raising_limit, get_limit

CacheSetting = Literal["auto", "memory", "disk", False]
MAX_AUTO_MEMORY = 2 * GIGABYTE  # that `auto` takes at most; several jobs of a sweep may do so at once
AUTO_SHARE = 0.25  # of the free memory that `auto` takes at most
KEY_BYTES = 16  # of a row's content hash


class CacheableArray(LazyArray):
    """A lazy array whose rows can be cached: each depends on the content of one file and on how it is read."""

    @property
    @abstractmethod
    def recipe(self) -> str:
        """How files are read: files of equal content and recipe give equal rows."""

    @property
    @abstractmethod
    def content_keys(self) -> Sequence[bytes]:
        """The hash of each row's file, 16 bytes."""

    @property
    @abstractmethod
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one compact row."""

    @property
    @abstractmethod
    def row_dtype(self) -> torch.dtype:
        """Type of the compact rows."""

    @abstractmethod
    def read_row(self, row: int) -> Tensor:
        """Read one row as compact values; DataError with the file's name and the reason."""


class CachedArray(LazyArray):
    """A lazy array that decodes each of its rows once.

    Args:
        array: reads the rows
        store: keeps them
        places: of the rows in the store (N,), int64
    """

    def __init__(self, array: CacheableArray, store: RowStore, places: Tensor) -> None:
        self._array, self._store, self._places = array, store, places
        self.shape, self.dtype = array.shape, array.dtype

    def gather(self, rows: Tensor, map_tasks: MapTasks = map) -> Tensor:
        """Read some rows, from the store where they are there."""
        values, is_there = self._store.read(self._places[rows])
        missing = (~is_there).nonzero().flatten()
        found = map_tasks(self._read_and_keep, rows[missing].tolist())
        for position, value in zip(missing.tolist(), found, strict=True):
            values[position] = value
        return values

    def _read_and_keep(self, row: int) -> Tensor:
        value = self._array.read_row(row)
        self._store.write(int(self._places[row]), value)
        return value

    @property
    def module(self) -> nn.Module:
        """The module that prepares rows."""
        return self._array.module

    def update_hash(self, digest: Digest) -> None:
        """Add what the files contain."""
        self._array.update_hash(digest)

    def select(self, rows: slice | Tensor) -> LazyArray:
        """Select some rows; they are kept in the same store."""
        chosen = self._array.select(rows)
        assert isinstance(chosen, CacheableArray)
        return CachedArray(chosen, self._store, self._places[rows.cpu() if isinstance(rows, Tensor) else rows])


# ---- which rows are kept where ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CacheContent:
    """The rows of one field or target of all splits, which are kept together."""

    arrays: Sequence[CacheableArray]  # one for each split
    keys: bytes  # the different hashes of their files, sorted, one after another
    places: Sequence[Tensor]  # by array: of each row its place among the keys

    @property
    def layout(self) -> CacheLayout:
        """The layout of their file."""
        first = self.arrays[0]
        return CacheLayout(
            len(self.keys) // KEY_BYTES, tuple(first.row_shape), str(first.row_dtype).removeprefix("torch.")
        )

    @property
    def name(self) -> str:
        """Name of their file: a hash of the content of all files and of how they are read."""
        digest = blake2b(f"{CACHE_FORMAT} {self.arrays[0].recipe} {self.layout!r} ".encode(), digest_size=16)
        digest.update(self.keys)
        return digest.hexdigest()

    @property
    def row_bytes(self) -> int:
        """Size of all rows."""
        return self.layout.rows * self.layout.row_bytes

    def attach(self, store: RowStore) -> list[LazyArray]:
        """Return the arrays with this store."""
        return [CachedArray(array, store, places) for array, places in zip(self.arrays, self.places, strict=True)]


def make_cache_content(arrays: Sequence[CacheableArray]) -> CacheContent:
    """Collect what is cached together. Files of equal content have one place, whichever splits they are in."""
    hashes = b"".join(key.ljust(KEY_BYTES, b"\0") for array in arrays for key in array.content_keys)
    keys, places = np.unique(np.frombuffer(hashes, f"S{KEY_BYTES}"), return_inverse=True)
    parts = torch.split(torch.from_numpy(places.reshape(-1)), [len(each) for each in arrays])
    return CacheContent(arrays, keys.tobytes(), parts)


Arrays = Sequence[LazyArray]  # the rows of one field or target: an array for each split
Key = tuple[str, str]  # `fields` or `targets`, and a name


def cache_arrays(
    arrays: Mapping[Key, Arrays], setting: CacheSetting, data: str
) -> tuple[Mapping[Key, Arrays], tuple[str, ...]]:
    """Keep the rows of lazy arrays as they are read.

    Args:
        arrays: those of one data set
        setting: `memory`, `disk`, False for no cache; `auto` for memory if they are small, else for the disk
        data: name of the data set

    Returns:
        The arrays that are cached now, and lines for the user.

    Raises:
        DataError: if the memory or the disk has no room for them, and the setting asks for it.
    """
    contents = {key: make_cache_content(found) for key, each in arrays.items() if (found := _find_cacheable(each))}
    size = sum(each.row_bytes for each in contents.values())
    if not setting or not size:
        return {}, ()
    if setting == "memory" or (setting == "auto" and size <= min(MAX_AUTO_MEMORY, AUTO_SHARE * find_free_memory())):
        _check_memory(size)
        return {key: each.attach(_make_memory_store(each)) for key, each in contents.items()}, ()
    folder = find_image_cache_folder()
    try:
        cached = {key: each.attach(_open_file_store(each, folder, data)) for key, each in contents.items()}
    except (OSError, _NoRoom) as error:
        reason = _explain(error, size, folder)
        if setting == "disk":
            raise DataError("cache", f"{reason}, or write data.cache=false", Code.TOO_LARGE) from None
        return {}, (f"images are decoded in every epoch: {reason}",)
    note = f"decoded images are kept in '{folder}' ({format_bytes(size)}); python -m dlspec cache shows that folder"
    return cached, (note,)


def _find_cacheable(arrays: Arrays) -> list[CacheableArray]:
    """Return the arrays if all of them can be cached together, else []."""
    found = [each for each in arrays if isinstance(each, CacheableArray)]
    is_alike = len(found) == len(arrays) and len({each.recipe for each in found}) == 1
    return found if is_alike and any(map(len, found)) else []


def _make_memory_store(content: CacheContent) -> RowStore:
    first = content.arrays[0]
    return MemoryStore(content.layout.rows, tuple(first.row_shape), first.row_dtype)


class _NoRoom(Exception):
    """A file has no room.

    Args:
        place: where room is lacking: `limit` or `disk`
    """

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place


def _open_file_store(content: CacheContent, folder: Path, data: str) -> RowStore:
    layout = content.layout
    if not hasattr(os, "pwrite"):
        raise OSError("this system can't write at a place of a file")
    reason = make_room(folder, content.name, layout.file_bytes)
    if reason:
        raise _NoRoom(reason)
    named = CacheLayout(layout.rows, layout.shape, layout.dtype, data)
    return FileStore(open_cache_file(folder, content.name, named), layout)


def _explain(error: OSError | _NoRoom, size: int, folder: Path) -> str:
    """Explain why images can't be kept, with a fix."""
    if isinstance(error, OSError):
        return f"the cache in '{folder}' can't be written ({first_line(error.strerror or str(error))})"
    if error.place == "limit":
        limit = f"the cache's limit of {format_bytes(get_limit('cache_bytes'))}"
        return f"decoded images take {format_bytes(size)}, more than {limit}; {explain_raising_limit('cache_bytes')}"
    found = f"decoded images take {format_bytes(size)}, and the disk of '{folder}' has too little free space"
    return f"{found}; make room, or set the environment variable DLSPEC_CACHE to a folder elsewhere"


def _check_memory(size: int) -> None:
    if size > find_free_memory():
        found = f"decoded images take {format_bytes(size)}, but only {format_bytes(find_free_memory())} are free"
        raise DataError("cache", f"{found}; write data.cache=disk", Code.TOO_LARGE)


def find_free_memory() -> int:
    """Return how much memory can be taken without swapping; where the system does not say, half of all memory."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 4 * GIGABYTE
