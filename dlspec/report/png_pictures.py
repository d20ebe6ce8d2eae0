"""Check PNG pictures from files that anyone may have written, and make data: URIs of them."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from dlspec.runs.io import read_small_file

MAX_PICTURE_BYTES = 2_000_000  # of one picture
MAX_SIDE = 10_000  # pixels
MAX_PIXELS = 20_000_000  # a browser takes 4 bytes of memory for each
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_URI_START = "data:image/png;base64,"
# What a browser needs. Texts, color profiles, animations and everything else is left out.
_KEPT_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_COLOR_TYPES = (0, 2, 3, 4, 6)


def read_picture(path: Path) -> str | None:
    """Read a PNG file as a data: URI; None if it is missing, too large or not a PNG picture."""
    content = read_small_file(path, MAX_PICTURE_BYTES)
    return None if content is None else make_picture_uri(content)


def check_picture_uri(uri: object) -> str | None:
    """Return a data: URI with the PNG picture in `uri` and nothing else; None if `uri` is anything else."""
    if not isinstance(uri, str) or not uri.startswith(_URI_START) or len(uri) > 2 * MAX_PICTURE_BYTES:
        return None
    try:
        return make_picture_uri(base64.b64decode(uri.removeprefix(_URI_START), validate=True))
    except ValueError:
        return None


def make_picture_uri(content: bytes) -> str | None:
    """Make a data: URI of a PNG picture without its texts and metadata; None if the bytes are not a PNG picture."""
    chunks = [(name, data) for name, data in _iterate_chunks(content) if name in _KEPT_CHUNKS]
    names = [name for name, _ in chunks]
    if len(chunks) < 3 or names[0] != b"IHDR" or names[-1] != b"IEND" or b"IDAT" not in names:
        return None
    if names.count(b"IHDR") != 1 or not _has_valid_header(chunks[0][1]):
        return None
    checked = _SIGNATURE + b"".join(_write_chunk(name, data) for name, data in chunks)
    return _URI_START + base64.b64encode(checked).decode()


def _iterate_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and data of each chunk, up to the end of the picture or the first damaged chunk."""
    position = len(_SIGNATURE)
    if content[:position] != _SIGNATURE:
        return
    while position + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        data = content[position + 8 : position + 8 + length]
        end = position + 12 + length
        if end > len(content) or struct.unpack_from(">I", content, end - 4)[0] != zlib.crc32(name + data):
            return
        yield name, data
        if name == b"IEND":
            return
        position = end


def _has_valid_header(header: bytes) -> bool:
    if len(header) != 13:
        return False
    width, height, depth, color, compression, filtering, _ = struct.unpack(">IIBBBBB", header)
    is_small = 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS
    return is_small and depth in (1, 2, 4, 8, 16) and color in _COLOR_TYPES and (compression, filtering) == (0, 0)


def _write_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
