"""Paths as a user writes them."""

from __future__ import annotations

from pathlib import Path

from dlspec.errors import DataError


def expand_home(path: str) -> Path:
    """The path with `~` replaced; a home folder that does not exist is a `DataError`."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise DataError("path", f"there is no home folder for '{path}': write the whole path") from None
