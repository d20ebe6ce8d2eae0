"""The picture of a learning-rate range test: the loss at each learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dlspec.formatting import format_number
from dlspec.plots.axes import Axes, axis_limits, sample_along_line
from dlspec.plots.canvas import BLUE, DASH_PATTERN, ORANGE, Page

WIDTH, HEIGHT = 5.2, 3.6  # in inches
MAX_RISE = 1.0  # of the loss above its start, in units of its fall: the curve of a diverging training goes on and on


def draw_range_test(rates: Sequence[float], losses: Sequence[float], chosen: float | None) -> Page:
    """Draw the loss over the logarithm of the learning rate.

    Args:
        rates: the learning rate of each step.
        losses: the smoothed loss after each step.
        chosen: the rate that was chosen, which is marked; None for none.
    """
    page, exponents = Page(WIDTH, HEIGHT), np.log10(np.asarray(rates))
    start, lowest = losses[0] if losses else 0.0, min(losses, default=0.0)
    highest = start + MAX_RISE * max(start - lowest, abs(start) * 0.1)
    visible = [each if each <= highest else math.nan for each in losses]
    plot = Axes(page, 0.75, 0.6, WIDTH - 1.0, HEIGHT - 1.0, axis_limits(exponents), axis_limits(visible))
    plot.set_title("learning-rate range test", 11, is_bold=True)
    plot.draw_frame("learning rate (power of ten)", "loss, smoothed", is_whole=True)
    points = plot.to_page(exponents, visible)
    drawn, entries = [sample_along_line(points, 0.05)], [(BLUE, "training loss", False)]
    if chosen is not None:
        index = int(np.abs(exponents - math.log10(chosen)).argmin())
        line = plot.to_page(exponents[index], plot.y)
        page.draw_line(line, ORANGE, 1, DASH_PATTERN, alpha=0.7)
        drawn.append(sample_along_line(line, 0.15))
        entries.append((ORANGE, f"steepest, chosen: {format_number(chosen)}", True))
    page.draw_line(points, BLUE, 1.8)
    if chosen is not None:
        page.draw_dots(plot.to_page([exponents[index]], [visible[index]]), ORANGE, 7)
    plot.draw_legend(entries, np.concatenate(drawn))
    return page
