"""Prefetch batches in threads while the device computes, for `trainer.num_workers`."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
Batch = tuple[Tensors, Tensors]  # the network's inputs in the order of its `forward`, and the targets of the loss
PREFETCH_FACTOR = 2  # batches that each thread prepares in advance


def prefetch(
    tasks: Iterable[Callable[[], Tensors]], workers: int, device: torch.device, max_bytes: int = sys.maxsize
) -> Generator[Tensors, None, None]:
    """Run tasks in threads and yield their results in order, on the device.

    Results for a GPU are copied from pinned memory, so that the copy is asynchronous.

    Args:
        tasks: functions that return the tensors of one batch
        workers: number of threads
        device: where the results go
        max_bytes: of results that wait; one may always wait

    Returns:
        An iterator over the tensors of each batch.
    """
    is_pinned = device.type == "cuda"

    def run_task(task: Callable[[], Tensors]) -> Tensors:
        return tuple([each.pin_memory() for each in task()]) if is_pinned else task()

    def move_result(future: Future[Tensors]) -> Tensors:
        return tuple([each.to(device, non_blocking=is_pinned) for each in future.result()])

    # Until the first result is there nobody knows how large they are.
    max_waiting = PREFETCH_FACTOR * workers if max_bytes == sys.maxsize else 1
    pool = ThreadPoolExecutor(workers, thread_name_prefix="dlspec-batches")
    waiting: deque[Future[Tensors]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(run_task, task))
            if len(waiting) > max_waiting:
                result = move_result(waiting.popleft())
                max_waiting = min(PREFETCH_FACTOR * workers, max(1, max_bytes // max(_count_bytes(result), 1)))
                yield result
        while waiting:
            yield move_result(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _count_bytes(tensors: Tensors) -> int:
    return sum(each.nbytes for each in tensors)
