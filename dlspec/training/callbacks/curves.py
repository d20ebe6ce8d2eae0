"""The picture of a run: its loss and every metric over the epochs, training beside validation."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dlspec.plots.drawing import BLUE, DASHED, GRAY, ORANGE, Page
from dlspec.plots.plot import Plot, dense, limits
from dlspec.runs.io import write_bytes
from dlspec.runs.layout import CURVES
from dlspec.text import number
from dlspec.training.callbacks.callback import Callback
from dlspec.training.monitor import Monitor
from dlspec.training.state import State

log = logging.getLogger("dlspec")

COLORS = {"train": GRAY, "val": BLUE}
LABELS = {"train": "training", "val": "validation"}
MOST_COLUMNS = 3
MOST_WITH_DOTS = 20
WIDTH, HEIGHT = 4.6, 3.3

History = Sequence[dict[str, float]]


class Curves(Callback):
    """Draws `curves.png` when the training is over, however it ended; a curve needs two epochs at least."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / CURVES
        self._drawn = 0

    def close(self, state: State) -> None:
        epochs = len(state.history)
        if epochs < 2 or epochs == self._drawn or state.ends_at_once:
            return
        self._drawn = epochs
        try:
            write_bytes(self.path, draw(state.history, state.monitor).png())
        except OSError as error:
            log.warning("can't write %s: %s", self.path, error.strerror or error)


def panels(history: History) -> list[str]:
    """What there is to draw, the loss first: `["loss", "accuracy"]`."""
    names = [name.partition("/")[2] for name in history[0] if name != "lr"]
    return list(dict.fromkeys(names))


def draw(history: History, monitor: Monitor) -> Page:
    """A panel for each result; the best epoch is marked where its result was watched."""
    names = panels(history)
    columns = 2 if len(names) == 4 else min(len(names), MOST_COLUMNS)
    rows = math.ceil(len(names) / columns)
    page = Page(WIDTH * columns, HEIGHT * rows)
    for place, name in enumerate(names):
        row, column = divmod(place, columns)
        _draw_panel(page, (WIDTH * column, HEIGHT * (rows - 1 - row)), name, history, monitor)
    return page


def _draw_panel(page: Page, corner: tuple[float, float], name: str, history: History, monitor: Monitor) -> None:
    """Draw one result's curves into the panel whose lower left corner is given, in inches."""
    left, bottom = corner
    epochs = list(range(1, len(history) + 1))
    curves = {phase: [row.get(f"{phase}/{name}", math.nan) for row in history] for phase in COLORS}
    shown = {phase: values for phase, values in curves.items() if not all(map(math.isnan, values))}
    values = [each for curve in shown.values() for each in curve]
    plot = Plot(page, left + 0.65, bottom + 0.55, WIDTH - 0.85, HEIGHT - 0.9, limits(epochs), limits(values))
    plot.head(name.replace("_", " "), 11, is_bold=True)
    plot.furnish("epoch", is_whole=True)
    entries = [(COLORS[phase], LABELS[phase], False) for phase in shown]
    best = _best(curves, monitor)
    drawn = []  # the legend is rather laid over the dashed line than over a curve
    if monitor.epoch:
        page.line(plot.at(monitor.epoch, plot.y), ORANGE, 1, DASHED, alpha=0.7)
        drawn.append(dense(plot.at(monitor.epoch, plot.y), 0.15))
    for phase, curve in shown.items():
        points = plot.at(epochs, curve)
        drawn.append(dense(points, 0.05))
        page.line(points, COLORS[phase], 1.8)
        if len(epochs) <= MOST_WITH_DOTS:
            page.dots(points, COLORS[phase], 4)
    if best is not None:
        page.dots(plot.at([monitor.epoch], [best]), ORANGE, 7)
        entries.append((ORANGE, f"best, epoch {monitor.epoch}: {number(best)}", True))
    if entries:
        plot.legend(entries, np.concatenate(drawn))


def _best(curves: Mapping[str, Sequence[float]], monitor: Monitor) -> float | None:
    """The result at the best epoch, where that is one of what was watched."""
    curve = curves.get(monitor.name.partition("/")[0])
    value = math.nan if curve is None or not monitor.epoch else curve[monitor.epoch - 1]
    return None if math.isnan(value) else value
