"""Read IDX files, the format of MNIST, gzipped or not. Whatever a file says, at most 100,000 samples are allocated.

Format: http://yann.lecun.com/exdb/mnist (a big-endian magic number 0x08 and the rank, the sizes, then the bytes).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from dlspec.errors import Code, DataError

MAX_SAMPLES = 100_000


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read the samples of one file, each of `shape` (`()` for labels), as bytes. Every error is a `DataError`."""
    try:
        with path.open("rb") as file:
            return _read_samples(_open_unzipped(file), path, shape)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError("path", f"'{path}' can't be read: {error}", Code.FILE_UNREADABLE) from None


def _open_unzipped(file: IO[bytes]) -> IO[bytes]:
    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if zipped else file  # type: ignore[return-value]


def _read_samples(stream: IO[bytes], path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    count = _read_count(stream, path, shape)
    expected = count * math.prod(shape)
    content = stream.read(expected + 1)
    if len(content) != expected:
        found = f"only {len(content):,}" if len(content) < expected else "more"
        raise DataError("path", f"'{path}': the header announces {expected:,} bytes, but {found} follow")
    return np.frombuffer(content, np.uint8).reshape(count, *shape)


def _read_count(stream: IO[bytes], path: Path, shape: tuple[int, ...]) -> int:
    """Read the number of samples from the header, and check it."""
    rank = 1 + len(shape)
    header = stream.read(4 + 4 * rank)
    magic = 0x0800 + rank
    if len(header) < 4 + 4 * rank or struct.unpack_from(">I", header)[0] != magic:
        kind = "images" if shape else "labels"
        raise DataError(
            "path", f"'{path}' is not an IDX file of {kind}: expected 0x{magic:08x} at its start, got {header[:4]!r}"
        )
    count, *sizes = struct.unpack_from(f">{rank}I", header, 4)
    if tuple(sizes) != shape:
        found, expected_sizes = (" by ".join(str(size) for size in each) for each in (sizes, shape))
        raise DataError("path", f"'{path}' must have images of {expected_sizes} pixels, got {found}")
    if not 0 < count <= MAX_SAMPLES:
        raise DataError("path", f"'{path}' must have 1 to {MAX_SAMPLES:,} samples, but its header says {count:,}")
    return int(count)
