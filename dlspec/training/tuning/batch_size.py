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

from dlspec.network.memory_limits import memory
from dlspec.training.health.out_of_memory import forget, is_out_of_memory
from dlspec.training.trainer import Trainer
from dlspec.training.tuning.rehearsal import make_trial

SMALLEST, LARGEST = 8, 4096
MOST_SHARE = 20
"""An epoch has so many batches at least, or learning suffers."""
SECONDS = 5.0
"""The trying takes, about, at most."""
SECONDS_A_SIZE = 0.1
LEAST_GAIN = 1.1
"""On a CPU a size must train so much faster than half of it: beyond the caches it only takes more memory."""
ROOM = 0.85
"""Of a GPU's memory so much may be taken; another process, or a longer sample, needs some, too."""
CPU_SHARE = 0.5
"""Of the memory that is free."""


@dataclass(frozen=True)
class Found:
    """A batch size, and in a line how it was found."""

    batch_size: int
    told: str


def find_batch_size(trainer: Trainer) -> Found:
    """The largest power of two that fits with some room and, on a CPU, still trains faster than the half of it.

    It is no more than a twentieth of the training samples and no more than 4096. The trainer's weights and generators
    are others afterwards: it is made for this alone.
    """
    sizes = list(_sizes(len(trainer.data.dataset.train)))
    best, speed, deadline = sizes[0], 0.0, time.monotonic() + SECONDS
    train, has_room = make_trial(trainer), _room(trainer.state.device)
    for size in sizes:
        seconds = _attempt(trainer, train, size)
        if seconds is None:
            fits = best if size > best else _smaller(trainer, train, size)
            return _found(fits, f"{size} do not fit into memory")
        if not has_room():
            return _found(best, f"{size} leave too little memory")
        if trainer.state.device.type == "cpu" and size / seconds < LEAST_GAIN * speed:
            return _found(best, f"{size} are no faster")
        best, speed = size, size / seconds
        if time.monotonic() + 4 * seconds > deadline:
            return _found(best, "to try more takes too long")
    is_most = 2 * best > LARGEST
    return _found(best, "more are not tried" if is_most else f"with more an epoch has fewer than {MOST_SHARE} batches")


def _smaller(trainer: Trainer, train: Callable[[int], None], size: int) -> int:
    """What fits where not even the smallest size does; 1 where nothing does, and the run will say so."""
    halves = [size // 2**power for power in range(1, size.bit_length())]
    return next((each for each in halves if _attempt(trainer, train, each) is not None), 1)


def _found(size: int, why: str) -> Found:
    return Found(size, f"trainer.batch_size is {size}: {why}")


def _attempt(trainer: Trainer, train: Callable[[int], None], size: int) -> float | None:
    """The seconds of a step of that size; None where it has no room."""
    try:
        with trainer.computing.switched(size):
            return _seconds(lambda: train(size))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        forget(error)
        return None


def _sizes(samples: int) -> Iterator[int]:
    most = min(LARGEST, max(SMALLEST, samples // MOST_SHARE), max(samples, 1))
    smallest = min(SMALLEST, most)
    return takewhile(lambda size: size <= most, (smallest * 2**power for power in range(20)))


def _seconds(train: Callable[[], None]) -> float:
    """The quickest step's: what else the machine does only makes one slower. The first one warms up, and allocates."""
    train()
    started = now = time.perf_counter()
    quickest = math.inf
    while quickest == math.inf or now - started < SECONDS_A_SIZE:
        train()
        before, now = now, time.perf_counter()
        quickest = min(quickest, now - before)
    return quickest


def _room(device: torch.device) -> Callable[[], bool]:
    """Tells whether what was taken so far left some room; on a CPU, whether twice as much more would."""
    if device.type == "cuda":
        most = ROOM * (torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: torch.cuda.max_memory_allocated(device) <= most
    if device.type == "mps":
        return lambda: torch.mps.driver_allocated_memory() <= ROOM * torch.mps.recommended_max_memory()
    before, free = _resident(), _free()
    return lambda: _resident() - before <= CPU_SHARE * free


def _free() -> int:
    """Bytes that a process may take without another's being moved out; of all memory a half where none can say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return memory() // 2


def _resident() -> int:
    """The most memory that this process had, 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
