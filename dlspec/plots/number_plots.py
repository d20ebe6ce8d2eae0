"""The picture of predicted numbers: predicted against true, and how the errors are distributed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.plots.drawing import BLUE, DASHED, FAINT, ORANGE, Page, Point
from dlspec.plots.plot import Plot, limits

MOST_POINTS = 4096
MOST_COLUMNS = 4
SIDE = 3.3
DOT_ALPHAS = ((300, 0.7), (2_000, 0.35))  # of each dot, up to so many of them
FAINTEST_DOTS = 0.2


@dataclass(frozen=True)
class Errors:
    """What a number's predictions came to: `residuals` are predicted - true."""

    residuals: Tensor
    mean_absolute: float
    r2: float


def errors(predicted: Tensor, truth: Tensor) -> Errors:
    """Of predictions and truth (M,)."""
    residuals = (predicted - truth).double()
    spread = (truth.double() - truth.double().mean()).square().sum()
    return Errors(residuals, float(residuals.abs().mean()), float(1 - residuals.square().sum() / spread))


def columns(target: Target, predicted: Tensor, truth: Tensor) -> list[tuple[str, Tensor, Tensor]]:
    """Name, predictions and truth (M,) of each number of a row, or of all numbers together."""
    if predicted.dim() < 2:
        return [(target.name, predicted, truth)]
    count = min(predicted.shape[1], MOST_COLUMNS)
    return [(f"{target.name}, number {index}", predicted[:, index], truth[:, index]) for index in range(count)]


def draw_numbers(target: Target, predicted: Tensor, truth: Tensor, note: str) -> Page:
    """A row of two plots for each number; (M,) or (M, numbers), in the target's own unit; `note` says of what."""
    rows = columns(target, predicted, truth)
    height = SIDE + 0.95
    page = Page(2 * SIDE + 1.9, height * len(rows) + 0.55)
    for index, (name, told, true) in enumerate(rows):
        bottom, found = height * (len(rows) - 1 - index) + 0.55, errors(told, true)
        heading = f"{name}: {_told(found)}" if len(rows) > 1 else ""
        _draw_scatter(page, (0.75, bottom), told, true, heading)
        _draw_residuals(page, SIDE + 1.65, bottom, found)
    several = f"; the first {len(rows)} of {predicted.shape[1]} numbers" if 1 < len(rows) < predicted.shape[-1] else ""
    page.title(f"{target.name}: {_told(errors(told, true))}" if len(rows) == 1 else target.name, note + several)
    return page


def _draw_scatter(page: Page, corner: Point, predicted: Tensor, truth: Tensor, heading: str) -> None:
    step = -(-len(truth) // MOST_POINTS)
    both = limits([float(end(each)) for each in (predicted, truth) for end in (torch.min, torch.max)])
    plot = Plot(page, *corner, SIDE, SIDE, both, both)
    plot.head(heading)
    plot.furnish("true", "predicted", grid="xy")
    page.line(plot.at(both, both), FAINT, 1, DASHED)
    alpha = next((alpha for most, alpha in DOT_ALPHAS if len(truth) <= most), FAINTEST_DOTS)
    page.dots(plot.at(truth[::step].numpy(), predicted[::step].numpy()), BLUE, 3.7, alpha)


def _draw_residuals(page: Page, left: float, bottom: float, found: Errors) -> None:
    values = found.residuals.numpy()
    counts, edges = np.histogram(values, bins=min(40, max(10, round(len(values) ** 0.5))))
    plot = Plot(page, left, bottom, SIDE, SIDE, limits(edges.tolist()), (0, counts.max() * 1.05))
    mean, deviation = float(found.residuals.mean()), float(found.residuals.std(correction=0))
    plot.head(f"errors: mean {_number(mean)}, deviation {_number(deviation)}")
    plot.furnish("predicted − true", "count")
    gap = 0.04 * (edges[1] - edges[0])
    for count, start, end in zip(counts, edges[:-1] + gap, edges[1:] - gap, strict=True):
        page.area(plot.at([start, end, end, start], [0, 0, count, count]), BLUE, 0.8)
    if plot.x[0] <= 0 <= plot.x[1]:
        page.line(plot.at(0, plot.y), FAINT, 1, DASHED)
    page.line(plot.at(mean, plot.y), ORANGE, 1.5)


def _told(found: Errors) -> str:
    return f"R² {found.r2:.3f}, mean absolute error {_number(found.mean_absolute)}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
