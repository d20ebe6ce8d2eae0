"""How contenders take turns: each waits before an epoch, and reports what the previous turn took."""

from __future__ import annotations

import math
import os
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Turn:
    """What the epochs of a turn took.

    `seconds` and `cpu` are wall-clock and CPU time, `loss` is the mean loss of the last epoch. `peak` is the peak
    memory in bytes, minus the memory at the start; it is 0 if the system does not report it, and on a GPU it is the
    most that PyTorch has allocated there. `note` is what the contender chose to do, `floor` the least seconds per
    sample.
    """

    seconds: float
    cpu: float
    loss: float
    peak: int
    note: str = ""
    floor: float = 0.0


class Turns:
    """Divides a contender's run into turns of `epochs` epochs, and waits between turns.

    Memory is measured from the start of the first epoch, when libraries are imported and data and network exist.
    """

    def __init__(self, connection: Connection, epochs: int, device: str) -> None:
        self._connection, self._epochs, self._is_on_gpu = connection, epochs, device == "cuda"
        self.note, self.floor = "", 0.0
        self._done = -1
        self._seconds = self._cpu = 0.0
        self._at_start = 0

    def next(self, loss: float = math.nan) -> float:
        """Call this at the start of each epoch, with the mean loss of the previous one. Returns the seconds it waited.

        The first turn starts without waiting.
        """
        self._done += 1
        if self._done % self._epochs:
            return 0.0
        if self._done:
            return self._wait(loss)
        self._at_start = resident("VmRSS")
        self._begin()
        return 0.0

    def _wait(self, loss: float) -> float:
        for thread in threading.enumerate():
            if thread.name == "checkpoint":  # writing checkpoints in the background is part of the turn
                thread.join()
        peak = _allocated() if self._is_on_gpu else max(resident("VmHWM") - self._at_start, 0)
        seconds, cpu = time.perf_counter() - self._seconds, time.process_time() - self._cpu
        self._connection.send(Turn(seconds, cpu, loss, peak, self.note, self.floor))
        ended = time.monotonic()
        try:
            self._connection.recv()
        except EOFError:  # the benchmark has finished
            os._exit(0)
        self._begin()
        return time.monotonic() - ended

    def _begin(self) -> None:
        if self._is_on_gpu:
            _allocated(begins=True)
        if CLEAR_REFS.exists():
            CLEAR_REFS.write_text("5", encoding="ascii")  # reset the peak of the resident memory
        self._seconds, self._cpu = time.perf_counter(), time.process_time()


def _allocated(begins: bool = False) -> int:
    """Return the peak of the bytes that PyTorch allocated on the GPU, after all work is done; 0 for other libraries.

    With `begins`, reset the peak first.
    """
    import torch

    if not torch.cuda.is_initialized():
        return 0
    torch.cuda.synchronize()
    if begins:
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated()


def resident(key: str) -> int:
    """Return the resident memory of this process (`VmRSS`), or its peak (`VmHWM`), in bytes; 0 if not on Linux."""
    if not STATUS.exists():
        return 0
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)
