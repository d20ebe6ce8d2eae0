"""Signals while a run trains: the first is noted, the next one ends the process, and all is afterwards as it was."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from dlspec.cli.main import enable_interrupts
from dlspec.training.runtime.interruption import Interruption, catch_signals


@pytest.fixture(autouse=True)
def _handler_as_it_was() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("before", "next_time"),
    [(signal.default_int_handler, signal.default_int_handler), (signal.SIG_IGN, signal.SIG_DFL)],
    ids=["heard before", "ignored before"],
)
def test_the_first_signal_is_noted_and_the_next_one_ends_the_process(before: object, next_time: object) -> None:
    signal.signal(signal.SIGINT, before)  # type: ignore[arg-type]
    interruption = Interruption()
    with catch_signals(interruption):
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signal == signal.SIGINT
        assert signal.getsignal(signal.SIGINT) is next_time
    assert signal.getsignal(signal.SIGINT) is before


def test_a_forwarded_signal_does_not_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several processes, each gets a signal from the terminal, and again from torchrun."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    interruption = Interruption()
    with catch_signals(interruption, repeat_seconds=5):
        os.kill(os.getpid(), signal.SIGINT)
        now = 104
        os.kill(os.getpid(), signal.SIGINT)
        now = 106
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert interruption.signal == signal.SIGINT


def test_a_command_hears_an_interrupt_however_it_was_started() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    enable_interrupts()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_stays() -> None:
    def handler(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGINT, handler)
    enable_interrupts()
    assert signal.getsignal(signal.SIGINT) is handler
