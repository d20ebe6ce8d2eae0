"""A plot on a page: axes with tick labels, a grid, a legend, and the conversion from data to page coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlspec.plots.canvas import EDGE_COLOR, GRID_COLOR, Page, TextStyle, measure_text_width

MARGIN = 0.05  # of the values' range, added at both ends of an axis
MAX_TICKS = 9
# In inches: the height of a legend's line, the width of its marker, and its distance from the plot's sides.
LEGEND_LINE_HEIGHT, LEGEND_MARKER_WIDTH, LEGEND_PADDING = 0.17, 0.27, 0.1

ValueRange = tuple[float, float]  # (low, high)


@dataclass(frozen=True)
class Axes:
    """A rectangle on a page with an x axis and a y axis."""

    page: Page
    # The rectangle, in inches from the page's lower left corner.
    left: float
    bottom: float
    width: float
    height: float
    x: ValueRange  # from the left to the right side
    y: ValueRange  # from the bottom to the top

    def to_page(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Convert data coordinates to page coordinates in inches, (N, 2). `x` or `y` may be a single number."""
        both = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        sides = ((self.left, self.width, self.x), (self.bottom, self.height, self.y))
        scaled = [
            start + (each - low) / (high - low) * extent
            for each, (start, extent, (low, high)) in zip(both, sides, strict=True)
        ]
        return np.stack(scaled, axis=-1)

    def draw_frame(self, x_label: str, y_label: str = "", *, grid: str = "y", is_whole: bool = False) -> None:
        """Draw axis labels, tick labels and a faint grid. Call it before drawing data, which then covers the grid.

        Args:
            x_label: text below the x axis.
            y_label: text beside the y axis.
            grid: "y" for horizontal lines, "xy" for vertical ones, too.
            is_whole: label only whole numbers on the x axis.
        """
        page, right, top = self.page, self.left + self.width, self.bottom + self.height
        x_ticks = _choose_ticks(self.x, min(MAX_TICKS, int(self.width * 3)), is_whole=is_whole)
        y_ticks = _choose_ticks(self.y, min(MAX_TICKS, int(self.height * 4)))
        tick_width = max(map(measure_text_width, _format_ticks(y_ticks)), default=0.0)
        for tick, label in zip(y_ticks, _format_ticks(y_ticks), strict=True):
            (_, tick_y), *_ = self.to_page([self.x[0]], [tick])
            page.draw_line([(self.left, tick_y), (right, tick_y)], GRID_COLOR, 0.8)
            page.draw_text((self.left - 0.06, tick_y), label, TextStyle(8, horizontal="right", vertical="center"))
        for tick, label in zip(x_ticks, _format_ticks(x_ticks), strict=True):
            (tick_x, _), *_ = self.to_page([tick], [self.y[0]])
            if "x" in grid:
                page.draw_line([(tick_x, self.bottom), (tick_x, top)], GRID_COLOR, 0.8)
            page.draw_text((tick_x, self.bottom - 0.07), label, TextStyle(8, horizontal="center", vertical="top"))
        page.draw_line([(self.left, self.bottom), (right, self.bottom)], EDGE_COLOR, 0.8)
        page.draw_text(
            (self.left + self.width / 2, self.bottom - 0.25), x_label, TextStyle(horizontal="center", vertical="top")
        )
        page.draw_text(
            (self.left - 0.12 - tick_width, self.bottom + self.height / 2),
            y_label,
            TextStyle(horizontal="center", is_rotated=True),
        )

    def set_title(self, title: str, size: float = 10, *, is_bold: bool = False) -> None:
        """Write a line of text above the plot.

        Args:
            title: the text.
            size: font size in points.
            is_bold: whether to use a bold font.
        """
        self.page.draw_text((self.left, self.bottom + self.height + 0.09), title, TextStyle(size, is_bold=is_bold))

    def draw_legend(self, entries: Sequence[tuple[str, str, bool]], drawn_points: NDArray[np.float64]) -> None:
        """Draw a legend where it covers the fewest of `drawn_points`, page coordinates (N, 2) in inches.

        `entries` are (color, label, is_dot) triples; the marker is a line unless `is_dot`.
        """
        width, height = (
            LEGEND_MARKER_WIDTH + max(measure_text_width(label, 8) for _, label, _ in entries),
            LEGEND_LINE_HEIGHT * len(entries),
        )
        left, top = self._find_free_corner(width, height, drawn_points)
        for index, (color, label, is_dot) in enumerate(entries):
            middle = top - LEGEND_LINE_HEIGHT * (index + 0.5)
            ends = [(left, middle), (left + LEGEND_MARKER_WIDTH - 0.08, middle)]
            if is_dot:
                self.page.draw_dots([np.mean(ends, axis=0)], color, 6)
            else:
                self.page.draw_line(ends, color, 1.8)
            self.page.draw_text((left + LEGEND_MARKER_WIDTH, middle), label, TextStyle(8, vertical="center"))

    def _find_free_corner(self, width: float, height: float, drawn_points: NDArray[np.float64]) -> tuple[float, float]:
        """Find the upper left corner for a box on the plot that covers the fewest drawn points.

        Nine positions are tried: the corners, the middles of the sides, and the center.
        """
        free_width, free_height = self.width - width - 2 * LEGEND_PADDING, self.height - height - 2 * LEGEND_PADDING
        corners = [
            (self.left + LEGEND_PADDING + free_width * across, self.bottom + LEGEND_PADDING + height + free_height * up)
            for up in (1.0, 0.0, 0.5)
            for across in (1.0, 0.0, 0.5)
        ]
        return min(corners, key=lambda corner: _count_points_within(drawn_points, corner, width, height))


def _count_points_within(points: NDArray[np.float64], corner: tuple[float, float], width: float, height: float) -> int:
    (x, y), (left, top) = points.T, corner
    is_in = (
        (x > left - LEGEND_PADDING)
        & (x < left + width + LEGEND_PADDING)
        & (y < top + LEGEND_PADDING)
        & (y > top - height - LEGEND_PADDING)
    )
    return int(is_in.sum())


def sample_along_line(points: NDArray[np.float64], inches: float) -> NDArray[np.float64]:
    """Sample points (N, 2) along a line, about `inches` apart."""
    finite_points = points[np.isfinite(points).all(axis=1)]
    if len(finite_points) < 2:
        return finite_points
    distances = np.concatenate([[0.0], np.hypot(*np.diff(finite_points, axis=0).T).cumsum()])
    new_distances = np.linspace(0, distances[-1], 2 + int(distances[-1] / inches))
    return np.stack([np.interp(new_distances, distances, each) for each in finite_points.T], axis=-1)


def axis_limits(values: Iterable[float]) -> ValueRange:
    """Compute an axis range that contains all finite values, with a margin on both sides. 0 to 1 if there are none."""
    finite = [each for each in values if math.isfinite(each)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    margin = MARGIN * ((high - low) or abs(low) or 1.0)
    return low - margin, high + margin


def _choose_ticks(value_range: ValueRange, max_ticks: int, *, is_whole: bool = False) -> list[float]:
    """Choose round numbers within a range, with matplotlib's `MaxNLocator`."""
    from matplotlib.ticker import MaxNLocator

    low, high = value_range
    found = MaxNLocator(max_ticks, steps=[1, 2, 2.5, 5, 10], integer=is_whole, min_n_ticks=1).tick_values(low, high)
    return [float(each) for each in found if low <= each <= high]


def _format_ticks(ticks: Sequence[float]) -> list[str]:
    """Format ticks with as few decimals as distinguish them; very small and very large ones in scientific notation."""
    largest = max(map(abs, ticks), default=0.0)
    if not 1e-4 <= largest < 1e6:
        return [f"{each:g}".replace("-", "−") for each in ticks]
    decimals = next((count for count in range(9) if len({round(each, count) for each in ticks}) == len(ticks)
                     and all(abs(round(each, count) - each) < largest * 1e-9 for each in ticks)), 9)  # fmt: skip
    return [f"{each:.{decimals}f}".replace("-", "−") for each in ticks]
