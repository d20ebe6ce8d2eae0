"""Lazy arrays for tests: rows that are read one by one, as files are."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

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


class FileArray(LazyArray):
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
        images = list(map_tasks(self._read_file, rows.tolist()))
        return torch.stack(images) if images else self._pixels[:0]

    def _read_file(self, row: int) -> Tensor:
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
