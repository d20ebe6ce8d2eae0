"""Opening of safetensors files (0.8) whose header or name the library handles badly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dlspec.errors import UserError
from dlspec.limits import explain_raising_limit, get_limit

LENGTH_BYTES = 8  # of the header's length, a little-endian number at the start of a file


def open_tensor_file(path: Path) -> Any:
    """Open a safetensors file as `safetensors.safe_open` does, after checking the size of its header.

    The library parses a header of up to 100 MB, which takes 15 times its size in memory, and refuses names that are not
    UTF-8.

    Raises:
        UserError: the header is larger than `DLSPEC_MAX_WEIGHTS_HEADER_BYTES`.
        OSError: the file can't be read.
        SafetensorError: the file is not complete.
    """
    from safetensors import safe_open

    with path.open("rb") as file:
        _check_header_size(file.read(LENGTH_BYTES), os.fstat(file.fileno()).st_size)
        return safe_open(_find_utf8_name(path, file.fileno()), framework="pt")


def _check_header_size(start: bytes, file_size: int) -> None:
    size, limit = int.from_bytes(start, "little"), get_limit("weights_header_bytes")
    if limit < size <= file_size:  # a file that is shorter than its header is refused by the library
        found = f"its header has {size:,} bytes, at most {limit:,} are allowed"
        raise UserError(f"{found}; {explain_raising_limit('weights_header_bytes')}")


def _find_utf8_name(path: Path, descriptor: int) -> str:
    """Return a UTF-8 name of an open file: its own, or that of its descriptor."""
    name = os.fspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"/dev/fd/{descriptor}"  # not on Windows, where all names are Unicode
    return name
