"""The picture of predicted numbers: predicted against true, and how the errors are distributed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.training.drawing import BLUE, FAINT, INK, ORANGE, furnish, new_figure, place, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 4096
MOST_COLUMNS = 4
SIDE = 3.3


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


def draw_numbers(target: Target, predicted: Tensor, truth: Tensor, note: str) -> Figure:
    """A row of two plots for each number; (M,) or (M, numbers), in the target's own unit; `note` says of what."""
    rows = columns(target, predicted, truth)
    height = SIDE + 0.95
    figure = new_figure(2 * SIDE + 1.9, height * len(rows) + 0.55)
    for index, (name, told, true) in enumerate(rows):
        bottom = height * (len(rows) - 1 - index) + 0.55
        found = errors(told, true)
        scatter, histogram = (place(figure, left, bottom, SIDE, SIDE) for left in (0.75, SIDE + 1.65))
        _draw_scatter(scatter, told, true)
        _draw_residuals(histogram, found)
        if len(rows) > 1:
            scatter.set_title(f"{name}: {_told(found)}", loc="left", fontsize=10, color=INK)
    several = f"; the first {len(rows)} of {predicted.shape[1]} numbers" if 1 < len(rows) < predicted.shape[-1] else ""
    title(figure, f"{target.name}: {_told(errors(told, true))}" if len(rows) == 1 else target.name, note + several)
    return figure


def _draw_scatter(axes: Axes, predicted: Tensor, truth: Tensor) -> None:
    step = -(-len(truth) // MOST_POINTS)
    low, high = (float(end(torch.cat([predicted, truth]))) for end in (torch.min, torch.max))
    edge = (high - low or 1) * 0.04
    limits = (low - edge, high + edge)
    axes.plot(limits, limits, color=FAINT, lw=1, ls=(0, (4, 3)), zorder=1)
    alpha = 0.7 if len(truth) <= 300 else 0.35 if len(truth) <= 2000 else 0.2
    axes.scatter(truth[::step], predicted[::step], s=14, color=BLUE, alpha=alpha, linewidths=0, zorder=2)
    axes.set(xlim=limits, ylim=limits)
    furnish(axes, "", "true", "predicted", "both")


def _draw_residuals(axes: Axes, found: Errors) -> None:
    values = found.residuals.numpy()
    axes.hist(values, bins=min(40, max(10, round(len(values) ** 0.5))), color=BLUE, alpha=0.8, rwidth=0.92)
    axes.axvline(0, color=FAINT, lw=1, ls=(0, (4, 3)))
    mean, deviation = float(found.residuals.mean()), float(found.residuals.std(correction=0))
    axes.axvline(mean, color=ORANGE, lw=1.5)
    furnish(axes, "", "predicted − true", "count")
    words = f"errors: mean {_number(mean)}, deviation {_number(deviation)}"
    axes.set_title(words, loc="left", fontsize=10, color=INK)


def _told(found: Errors) -> str:
    return f"R² {found.r2:.3f}, mean absolute error {_number(found.mean_absolute)}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
