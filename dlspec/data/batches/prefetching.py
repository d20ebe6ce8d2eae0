"""Prefetch batches in threads while the device computes, for `trainer.num_workers`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
PREFETCH_FACTOR = 2  # batches that each thread prepares in advance


def prefetch(tasks: Iterable[Callable[[], Tensors]], workers: int, device: torch.device) -> Iterator[Tensors]:
    """Run tasks in threads and yield their results in order, on the device.

    Results for a GPU are copied from pinned memory, so that the copy is asynchronous.

    Args:
        tasks: functions that return the tensors of one batch
        workers: number of threads
        device: where the results go

    Returns:
        An iterator over the tensors of each batch.
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
