"""Batches that threads gather in the host's memory while the device computes: `trainer.num_workers`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
PREFETCH_FACTOR = 2
"""Batches that are gathered ahead by each thread."""


def prefetch(tasks: Iterable[Callable[[], Tensors]], workers: int, device: torch.device) -> Iterator[Tensors]:
    """What the tasks give, in their order, on the device; `workers` threads are some tasks ahead.

    Copies to a GPU begin in pinned memory, so that nobody waits for them.
    """
    is_pinned = device.type == "cuda"

    def run_task(task: Callable[[], Tensors]) -> Tensors:
        return tuple([each.pin_memory() for each in task()]) if is_pinned else task()

    def move_result(future: Future[Tensors]) -> Tensors:
        return tuple([each.to(device, non_blocking=is_pinned) for each in future.result()])

    pool = ThreadPoolExecutor(workers, thread_name_prefix="dlspec-batches")
    waiting: deque[Future[Tensors]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(run_task, task))
            if len(waiting) > PREFETCH_FACTOR * workers:
                yield move_result(waiting.popleft())
        while waiting:
            yield move_result(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
