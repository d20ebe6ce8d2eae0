"""Where decoded rows are kept: in memory, or in a file that other runs use too. Several threads may share a store."""

from __future__ import annotations

import logging
import mmap
import os
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlspec.data.images.cache_files import CHECKSUM_BYTES, HEADER_BYTES, CacheLayout, compute_checksum
from dlspec.formatting import first_line

log = logging.getLogger("dlspec")

Places = NDArray[np.int64]


class RowStore(ABC):
    """Places for decoded rows.

    Args:
        values: the places (places, ...)
    """

    def __init__(self, values: Tensor) -> None:
        self._values = values

    def read(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Read rows.

        Args:
            places: where they are (n,), int64

        Returns:
            The rows (n, ...), and which of them are there (n,). Those that are not have any values.
        """
        is_there = torch.from_numpy(self._find(places.numpy()))
        if bool(is_there.all()):
            return self._values.index_select(0, places), is_there
        rows = self._values.new_empty(len(places), *self._values.shape[1:])
        rows[is_there] = self._values.index_select(0, places[is_there])
        return rows, is_there

    @abstractmethod
    def _find(self, places: Places) -> NDArray[np.bool_]:
        """Return which places have a row."""

    @abstractmethod
    def write(self, place: int, row: Tensor) -> None:
        """Keep a row."""


class MemoryStore(RowStore):
    """Keeps rows in memory, which is taken as they are written.

    Args:
        rows: number of places
        shape: of one row
        dtype: of the rows
    """

    def __init__(self, rows: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__(torch.empty(rows, *shape, dtype=dtype))
        self._is_there = np.zeros(rows, np.bool_)

    def _find(self, places: Places) -> NDArray[np.bool_]:
        return np.asarray(self._is_there[places])

    def write(self, place: int, row: Tensor) -> None:
        """Keep a row."""
        self._values[place] = row
        self._is_there[place] = True


class FileStore(RowStore):
    """Keeps rows in a file, which other processes may read and write too.

    What is written is there for the others at once, and after this process was killed. A row counts after this process
    compared it with its checksum. Rows are read from memory that is mapped to the file, but written by system calls:
    on a full disk these fail, while writing to mapped memory would kill the process.

    Args:
        descriptor: the file, open to read and write
        layout: what it contains
    """

    def __init__(self, descriptor: int, layout: CacheLayout) -> None:
        self._descriptor, self._layout = descriptor, layout
        mapped = mmap.mmap(descriptor, layout.file_bytes)
        self._checksums = np.frombuffer(mapped, np.uint32, layout.rows, HEADER_BYTES)
        values: NDArray[Any] = np.frombuffer(
            mapped, layout.dtype, layout.rows * layout.row_bytes // np.dtype(layout.dtype).itemsize, layout.values_start
        )
        super().__init__(torch.from_numpy(values).view(layout.rows, *layout.shape))
        self._bytes = np.frombuffer(mapped, np.uint8, layout.rows * layout.row_bytes, layout.values_start)
        self._is_verified = np.zeros(layout.rows, np.bool_)
        self._can_write = True

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def _find(self, places: Places) -> NDArray[np.bool_]:
        unverified = np.unique(places[~self._is_verified[places]])
        for place in unverified[self._checksums[unverified] != 0].tolist():
            self._is_verified[place] = self._has_right_checksum(place)
        return np.asarray(self._is_verified[places])

    def _has_right_checksum(self, place: int) -> bool:
        size = self._layout.row_bytes
        found = compute_checksum(self._bytes[place * size : (place + 1) * size].data)
        return found == int(self._checksums[place])

    def write(self, place: int, row: Tensor) -> None:
        """Keep a row; the checksum comes last. After an error nothing is written any more."""
        if not self._can_write:
            return
        layout, content = self._layout, row.contiguous().numpy().tobytes()
        checksum = compute_checksum(content)
        if int(self._checksums[place]) == checksum and self._has_right_checksum(place):
            return  # another process wrote it
        try:
            _write_at(self._descriptor, content, layout.values_start + place * layout.row_bytes)
            _write_at(self._descriptor, np.uint32(checksum).tobytes(), HEADER_BYTES + place * CHECKSUM_BYTES)
        except OSError as error:
            if self._can_write:
                log.warning("the image cache can't be written (%s): other images are decoded in every epoch",
                            first_line(error.strerror or str(error)))  # fmt: skip
            self._can_write = False


def _write_at(descriptor: int, content: bytes, offset: int) -> None:
    """Write all bytes: a system call may write fewer."""
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], offset + written)
