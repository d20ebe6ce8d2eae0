"""Paths as users write them, with `~`."""

from __future__ import annotations

from pathlib import Path

from dlspec.errors import Code, DataError


def expand_home(path: str) -> Path:
    """Replace `~` in a path; DataError without a home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        found = f"found no home folder for '{path}'; write the whole path"
        raise DataError("path", found, Code.FILE_UNREADABLE) from None
