"""Signals that ask a run to end: it ends between two steps, with everything saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Ctrl-C, a batch system's end, and Slurm's warning before it.
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")


class Interrupted(KeyboardInterrupt):
    """The run ended because a signal asked for it; `code` is the exit code that shells expect, 128 and its number.

    `more` is what its text says behind that.
    """

    def __init__(self, number: int, more: str = "") -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}{more}")
        self.number, self.code, self.more = number, 128 + number, more


class Interruption:
    """Whether a signal has come: `signal` is its number, 0 before."""

    def __init__(self) -> None:
        self.signal = 0

    def request(self, number: int) -> None:
        """Ask for the end, as the signal with that number does."""
        self.signal = number


@contextmanager
def catch_signals(interruption: Interruption) -> Iterator[None]:
    """Within it the first signal is noted, and a second one does what it did before: it ends the process at once,
    also where it was ignored, as SIGINT is in the background of a shell script.

    Only a process's main thread can listen to signals; in another nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)]
    previous_handlers: dict[int, Any] = {}

    def handle_signal(number: int, frame: FrameType | None) -> None:
        interruption.request(number)
        _restore_handlers({each: _effective_handler(handler) for each, handler in previous_handlers.items()})

    try:
        previous_handlers |= {number: signal.signal(number, handle_signal) for number in numbers}
        yield
    finally:
        _restore_handlers(previous_handlers)


def _effective_handler(handler: Any) -> Any:
    """The handler that a signal had, or the system's own, which ends the process, where it was ignored."""
    return signal.SIG_DFL if handler is signal.SIG_IGN else handler


def _restore_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
