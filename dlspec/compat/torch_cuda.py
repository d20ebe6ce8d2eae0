"""Ending a CUDA graph recording that has failed; PyTorch's public way only ends a successful one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch


def end_failed_graph_capture(graph: torch.cuda.CUDAGraph, pool: Any) -> None:
    """End the recording, and make the current device's allocator use its usual pool again.

    If PyTorch removes the private function, only `capture_end` is called.
    """
    with suppress(RuntimeError):  # PyTorch reports that the recording is invalid
        graph.capture_end()
    with suppress(RuntimeError, AttributeError):
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
