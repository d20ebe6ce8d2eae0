"""`trainer.batch_size: auto`: sizes are tried on the real network and data, each twice the one before."""

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
MIN_BATCHES_PER_EPOCH = 20
"""An epoch has so many batches at least, or learning suffers."""
MAX_SEARCH_SECONDS = 5.0
"""The trying takes, about, at most."""
SECONDS_PER_SIZE = 0.1
MIN_SPEEDUP = 1.1
"""On a CPU a size must train so much faster than half of it: beyond the caches it only takes more memory."""
MAX_GPU_MEMORY_FRACTION = 0.85
"""Of a GPU's memory so much may be taken; another process, or a longer sample, needs some, too."""
MAX_FREE_MEMORY_FRACTION = 0.5
"""Of the memory that is free."""


@dataclass(frozen=True)
class FoundBatchSize:
    """A batch size, and in a line how it was found."""

    batch_size: int
    explanation: str


def find_batch_size(trainer: Trainer) -> FoundBatchSize:
    """The largest power of two that fits with some room and, on a CPU, still trains faster than the half of it.

    It is no more than a twentieth of the training samples and no more than 4096. The trainer's weights and generators
    are others afterwards: it is made for this alone.
    """
    sizes = list(_candidate_sizes(len(trainer.data.dataset.train)))
    best, speed, deadline = sizes[0], 0.0, time.monotonic() + MAX_SEARCH_SECONDS
    train, has_room = make_trial_training(trainer), _make_memory_check(trainer.state.device)
    for size in sizes:
        seconds = _try_size(trainer, train, size)
        if seconds is None:
            fits = best if size > best else _find_smaller_size(trainer, train, size)
            return _make_result(fits, f"{size} do not fit into memory")
        if not has_room():
            return _make_result(best, f"{size} leave too little memory")
        if trainer.state.device.type == "cpu" and size / seconds < MIN_SPEEDUP * speed:
            return _make_result(best, f"{size} are no faster")
        best, speed = size, size / seconds
        if time.monotonic() + 4 * seconds > deadline:
            return _make_result(best, "to try more takes too long")
    reached_max = 2 * best > MAX_BATCH_SIZE
    return _make_result(
        best,
        "more are not tried" if reached_max else f"with more an epoch has fewer than {MIN_BATCHES_PER_EPOCH} batches",
    )


def _find_smaller_size(trainer: Trainer, train: Callable[[int], None], size: int) -> int:
    """What fits where not even the smallest size does; 1 where nothing does, and the run will say so."""
    halves = [size // 2**power for power in range(1, size.bit_length())]
    return next((each for each in halves if _try_size(trainer, train, each) is not None), 1)


def _make_result(size: int, why: str) -> FoundBatchSize:
    return FoundBatchSize(size, f"trainer.batch_size is {size}: {why}")


def _try_size(trainer: Trainer, train: Callable[[int], None], size: int) -> float | None:
    """The seconds of a step of that size; None where it has no room."""
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
    """The quickest step's: what else the machine does only makes one slower. The first one warms up, and allocates."""
    train()
    started = now = time.perf_counter()
    quickest = math.inf
    while quickest == math.inf or now - started < SECONDS_PER_SIZE:
        train()
        before, now = now, time.perf_counter()
        quickest = min(quickest, now - before)
    return quickest


def _make_memory_check(device: torch.device) -> Callable[[], bool]:
    """Tells whether what was taken so far left some room; on a CPU, whether twice as much more would."""
    if device.type == "cuda":
        max_bytes = MAX_GPU_MEMORY_FRACTION * (torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: torch.cuda.max_memory_allocated(device) <= max_bytes
    if device.type == "mps":
        return lambda: (
            torch.mps.driver_allocated_memory() <= MAX_GPU_MEMORY_FRACTION * torch.mps.recommended_max_memory()
        )
    before, free = _peak_memory(), _free_memory()
    return lambda: _peak_memory() - before <= MAX_FREE_MEMORY_FRACTION * free


def _free_memory() -> int:
    """Bytes that a process may take without another's being moved out; of all memory a half where none can say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return get_memory_bytes() // 2


def _peak_memory() -> int:
    """The most memory that this process had, 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
