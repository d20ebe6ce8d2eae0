"""The picture of a run: its loss and every metric over the epochs, training beside validation."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlspec.run_folder import write_bytes
from dlspec.training.amounts import number
from dlspec.training.callbacks import Callback
from dlspec.training.drawing import BLUE, GRAY, INK, ORANGE, furnish, new_figure, png
from dlspec.training.monitor import Monitor
from dlspec.training.state import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger("dlspec")

CURVES = "curves.png"
COLORS = {"train": GRAY, "val": BLUE}
LABELS = {"train": "training", "val": "validation"}
BEST_COLOR = ORANGE
MOST_COLUMNS = 3
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
            write_bytes(self.path, png(draw(state.history, state.monitor)))
        except OSError as error:
            log.warning("can't write %s: %s", self.path, error.strerror or error)


def panels(history: History) -> list[str]:
    """What there is to draw, the loss first: `["loss", "accuracy"]`."""
    names = [name.partition("/")[2] for name in history[0] if name != "lr"]
    return list(dict.fromkeys(names))


def draw(history: History, monitor: Monitor) -> Figure:
    """A panel for each result; the best epoch is marked where its result was watched."""
    names = panels(history)
    columns = 2 if len(names) == 4 else min(len(names), MOST_COLUMNS)
    rows = math.ceil(len(names) / columns)
    width, height = WIDTH * columns, HEIGHT * rows
    figure = new_figure(width, height)
    figure.subplots_adjust(0.65 / width, 0.55 / height, 1 - 0.2 / width, 1 - 0.35 / height, 0.22, 0.42)
    for axes, name in zip(figure.subplots(rows, columns, squeeze=False).flat, names, strict=False):
        _draw_panel(axes, name, history, monitor)
    for axes in figure.axes[len(names) :]:
        axes.set_axis_off()
    return figure


def _draw_panel(axes: Axes, name: str, history: History, monitor: Monitor) -> None:
    epochs = range(1, len(history) + 1)
    for phase in ("train", "val"):
        values = [row.get(f"{phase}/{name}", math.nan) for row in history]
        if not all(math.isnan(value) for value in values):
            marker = "o" if len(epochs) <= 20 else ""
            axes.plot(epochs, values, color=COLORS[phase], label=LABELS[phase], marker=marker, markersize=3, lw=1.8)
    if monitor.epoch:
        _mark_best(axes, name, history, monitor)
    _furnish(axes, name)


def _mark_best(axes: Axes, name: str, history: History, monitor: Monitor) -> None:
    axes.axvline(monitor.epoch, color=BEST_COLOR, lw=1, ls=(0, (4, 3)), alpha=0.7, zorder=0)
    phase = monitor.name.partition("/")[0]
    value = history[monitor.epoch - 1].get(f"{phase}/{name}", math.nan)
    if math.isnan(value):
        return
    label = f"best, epoch {monitor.epoch}: {number(value)}"
    axes.plot([monitor.epoch], [value], "o", color=BEST_COLOR, markersize=6, zorder=5, label=label)


def _furnish(axes: Axes, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    furnish(axes, name.replace("_", " "), "epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(fontsize=8, frameon=False, labelcolor=INK)
