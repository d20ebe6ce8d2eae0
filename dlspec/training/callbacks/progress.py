"""Show a run's progress: a bar on a terminal, plain lines elsewhere, and a line for each epoch in both.

Drawing takes time of the training thread, so it depends on the clock instead of the step, and takes at most 0.5 % of
the time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Literal

from rich.console import Console
from rich.control import strip_control_codes
from rich.live import Live
from rich.segment import Segment, Segments
from rich.text import Text

from dlspec.formatting import format_count, format_duration, format_number
from dlspec.training.callbacks.callback import Callback
from dlspec.training.state import TrainingState

SECONDS_BETWEEN_BARS = 0.1
SECONDS_BETWEEN_LOSS_READS = 1.0
SECONDS_BETWEEN_LINES = 10.0
MAX_TIME_FRACTION = 0.005  # of the time may be spent on drawing
BAR_WIDTH = 24  # characters

DisplayMode = Literal["bar", "lines"]
Line = list[tuple[str, str]]  # parts of a line, each with its style
_STYLES = ("", "bold", "dim", "cyan", "bold green")  # of lines that are printed


class Progress(Callback):
    """Prints the run's progress to `console`: "bar" redraws one line, "lines" prints a line every ten seconds.

    "auto" chooses the bar on a terminal, and lines elsewhere. rich chooses whether to use colors; it respects NO_COLOR.
    """

    accepts_several_steps = True

    def __init__(self, mode: Literal["auto", "bar", "lines"] = "auto", console: Console | None = None) -> None:
        self.console = console or Console(soft_wrap=True, highlight=False)
        self.mode: DisplayMode = ("bar" if self.console.is_terminal else "lines") if mode == "auto" else mode
        self._codes = _find_style_codes(self.console)
        self._live: Live | None = None
        self._started = self._due = 0.0
        self._first_step = 0
        self._epoch_lines: list[Line] = []  # that are not printed yet
        self._epoch_lines_due = 0.0
        self._loss, self._loss_due = math.nan, 0.0

    def on_train_start(self, state: TrainingState) -> None:
        self._started, self._first_step = time.perf_counter(), state.step
        self._open_bar(state)

    def on_epoch_start(self, state: TrainingState) -> None:
        self._loss, self._loss_due = math.nan, 0.0

    def on_step_end(self, state: TrainingState) -> None:
        now = time.perf_counter()
        if now >= self._due:
            self._draw(state, now)

    def on_epoch_end(self, state: TrainingState) -> None:
        self._epoch_lines.append(format_epoch_line(state))
        now = time.perf_counter()
        if now >= self._epoch_lines_due:
            self._print_epoch_lines()
            self._epoch_lines_due = now + SECONDS_BETWEEN_BARS
            self._schedule_next_draw(now)

    def _print_epoch_lines(self) -> None:
        """Print the lines of the epochs since the last time: those of short epochs are printed together."""
        if self._epoch_lines:
            self._print(*self._epoch_lines)
        self._epoch_lines = []

    def _print(self, *lines: Line) -> None:
        """Print lines, above the bar if there is one. rich would take longer for their markup than a short epoch."""
        parts = (part for line in lines for part in (*line, ("\n", "")))
        text = strip_control_codes(
            "".join(self._codes[style][0] + part + self._codes[style][1] for part, style in parts)
        )
        if self._live is None or self.console.is_jupyter:  # a notebook shows only what is written as colored
            self.console.file.write(text)
            self.console.file.flush()
        else:
            self.console.print(Segments([Segment(text)]), soft_wrap=True)

    def on_train_end(self, state: TrainingState) -> None:
        self._close_bar()
        if state.stop_reason:
            self._print([(f"stopped: {state.stop_reason}", "")])

    def on_test_start(self, state: TrainingState) -> None:
        self._open_bar(state)

    def on_test_end(self, state: TrainingState) -> None:
        self._close_bar()
        self._print([("test", "bold"), *_format_results(state.test_results)])

    def close(self, state: TrainingState) -> None:
        self._close_bar()

    def _open_bar(self, state: TrainingState) -> None:
        self._close_bar()  # on_train_start is called again if training goes back to a snapshot
        self._schedule_next_draw(time.perf_counter())
        if self.mode == "bar":
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()

    def _close_bar(self) -> None:
        self._print_epoch_lines()
        if self._live is not None:
            self._live.stop()
        self._live = None

    def _draw(self, state: TrainingState, now: float) -> None:
        self._read_loss(state, now)
        if self._live is not None:
            self._live.update(_format_bar_line(state, self.console, self._format_status(state, now)), refresh=True)
        else:
            self._print([(self._format_status(state, now), "")])
        self._schedule_next_draw(now, draw_seconds=time.perf_counter() - now)

    def _schedule_next_draw(self, now: float, draw_seconds: float = 0.0) -> None:
        pause = SECONDS_BETWEEN_BARS if self.mode == "bar" else SECONDS_BETWEEN_LINES
        self._due = now + max(pause, draw_seconds / MAX_TIME_FRACTION)

    def _read_loss(self, state: TrainingState, now: float) -> None:
        """Read the running loss; on a GPU at most once a second, as it waits for all queued steps."""
        if state.device.type == "cpu" or now >= self._loss_due:
            self._loss, self._loss_due = state.running_loss(), now + SECONDS_BETWEEN_LOSS_READS

    def _format_status(self, state: TrainingState, now: float) -> str:
        """Format the status line: `epoch 3/10  train 400/1875  12.3k samples/s  loss 0.1234  1:20 left`."""
        speed = state.samples / max(now - state.phase_started, 1e-9)
        parts = [f"{state.phase} {state.batch}/{state.batches}", f"{format_count(speed)} samples/s"]
        if state.phase != "test":
            parts.insert(0, format_epoch_number(state))
        if not math.isnan(self._loss):
            parts.append(f"loss {format_number(self._loss)}")
        seconds_left = _estimate_seconds_left(state, now - self._started, self._first_step)
        return "  ".join([*parts, *([f"{format_duration(seconds_left)} left"] if seconds_left is not None else [])])


def _find_style_codes(console: Console) -> Mapping[str, tuple[str, str]]:
    """Find the control sequences that a console writes before and after text of each style; '' without colors."""
    if console.color_system is None:
        return dict.fromkeys(_STYLES, ("", ""))
    with console.capture() as captured:
        console.print(Text("|").join(Text("_", style) for style in _STYLES), end="")
    codes = (each.partition("_") for each in captured.get().split("|"))
    return {style: (before, after) for style, (before, _, after) in zip(_STYLES, codes, strict=True)}


def _estimate_seconds_left(state: TrainingState, seconds: float, first_step: int) -> float | None:
    """Estimate the rest of training in seconds; None before the first step and in the test.

    The steps since `first_step`, at which this process started, took `seconds`.
    """
    done = state.step - first_step
    if done <= 0 or state.phase == "test":
        return None
    return seconds * max(state.planned_steps - state.step, 0) / done


def format_epoch_line(state: TrainingState) -> Line:
    """Format the line of a finished epoch. A star marks the best epoch so far."""
    timing = state.timing[-1]
    results = {name: value for name, value in state.results.items() if name != "lr"}
    speed = f"{format_duration(timing['seconds'])}  {format_count(timing['samples_per_second'])} samples/s"
    star = [("  *", "bold green")] if state.monitor.is_best else []
    return [(format_epoch_number(state), "bold"), ("  ", ""), (speed, "dim"), *_format_results(results), *star]


def format_epoch_number(state: TrainingState) -> str:
    """Format the epoch's number, such as `epoch  3/10`."""
    return f"epoch {state.epoch:>{len(str(state.epochs))}}/{state.epochs}"


def _format_results(results: Mapping[str, float], style: str = "cyan") -> Line:
    """Format results, each with two spaces before it."""
    return [
        part
        for name, value in results.items()
        for part in (("  ", ""), (f"{name} ", "dim"), (format_number(value), style))
    ]


def _format_bar_line(state: TrainingState, console: Console, status: str) -> Text:
    validation_results = {name: value for name, value in state.results.items() if name.startswith("val/")}
    line = Text.assemble(*_format_bar(state, console), f" {status}", *_format_results(validation_results, "dim"))
    line.truncate(console.width - 1, overflow="ellipsis")
    return line


def _format_bar(state: TrainingState, console: Console) -> Line:
    width = min(BAR_WIDTH, max(console.width // 6, 6))
    filled = width * state.batch // max(state.batches, 1)
    full, empty = ("━", "─") if console.encoding.startswith("utf") else ("#", "-")
    return [(full * filled, "green"), (empty * (width - filled), "dim")]
