"""Signals that stop a run: it finishes its current step, saves a checkpoint and ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Of several processes, each gets a terminal's Ctrl-C twice: from the terminal and from torchrun. srun does the same.
MAX_FORWARDING_SECONDS = 5.0
# Ctrl-C, the end of a batch job, and Slurm's warning before it.
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run. `code` is the exit code that shells expect: 128 plus the signal's number.

    Args:
        number: the signal's number.
        more: text to append to the message.
    """

    def __init__(self, number: int, more: str = "") -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}{more}")
        self.number, self.code, self.more = number, 128 + number, more


class Interruption:
    """A request to stop. `signal` is the number of the received signal, 0 before."""

    def __init__(self) -> None:
        self.signal = 0

    def request(self, number: int) -> None:
        """Request to stop, as the signal with this number does."""
        self.signal = number


@contextmanager
def catch_signals(interruption: Interruption, *, repeat_seconds: float = 0) -> Iterator[None]:
    """Record the first signal inside the context, and let a second one end the process at once.

    The second signal ends the process even if it was ignored before, like SIGINT in background jobs of a shell script.
    Only the main thread can handle signals; in another thread this does nothing.

    Args:
        interruption: where the first signal is recorded.
        repeat_seconds: how long after the first one further signals are ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)]
    previous_handlers: dict[int, Any] = {}
    times: list[float] = []

    def handle_signal(number: int, frame: FrameType | None) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            interruption.request(number)
        if times[-1] - times[0] >= repeat_seconds:
            _restore_handlers({each: _effective_handler(handler) for each, handler in previous_handlers.items()})
            if len(times) > 1:
                signal.raise_signal(number)

    try:
        previous_handlers |= {number: signal.signal(number, handle_signal) for number in numbers}
        yield
    finally:
        _restore_handlers(previous_handlers)


def _effective_handler(handler: Any) -> Any:
    """Return the previous handler, or the system's default if the signal was ignored: it ends the process."""
    return signal.SIG_DFL if handler is signal.SIG_IGN else handler


def _restore_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
