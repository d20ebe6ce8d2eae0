"""How a contender takes turns with others: it waits before an epoch, and tells what the one before has taken."""

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
    """Seconds of the turn's epochs, of that on the CPU; the last one's mean loss; bytes at the peak beyond the start's.

    The peak is 0 where the system does not tell it; on a GPU it is what PyTorch has allocated there, at the most.
    `note` says what the contender chose to do, `floor` how many seconds a sample takes at least.
    """

    seconds: float
    cpu: float
    loss: float
    peak: int
    note: str = ""
    floor: float = 0.0


class Turns:
    """A turn are `epochs` of a contender's run, which it trains whole; between turns it waits.

    Memory is counted from where the first epoch begins: libraries are loaded, data and network are there.
    """

    def __init__(self, connection: Connection, epochs: int, device: str) -> None:
        self._connection, self._epochs, self._is_on_gpu = connection, epochs, device == "cuda"
        self.note, self.floor = "", 0.0
        self._done = -1
        self._seconds = self._cpu = 0.0
        self._at_start = 0

    def next(self, loss: float = math.nan) -> float:
        """To be called where an epoch begins, with the mean loss of the one before; the seconds that it waited.

        The first turn was given by whoever made this.
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
            if thread.name == "checkpoint":  # what dlspec writes beside its steps is part of the turn
                thread.join()
        peak = _allocated() if self._is_on_gpu else max(resident("VmHWM") - self._at_start, 0)
        seconds, cpu = time.perf_counter() - self._seconds, time.process_time() - self._cpu
        self._connection.send(Turn(seconds, cpu, loss, peak, self.note, self.floor))
        ended = time.monotonic()
        try:
            self._connection.recv()
        except EOFError:  # nobody asks any more
            os._exit(0)
        self._begin()
        return time.monotonic() - ended

    def _begin(self) -> None:
        if self._is_on_gpu:
            _allocated(begins=True)
        if CLEAR_REFS.exists():
            CLEAR_REFS.write_text("5", encoding="ascii")  # the most that it had is from now on what it has
        self._seconds, self._cpu = time.perf_counter(), time.process_time()


def _allocated(begins: bool = False) -> int:
    """The most bytes that PyTorch had on the GPU, once that has done everything; 0 for another library's.

    Where something `begins`, what was before is forgotten.
    """
    import torch

    if not torch.cuda.is_initialized():
        return 0
    torch.cuda.synchronize()
    if begins:
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated()


def resident(key: str) -> int:
    """This process's bytes in memory, `VmRSS`, or the most that it had, `VmHWM`; 0 where Linux does not tell."""
    if not STATUS.exists():
        return 0
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)
