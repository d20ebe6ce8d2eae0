"""A plot on a page: numbers along its sides, a grid, and what is drawn by its coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlspec.plots.drawing import EDGE, GRID, Lettering, Page, width_of

MARGIN = 0.05
MOST_TICKS = 9
LINE, SAMPLE, PAD = 0.17, 0.27, 0.1
"""Of a legend: a line's height, the width of what stands before a text, and how far it is from the plot's sides."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Plot:
    """A place on a page, in inches, and the numbers from its left to its right side and from its bottom to its top."""

    page: Page
    left: float
    bottom: float
    width: float
    height: float
    x: Range
    y: Range

    def at(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Where the coordinates are on the page, (N, 2); one of them may be a single number."""
        both = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        sides = ((self.left, self.width, self.x), (self.bottom, self.height, self.y))
        scaled = [
            start + (each - low) / (high - low) * extent
            for each, (start, extent, (low, high)) in zip(both, sides, strict=True)
        ]
        return np.stack(scaled, axis=-1)

    def furnish(self, x: str, y: str = "", *, grid: str = "y", is_whole: bool = False) -> None:
        """The look of a plot, before anything is drawn on it: the sides' names and numbers, a faint grid.

        `grid` is "y" or "xy"; with `is_whole` there is nothing between whole numbers of x.
        """
        page, right, top = self.page, self.left + self.width, self.bottom + self.height
        across = _ticks(self.x, min(MOST_TICKS, int(self.width * 3)), is_whole=is_whole)
        upwards = _ticks(self.y, min(MOST_TICKS, int(self.height * 4)))
        beside = max(map(width_of, _told(upwards)), default=0.0)
        for tick, words in zip(upwards, _told(upwards), strict=True):
            (_, height), *_ = self.at([self.x[0]], [tick])
            page.line([(self.left, height), (right, height)], GRID, 0.8)
            page.text((self.left - 0.06, height), words, Lettering(8, across="right", up="center"))
        for tick, words in zip(across, _told(across), strict=True):
            (place, _), *_ = self.at([tick], [self.y[0]])
            if "x" in grid:
                page.line([(place, self.bottom), (place, top)], GRID, 0.8)
            page.text((place, self.bottom - 0.07), words, Lettering(8, across="center", up="top"))
        page.line([(self.left, self.bottom), (right, self.bottom)], EDGE, 0.8)
        page.text((self.left + self.width / 2, self.bottom - 0.25), x, Lettering(across="center", up="top"))
        page.text(
            (self.left - 0.12 - beside, self.bottom + self.height / 2), y, Lettering(across="center", is_upright=True)
        )

    def head(self, words: str, size: float = 10, *, is_bold: bool = False) -> None:
        """A line above the plot."""
        self.page.text((self.left, self.bottom + self.height + 0.09), words, Lettering(size, is_bold=is_bold))

    def legend(self, entries: Sequence[tuple[str, str, bool]], drawn: NDArray[np.float64]) -> None:
        """Colours, their texts, and whether it is a dot's or a line's, where least of what is drawn (N, 2) lies."""
        width, height = SAMPLE + max(width_of(words, 8) for _, words, _ in entries), LINE * len(entries)
        left, top = self._free_place(width, height, drawn)
        for number, (color, words, is_dot) in enumerate(entries):
            middle = top - LINE * (number + 0.5)
            ends = [(left, middle), (left + SAMPLE - 0.08, middle)]
            if is_dot:
                self.page.dots([np.mean(ends, axis=0)], color, 6)
            else:
                self.page.line(ends, color, 1.8)
            self.page.text((left + SAMPLE, middle), words, Lettering(8, up="center"))

    def _free_place(self, width: float, height: float, drawn: NDArray[np.float64]) -> tuple[float, float]:
        """The left upper corner of a box on the plot, at a side, a corner or in the middle."""
        room_across, room_up = self.width - width - 2 * PAD, self.height - height - 2 * PAD
        places = [
            (self.left + PAD + room_across * across, self.bottom + PAD + height + room_up * up)
            for up in (1.0, 0.0, 0.5)
            for across in (1.0, 0.0, 0.5)
        ]
        return min(places, key=lambda place: _within(drawn, place, width, height))


def _within(points: NDArray[np.float64], place: tuple[float, float], width: float, height: float) -> int:
    (x, y), (left, top) = points.T, place
    is_in = (x > left - PAD) & (x < left + width + PAD) & (y < top + PAD) & (y > top - height - PAD)
    return int(is_in.sum())


def dense(points: NDArray[np.float64], inches: float) -> NDArray[np.float64]:
    """Points (N, 2) along a line, about so many inches apart."""
    there = points[np.isfinite(points).all(axis=1)]
    if len(there) < 2:
        return there
    along = np.concatenate([[0.0], np.hypot(*np.diff(there, axis=0).T).cumsum()])
    places = np.linspace(0, along[-1], 2 + int(along[-1] / inches))
    return np.stack([np.interp(places, along, each) for each in there.T], axis=-1)


def limits(values: Iterable[float]) -> Range:
    """From the least to the greatest finite number and some more on either side; of none 0 to 1."""
    finite = [each for each in values if math.isfinite(each)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    more = MARGIN * ((high - low) or abs(low) or 1.0)
    return low - more, high + more


def _ticks(side: Range, most: int, *, is_whole: bool = False) -> list[float]:
    """Round numbers between the ends, by matplotlib's rule."""
    from matplotlib.ticker import MaxNLocator

    low, high = side
    found = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], integer=is_whole, min_n_ticks=1).tick_values(low, high)
    return [float(each) for each in found if low <= each <= high]


def _told(ticks: Sequence[float]) -> list[str]:
    """`0.5`, `1.0`, as many decimals as tell them apart; very small and large ones as powers."""
    most = max(map(abs, ticks), default=0.0)
    if not 1e-4 <= most < 1e6:
        return [f"{each:g}".replace("-", "−") for each in ticks]
    decimals = next((count for count in range(9) if len({round(each, count) for each in ticks}) == len(ticks)
                     and all(abs(round(each, count) - each) < most * 1e-9 for each in ticks)), 9)  # fmt: skip
    return [f"{each:.{decimals}f}".replace("-", "−") for each in ticks]
