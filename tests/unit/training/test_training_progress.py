"""What is shown while a network trains."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from dlspec.formatting import format_count, format_digits, format_duration, format_number
from dlspec.training.callbacks import progress
from dlspec.training.callbacks.progress import Progress
from helpers.toy_training import make_trainer


def lines_of(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=80)


def test_plain_lines_where_there_is_no_terminal() -> None:
    shown = Progress("auto", plain_console())
    assert shown.mode == "lines"
    training = make_trainer(settings={"epochs": 12, "max_steps": 6}, callbacks=[shown])
    training.run()
    first, second, stopped, test = lines_of(shown.console)
    results, last = training.state.history
    assert first.startswith("epoch  1/12  ")
    assert (
        f"train/loss {format_number(results['train/loss'])}  train/accuracy {format_number(results['train/accuracy'])}"
        in first
    )
    assert first.endswith("  *"), "the first epoch is the best so far"
    assert f"val/loss {format_number(last['val/loss'])}" in second
    assert stopped == "stopped: reached max_steps (6)"
    assert test.startswith(f"test  test/loss {format_number(training.state.test_results['test/loss'])}")


def test_a_long_epoch_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress, "MAX_TIME_FRACTION", 1e9)
    shown = Progress("lines", plain_console())
    make_trainer(settings={"epochs": 1, "test": "none"}, callbacks=[shown]).run()
    beats = lines_of(shown.console)[:-1]
    assert [line.split("  ")[:2] for line in beats] == [
        ["epoch 1/1", "train 1/3"],
        ["epoch 1/1", "train 2/3"],
        ["epoch 1/1", "train 3/3"],
        ["epoch 1/1", "val 1/1"],
    ]
    assert all("samples/s  loss " in line and line.endswith(" left") for line in beats)


def test_heartbeats_keep_their_distance() -> None:
    shown = Progress("lines", plain_console())
    make_trainer(settings={"epochs": 30, "test": "none"}, callbacks=[shown]).run()
    assert len(lines_of(shown.console)) == 30


def test_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_BARS", 0.0)
    monkeypatch.setattr(progress, "MAX_TIME_FRACTION", 1e9)
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120, color_system="standard")
    shown = Progress("auto", terminal)
    assert shown.mode == "bar"
    make_trainer(settings={"epochs": 2}, callbacks=[shown]).run()
    assert isinstance(terminal.file, io.StringIO)
    drawn = terminal.file.getvalue()
    assert "━━━━━━━━" in drawn
    assert "\x1b[" in drawn
    assert "train 2/3" in drawn and "val 1/1" in drawn and "test 1/1" in drawn
    bars = [line for line in re.split(r"[\r\n]", re.sub(r"\x1b\[[\d;?]*\w", "", drawn)) if "──" in line]
    assert bars and all(len(line) < 120 for line in bars)
    assert re.search(
        r"━──.* epoch 2/2  train 1/3  \S+ samples/s  loss \d\.\d{4}  .* left  val/loss \d", "\n".join(bars)
    )


def test_the_bar_is_gone_after_an_interrupt() -> None:
    class Interrupting(Progress):
        def on_epoch_end(self, state) -> None:  # type: ignore[no-untyped-def]
            super().on_epoch_end(state)
            raise KeyboardInterrupt

    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    shown = Interrupting("bar", terminal)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(callbacks=[shown]).run()
    assert shown._live is None
    assert isinstance(terminal.file, io.StringIO)
    assert "\x1b[?25h" in terminal.file.getvalue(), "the cursor is shown again"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120, color_system="standard")
    make_trainer(settings={"epochs": 1}, callbacks=[Progress("lines", terminal)]).run()
    assert isinstance(terminal.file, io.StringIO)
    assert "\x1b[3" not in terminal.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (9.97, "10 s"), (12.3, "12 s"), (65, "1:05"), (7265.4, "2:01:05")],
)
def test_clock(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.4, "0"), (950, "950"), (12345, "12.3k"), (999_600, "1M"), (1.23e6, "1.23M"), (2e9, "2G")]
)
def test_shortened(value: float, text: str) -> None:
    assert format_count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.0000"), (0.97123, "0.9712"), (1e-5, "1e-05"), (12345.6, "12346"), (-2e9, "-2e+09")]
)
def test_number(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.012345, 4, "0.01235"), (9999.4, 4, "9999"), (9999.7, 4, "10000"), (412.3, 2, "412"), (99.7, 2, "100")],
)
def test_significant_digits(value: float, digits: int, text: str) -> None:
    assert format_digits(value, digits) == text
