"""Lazy arrays for tests: rows that are read one by one, as files are."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlspec.data.images.image_cache import CacheableArray
from dlspec.data.lazy_array import Digest, LazyArray, MapTasks
from dlspec.errors import DataError


def make_pixels(rows: int, size: int = 4, channels: int = 3) -> Tensor:
    """Make random images (rows, channels, size, size), uint8."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (rows, channels, size, size), generator=generator, dtype=torch.uint8)


class Unit(nn.Module):
    """Prepares images: numbers in [0, 1], then around 0."""

    def forward(self, values: Tensor) -> Tensor:
        return ((values.float() / 255 if values.dtype == torch.uint8 else values) - 0.5) / 0.25


class FileArray(CacheableArray):
    """Images that are read one by one, as if each were a file.

    Args:
        pixels: the content of the files (N, C, H, W), uint8
        bad_row: a file that can't be read
        seconds: how long reading a file takes
    """

    dtype = torch.float32

    def __init__(self, pixels: Tensor, bad_row: int = -1, seconds: float = 0.0) -> None:
        self._pixels, self._bad_row, self._seconds = pixels, bad_row, seconds
        self.shape = tuple(pixels.shape)
        self.read: list[int] = []  # the rows, in the order in which they were read

    def gather(self, rows: Tensor, map_tasks: MapTasks = map) -> Tensor:
        """Read each row by itself."""
        images = list(map_tasks(self.read_row, rows.tolist()))
        return torch.stack(images) if images else self._pixels[:0]

    def read_row(self, row: int) -> Tensor:
        """Read a file."""
        time.sleep(self._seconds)
        if row == self._bad_row:
            raise DataError("path", f"image_{row}.png: truncated")
        self.read.append(row)
        return self._pixels[row]

    @property
    def module(self) -> nn.Module:
        """The module that prepares rows."""
        return Unit()

    def update_hash(self, digest: Digest) -> None:
        """Add the pixels."""
        digest.update(self._pixels.numpy().tobytes())

    @property
    def recipe(self) -> str:
        """How files are read."""
        return "as they are"

    @property
    def content_keys(self) -> Sequence[bytes]:
        """The hash of each row's pixels."""
        return [hashlib.blake2b(each.numpy().tobytes(), digest_size=16).digest() for each in self._pixels]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        return tuple(self._pixels.shape[1:])

    @property
    def row_dtype(self) -> torch.dtype:
        """Type of the pixels."""
        return self._pixels.dtype

    def select(self, rows: slice | Tensor) -> LazyArray:
        """Select some files; their reads are counted by themselves."""
        return FileArray(self._pixels[rows], self._bad_row, self._seconds)
