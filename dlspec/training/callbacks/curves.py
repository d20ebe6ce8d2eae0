"""Plot a run's loss and metrics over the epochs, training and validation in one panel."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dlspec.formatting import format_number
from dlspec.plots.axes import Axes, axis_limits, sample_along_line
from dlspec.plots.canvas import BLUE, DASH_PATTERN, GRAY, ORANGE, Page
from dlspec.runs.file_names import CURVES_FILE
from dlspec.runs.io import write_bytes
from dlspec.training.callbacks.callback import Callback
from dlspec.training.metric_monitor import MetricMonitor
from dlspec.training.state import TrainingState

log = logging.getLogger("dlspec")

COLORS = {"train": GRAY, "val": BLUE}
LABELS = {"train": "training", "val": "validation"}
MAX_COLUMNS = 3  # panels side by side
MAX_EPOCHS_WITH_DOTS = 20  # with more epochs, curves have no dots
WIDTH, HEIGHT = 4.6, 3.3  # of a panel, in inches

History = Sequence[dict[str, float]]  # results of each epoch by name


class Curves(Callback):
    """Draws `curves.png` when training ends, also if it failed, if there are at least two epochs."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / CURVES_FILE
        self._drawn_epochs = 0

    def close(self, state: TrainingState) -> None:
        epochs = len(state.history)
        if epochs < 2 or epochs == self._drawn_epochs or state.must_exit_now:
            return
        self._drawn_epochs = epochs
        try:
            write_bytes(self.path, draw_curves(state.history, state.monitor).to_png())
        except OSError as error:
            log.warning("can't write %s: %s", self.path, error.strerror or error)


def list_panels(history: History) -> list[str]:
    """List the results to draw, without their phase: `["loss", "accuracy"]`."""
    names = [name.partition("/")[2] for name in history[0] if name != "lr"]
    return list(dict.fromkeys(names))


def draw_curves(history: History, monitor: MetricMonitor) -> Page:
    """Draw a panel for each result, with the best epoch marked."""
    names = list_panels(history)
    columns = 2 if len(names) == 4 else min(len(names), MAX_COLUMNS)
    rows = math.ceil(len(names) / columns)
    page = Page(WIDTH * columns, HEIGHT * rows)
    for index, name in enumerate(names):
        row, column = divmod(index, columns)
        _draw_panel(page, (WIDTH * column, HEIGHT * (rows - 1 - row)), name, history, monitor)
    return page


def _draw_panel(page: Page, corner: tuple[float, float], name: str, history: History, monitor: MetricMonitor) -> None:
    """Draw one result's curves into a panel. `corner` is the panel's lower left corner in inches."""
    left, bottom = corner
    epochs = list(range(1, len(history) + 1))
    curves = {phase: [row.get(f"{phase}/{name}", math.nan) for row in history] for phase in COLORS}
    visible_curves = {phase: values for phase, values in curves.items() if not all(map(math.isnan, values))}
    values = [each for curve in visible_curves.values() for each in curve]
    plot = Axes(page, left + 0.65, bottom + 0.55, WIDTH - 0.85, HEIGHT - 0.9, axis_limits(epochs), axis_limits(values))
    plot.set_title(name.replace("_", " "), 11, is_bold=True)
    plot.draw_frame("epoch", is_whole=True)
    entries = [(COLORS[phase], LABELS[phase], False) for phase in visible_curves]
    best = _best_value(curves, monitor)
    drawn_points = []  # few points for the dashed line, as the legend may cover it rather than a curve
    if monitor.epoch:
        page.draw_line(plot.to_page(monitor.epoch, plot.y), ORANGE, 1, DASH_PATTERN, alpha=0.7)
        drawn_points.append(sample_along_line(plot.to_page(monitor.epoch, plot.y), 0.15))
    for phase, curve in visible_curves.items():
        points = plot.to_page(epochs, curve)
        drawn_points.append(sample_along_line(points, 0.05))
        page.draw_line(points, COLORS[phase], 1.8)
        if len(epochs) <= MAX_EPOCHS_WITH_DOTS:
            page.draw_dots(points, COLORS[phase], 4)
    if best is not None:
        page.draw_dots(plot.to_page([monitor.epoch], [best]), ORANGE, 7)
        entries.append((ORANGE, f"best, epoch {monitor.epoch}: {format_number(best)}", True))
    if entries:
        plot.draw_legend(entries, np.concatenate(drawn_points))


def _best_value(curves: Mapping[str, Sequence[float]], monitor: MetricMonitor) -> float | None:
    """Return the monitored result at the best epoch; None if the curves are those of another result."""
    curve = curves.get(monitor.name.partition("/")[0])
    value = math.nan if curve is None or not monitor.epoch else curve[monitor.epoch - 1]
    return None if math.isnan(value) else value
