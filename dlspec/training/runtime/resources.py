"""What a run asks of the machine: how many threads, and that freed memory is kept for the next step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from dlspec.compat.glibc import find_glibc, keep_freed_memory, release_freed_memory

log = logging.getLogger("dlspec")

Allocator = Literal["auto", "default", "keep"]
FLOAT_BYTES = 4
"""Bytes of a number."""
MIN_LARGE_BYTES = 2**20
"""glibc gives back so much memory where it is freed at a step's end, and the system clears it for the next one."""


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
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
def use_allocator(mode: Allocator, device: torch.device, largest_bytes: int) -> Iterator[None]:
    """Within it freed memory stays with the process, where that is wanted and glibc manages it.

    `auto` wants it where a step's `largest` tensor, in bytes, is large: glibc would map and clear its memory at every
    step, at some sizes always (from 32 MiB on, M_MMAP_THRESHOLD in mallopt(3)), at others as the heap happens to lie:
    measured 1.1, 1.8 and 2.9 times the speed of a small CNN's steps at batch 32, 128 and 512.
    """
    library = find_glibc() if device.type == "cpu" and mode != "default" else None
    if library is None or (mode == "auto" and not is_large_tensor(largest_bytes)):
        yield
        return
    log.info("freed memory is kept for the next step: its largest tensor has %d MiB", largest_bytes // 2**20)
    keep_freed_memory(library)
    try:
        yield
    finally:
        release_freed_memory(library)


def is_large_tensor(largest_bytes: int) -> bool:
    """Whether a step whose largest tensor has so many bytes is better off with memory that is kept."""
    return largest_bytes > MIN_LARGE_BYTES
