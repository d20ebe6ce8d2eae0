"""A plot on a page: numbers along its sides, a grid, and what is drawn by its coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlspec.plots.canvas import EDGE_COLOR, GRID_COLOR, Page, TextStyle, measure_text_width

MARGIN = 0.05
MAX_TICKS = 9
LEGEND_LINE_HEIGHT, LEGEND_MARKER_WIDTH, LEGEND_PADDING = 0.17, 0.27, 0.1
"""Of a legend: a line's height, the width of what stands before a text, and how far it is from the plot's sides."""

ValueRange = tuple[float, float]


@dataclass(frozen=True)
class Axes:
    """A place on a page, in inches, and the numbers from its left to its right side and from its bottom to its top."""

    page: Page
    left: float
    bottom: float
    width: float
    height: float
    x: ValueRange
    y: ValueRange

    def to_page(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Where the coordinates are on the page, (N, 2); one of them may be a single number."""
        both = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        sides = ((self.left, self.width, self.x), (self.bottom, self.height, self.y))
        scaled = [
            start + (each - low) / (high - low) * extent
            for each, (start, extent, (low, high)) in zip(both, sides, strict=True)
        ]
        return np.stack(scaled, axis=-1)

    def draw_frame(self, x_label: str, y_label: str = "", *, grid: str = "y", is_whole: bool = False) -> None:
        """The look of a plot, before anything is drawn on it: the sides' names and numbers, a faint grid.

        `grid` is "y" or "xy"; with `is_whole` there is nothing between whole numbers of x.
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
        """A line above the plot."""
        self.page.draw_text((self.left, self.bottom + self.height + 0.09), title, TextStyle(size, is_bold=is_bold))

    def draw_legend(self, entries: Sequence[tuple[str, str, bool]], drawn_points: NDArray[np.float64]) -> None:
        """Colours, their texts, and whether it is a dot's or a line's, where least of what is drawn (N, 2) lies."""
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
        """The left upper corner of a box on the plot, at a side, a corner or in the middle."""
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
    """Points (N, 2) along a line, about so many inches apart."""
    finite_points = points[np.isfinite(points).all(axis=1)]
    if len(finite_points) < 2:
        return finite_points
    distances = np.concatenate([[0.0], np.hypot(*np.diff(finite_points, axis=0).T).cumsum()])
    new_distances = np.linspace(0, distances[-1], 2 + int(distances[-1] / inches))
    return np.stack([np.interp(new_distances, distances, each) for each in finite_points.T], axis=-1)


def axis_limits(values: Iterable[float]) -> ValueRange:
    """From the least to the greatest finite number and some more on either side; of none 0 to 1."""
    finite = [each for each in values if math.isfinite(each)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    margin = MARGIN * ((high - low) or abs(low) or 1.0)
    return low - margin, high + margin


def _choose_ticks(value_range: ValueRange, max_ticks: int, *, is_whole: bool = False) -> list[float]:
    """Round numbers between the ends, by matplotlib's rule."""
    from matplotlib.ticker import MaxNLocator

    low, high = value_range
    found = MaxNLocator(max_ticks, steps=[1, 2, 2.5, 5, 10], integer=is_whole, min_n_ticks=1).tick_values(low, high)
    return [float(each) for each in found if low <= each <= high]


def _format_ticks(ticks: Sequence[float]) -> list[str]:
    """`0.5`, `1.0`, as many decimals as tell them apart; very small and large ones as powers."""
    largest = max(map(abs, ticks), default=0.0)
    if not 1e-4 <= largest < 1e6:
        return [f"{each:g}".replace("-", "−") for each in ticks]
    decimals = next((count for count in range(9) if len({round(each, count) for each in ticks}) == len(ticks)
                     and all(abs(round(each, count) - each) < largest * 1e-9 for each in ticks)), 9)  # fmt: skip
    return [f"{each:.{decimals}f}".replace("-", "−") for each in ticks]
