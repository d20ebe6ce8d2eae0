"""glibc's allocator: whether it keeps freed memory for the process, or gives it back and has it cleared anew.

Python has no way to tell it so but ctypes. Where the C library is another one, nothing is done.
"""

from __future__ import annotations

import ctypes
import platform
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h
_KEEP_SETTINGS = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
_DEFAULT_SETTINGS = ((_MMAP_MAX, 65536), (_TRIM_THRESHOLD, 128 * 1024))


def find_glibc() -> ctypes.CDLL | None:
    """The process's C library, if it is glibc and nothing stands in for its allocator."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def keep_freed_memory(library: ctypes.CDLL) -> None:
    """From now on freed memory stays with the process."""
    for parameter, value in _KEEP_SETTINGS:
        library.mallopt(parameter, value)


def release_freed_memory(library: ctypes.CDLL) -> None:
    """Undo `keep_freed_memory`, and give back what it has kept."""
    for parameter, value in _DEFAULT_SETTINGS:
        library.mallopt(parameter, value)
    library.malloc_trim(0)
