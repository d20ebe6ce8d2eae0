"""Settings of glibc's allocator: keep freed memory for the process, or return it to the operating system.

Returned memory must be cleared by the operating system before it is used again, which costs time. Python can change
the settings only through ctypes. With another C library nothing is changed.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterable
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # malloc.h
_KEEP_SETTINGS = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
_DEFAULT_SETTINGS = ((_MMAP_MAX, 65536), (_TRIM_THRESHOLD, 128 * 1024))
_FIRST_SETTINGS = ((_MMAP_THRESHOLD, 128 * 1024), (_TRIM_THRESHOLD, 128 * 1024))  # which glibc starts with


@cache
def find_glibc() -> ctypes.CDLL | None:
    """Return the process's C library if it is glibc and has glibc's own allocator, else None."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def keep_freed_memory(library: ctypes.CDLL) -> None:
    """Make the allocator keep freed memory for the process."""
    _set(library, _KEEP_SETTINGS)


def release_freed_memory(library: ctypes.CDLL) -> None:
    """Undo `keep_freed_memory`, and return the kept memory to the operating system."""
    _set(library, _DEFAULT_SETTINGS)
    library.malloc_trim(0)


def return_freed_tensors() -> None:
    """Make the allocator return the memory of each tensor of at least 128 KiB when it is freed, from here on.

    glibc starts like this, but then allocates tensors of up to 32 MiB one after the other, and keeps the memory of
    those that are freed between others.
    """
    library = find_glibc()
    if library is not None:
        _set(library, _FIRST_SETTINGS)


def _set(library: ctypes.CDLL, settings: Iterable[tuple[int, int]]) -> None:
    for parameter, value in settings:
        library.mallopt(parameter, value)
