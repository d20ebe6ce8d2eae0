"""`trainer.batch_size: auto`: try batch sizes on the real network and data, each twice the previous one."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch

from dlspec.network.memory_limits import get_memory_bytes
from dlspec.training.health.out_of_memory import clear_traceback, is_out_of_memory
from dlspec.training.trainer import Trainer
from dlspec.training.tuning.trial_training import make_trial_training

MIN_BATCH_SIZE, MAX_BATCH_SIZE = 8, 4096
MIN_BATCHES_PER_EPOCH = 20  # fewer hurt convergence
MAX_SEARCH_SECONDS = 5.0  # approximately
SECONDS_PER_SIZE = 0.1
# On a CPU each size must train this much faster than half of it: beyond the caches it would only need more memory.
MIN_SPEEDUP = 1.1
MAX_GPU_MEMORY_FRACTION = 0.85  # the rest is for other processes and longer samples
MAX_FREE_MEMORY_FRACTION = 0.5  # of the free memory of the machine, for training on a CPU


@dataclass(frozen=True)
class FoundBatchSize:
    """The result of the search."""

    batch_size: int
    explanation: str  # one line with the reason


def find_batch_size(trainer: Trainer) -> FoundBatchSize:
    """Find the largest batch size that fits into memory with some reserve.

    On a CPU it must also train clearly faster than half this batch size.

    It tries 8, 16, 32 and so on, up to 4096 and up to a twentieth of the training samples. The search trains the
    network and uses the generators, so the trainer can't be used afterwards.
    """
    sizes = list(_candidate_sizes(len(trainer.data.dataset.train)))
    best, speed, deadline = sizes[0], 0.0, time.monotonic() + MAX_SEARCH_SECONDS
    train, has_room = make_trial_training(trainer), _make_memory_check(trainer.state.device)
    for size in sizes:
        seconds = _try_size(trainer, train, size)
        if seconds is None:
            fits = best if size > best else _find_smaller_size(trainer, train, size)
            return _make_result(fits, f"{size} does not fit into memory")
        if not has_room():
            return _make_result(best, f"{size} leaves too little free memory")
        if trainer.state.device.type == "cpu" and size / seconds < MIN_SPEEDUP * speed:
            return _make_result(best, f"{size} is not faster")
        best, speed = size, size / seconds
        if time.monotonic() + 4 * seconds > deadline:
            return _make_result(best, "trying larger sizes would take too long")
    reached_max = 2 * best > MAX_BATCH_SIZE
    return _make_result(
        best,
        "larger sizes are not tried"
        if reached_max
        else f"with a larger size an epoch has < {MIN_BATCHES_PER_EPOCH} batches",
    )


def _find_smaller_size(trainer: Trainer, train: Callable[[int], None], size: int) -> int:
    """Find a size that fits below the smallest candidate. Return 1 if none fits: the run will then report it."""
    halves = [size // 2**power for power in range(1, size.bit_length())]
    return next((each for each in halves if _try_size(trainer, train, each) is not None), 1)


def _make_result(size: int, why: str) -> FoundBatchSize:
    return FoundBatchSize(size, f"trainer.batch_size: auto chose {size}, because {why}")


def _try_size(trainer: Trainer, train: Callable[[int], None], size: int) -> float | None:
    """Measure the seconds of a step with this batch size; return None if it runs out of memory."""
    try:
        with trainer.backend.apply_settings(size):
            return _measure_step_seconds(lambda: train(size))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        clear_traceback(error)
        return None


def _candidate_sizes(samples: int) -> Iterator[int]:
    largest = min(MAX_BATCH_SIZE, max(MIN_BATCH_SIZE, samples // MIN_BATCHES_PER_EPOCH), max(samples, 1))
    smallest = min(MIN_BATCH_SIZE, largest)
    return takewhile(lambda size: size <= largest, (smallest * 2**power for power in range(20)))


def _measure_step_seconds(train: Callable[[], None]) -> float:
    """Measure the fastest of multiple steps, after one warm-up step. Other processes can only slow a step down."""
    train()
    started = now = time.perf_counter()
    quickest = math.inf
    while quickest == math.inf or now - started < SECONDS_PER_SIZE:
        train()
        before, now = now, time.perf_counter()
        quickest = min(quickest, now - before)
    return quickest


def _make_memory_check(device: torch.device) -> Callable[[], bool]:
    """Make a function that returns whether the peak memory so far leaves enough reserve for the next size."""
    if device.type == "cuda":
        max_bytes = MAX_GPU_MEMORY_FRACTION * (torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: torch.cuda.max_memory_allocated(device) <= max_bytes
    if device.type == "mps":
        return lambda: (
            torch.mps.driver_allocated_memory() <= MAX_GPU_MEMORY_FRACTION * torch.mps.recommended_max_memory()
        )
    before, free = _peak_memory(), _get_available_memory()
    return lambda: _peak_memory() - before <= MAX_FREE_MEMORY_FRACTION * free


def _get_available_memory() -> int:
    """Return the bytes that can be allocated without swapping; half of all memory if that is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return get_memory_bytes() // 2


def _peak_memory() -> int:
    """Return the peak memory of this process in bytes, 0 if the system does not report it."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
