"""Threads that decode files, one file a task."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

MAX_DECODER_THREADS = 16  # more wait for Python's lock


def open_decoders(threads: int = 0) -> ThreadPoolExecutor:
    """Open a pool of threads for tasks that read one file each. Close it with `with`.

    Args:
        threads: how many; 0 for one on each core
    """
    import torch

    # In a forked process PyTorch makes its own pool of threads anew at the first call: two threads must not meet there.
    torch.set_num_threads(torch.get_num_threads())
    count = threads or min(count_cores(), MAX_DECODER_THREADS)
    return ThreadPoolExecutor(count, "dlspec-decoders", _use_one_thread)


def count_cores() -> int:
    """Count the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _use_one_thread() -> None:
    """Let a decoder thread compute without threads of its own, which would be too many together."""
    import torch

    torch.set_num_threads(1)  # of this thread alone, as in PyTorch's own pin-memory thread
