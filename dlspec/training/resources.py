"""What a run asks of the machine: how many threads, and that freed memory is kept for the next step."""

from __future__ import annotations

import ctypes
import logging
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

log = logging.getLogger("dlspec")

Allocator = Literal["auto", "default", "keep"]
FLOAT = 4
"""Bytes of a number."""
LEAST_LARGE = 2**20
"""glibc gives back so much memory where it is freed at a step's end, and the system clears it for the next one."""
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h
_KEEPS = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
_DEFAULTS = ((_MMAP_MAX, 65536), (_TRIM_THRESHOLD, 128 * 1024))


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Within it PyTorch computes with so many threads; None leaves them."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def allocator(wanted: Allocator, device: torch.device, largest: int) -> Iterator[None]:
    """Within it freed memory stays with the process, where that is wanted and glibc manages it.

    `auto` wants it where a step's `largest` tensor, in bytes, is large: glibc would map and clear its memory at every
    step, at some sizes always (from 32 MiB on, M_MMAP_THRESHOLD in mallopt(3)), at others as the heap happens to lie:
    measured 1.1, 1.8 and 2.9 times the speed of a small CNN's steps at batch 32, 128 and 512.
    """
    library = _glibc() if device.type == "cpu" and wanted != "default" else None
    if library is None or (wanted == "auto" and not is_large(largest)):
        yield
        return
    log.info("freed memory is kept for the next step: its largest tensor has %d MiB", largest // 2**20)
    for parameter, value in _KEEPS:
        library.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in _DEFAULTS:
            library.mallopt(parameter, value)
        library.malloc_trim(0)


def is_large(largest: int) -> bool:
    """Whether a step whose largest tensor has so many bytes is better off with memory that is kept."""
    return largest > LEAST_LARGE


def _glibc() -> ctypes.CDLL | None:
    """The process's C library, where it is glibc and nothing stands in for its allocator."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
