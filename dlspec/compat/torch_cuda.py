"""CUDA graphs whose recording has failed: PyTorch has no public way to end it, only one to end a good one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch


def end_failed_recording(graph: torch.cuda.CUDAGraph, pool: Any) -> None:
    """End the recording, and let the current device's allocator serve its usual pool again.

    If PyTorch drops the private call, `capture_end` alone has to do.
    """
    with suppress(RuntimeError):  # it says that what was recorded is worth nothing
        graph.capture_end()
    with suppress(RuntimeError, AttributeError):
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
