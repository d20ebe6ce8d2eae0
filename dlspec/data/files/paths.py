"""Paths as a user writes them."""

from __future__ import annotations

from pathlib import Path

from dlspec.errors import Code, DataError


def expand_home(path: str) -> Path:
    """The path with `~` replaced; a home folder that does not exist is a `DataError`."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        found = f"there is no home folder for '{path}': write the whole path"
        raise DataError("path", found, Code.FILE_UNREADABLE) from None
