"""Plots of predicted numbers: predicted against true values, and a histogram of the errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.plots.axes import Axes, axis_limits
from dlspec.plots.canvas import BLUE, DASH_PATTERN, FAINT_TEXT_COLOR, ORANGE, Page, Point

MAX_POINTS = 4096  # dots in a scatter plot
MAX_NUMBERS_PER_ROW = 4  # numbers of a sample that get plots
PLOT_SIZE = 3.3  # side length in inches
DOT_ALPHAS = ((300, 0.7), (2_000, 0.35))  # (maximum number of dots, opacity)
FAINTEST_DOTS = 0.2  # opacity of more dots


@dataclass(frozen=True)
class PredictionErrors:
    """The errors of predicted numbers."""

    residuals: Tensor  # predicted - true, (M,)
    mean_absolute: float  # mean absolute error
    r2: float  # coefficient of determination


def compute_errors(predicted: Tensor, truth: Tensor) -> PredictionErrors:
    """Compute the errors of predictions (M,) against true values (M,)."""
    residuals = (predicted - truth).double()
    total_variance = (truth.double() - truth.double().mean()).square().sum()
    return PredictionErrors(
        residuals, float(residuals.abs().mean()), float(1 - residuals.square().sum() / total_variance)
    )


def split_columns(target: Target, predicted: Tensor, truth: Tensor) -> list[tuple[str, Tensor, Tensor]]:
    """Split predictions of multiple numbers per sample into one column per number, at most four.

    Args:
        target: the target, whose name is used in the columns' names.
        predicted: predictions (M,) or (M, numbers).
        truth: true values of the same shape.

    Returns:
        (name, predictions, true values) of each column, (M,) each.
    """
    if predicted.dim() < 2:
        return [(target.name, predicted, truth)]
    count = min(predicted.shape[1], MAX_NUMBERS_PER_ROW)
    return [(f"{target.name}, number {index}", predicted[:, index], truth[:, index]) for index in range(count)]


def draw_numbers(target: Target, predicted: Tensor, truth: Tensor, note: str) -> Page:
    """Draw a scatter plot and an error histogram for each number of a sample.

    Args:
        target: the target, named in the title.
        predicted: predictions (M,) or (M, numbers), in the target's unit.
        truth: true values of the same shape.
        note: subtitle, for example which split and how many samples are shown.
    """
    rows = split_columns(target, predicted, truth)
    height = PLOT_SIZE + 0.95
    page = Page(2 * PLOT_SIZE + 1.9, height * len(rows) + 0.55)
    for index, (name, predictions, true_values) in enumerate(rows):
        bottom, column_errors = height * (len(rows) - 1 - index) + 0.55, compute_errors(predictions, true_values)
        heading = f"{name}: {_format_errors(column_errors)}" if len(rows) > 1 else ""
        _draw_scatter(page, (0.75, bottom), predictions, true_values, heading)
        _draw_residuals(page, PLOT_SIZE + 1.65, bottom, column_errors)
    column_note = (
        f"; the first {len(rows)} of {predicted.shape[1]} numbers" if 1 < len(rows) < predicted.shape[-1] else ""
    )
    page.draw_title(
        f"{target.name}: {_format_errors(compute_errors(predictions, true_values))}" if len(rows) == 1 else target.name,
        note + column_note,
    )
    return page


def _draw_scatter(page: Page, corner: Point, predicted: Tensor, truth: Tensor, heading: str) -> None:
    step = -(-len(truth) // MAX_POINTS)
    axis_range = axis_limits([float(end(each)) for each in (predicted, truth) for end in (torch.min, torch.max)])
    plot = Axes(page, *corner, PLOT_SIZE, PLOT_SIZE, axis_range, axis_range)
    plot.set_title(heading)
    plot.draw_frame("true", "predicted", grid="xy")
    page.draw_line(plot.to_page(axis_range, axis_range), FAINT_TEXT_COLOR, 1, DASH_PATTERN)
    alpha = next((alpha for max_dots, alpha in DOT_ALPHAS if len(truth) <= max_dots), FAINTEST_DOTS)
    page.draw_dots(plot.to_page(truth[::step].numpy(), predicted[::step].numpy()), BLUE, 3.7, alpha)


def _draw_residuals(page: Page, left: float, bottom: float, errors: PredictionErrors) -> None:
    values = errors.residuals.numpy()
    counts, edges = np.histogram(values, bins=min(40, max(10, round(len(values) ** 0.5))))
    plot = Axes(page, left, bottom, PLOT_SIZE, PLOT_SIZE, axis_limits(edges.tolist()), (0, counts.max() * 1.05))
    mean, deviation = float(errors.residuals.mean()), float(errors.residuals.std(correction=0))
    plot.set_title(f"errors: mean {_format_number(mean)}, deviation {_format_number(deviation)}")
    plot.draw_frame("predicted − true", "count")
    gap = 0.04 * (edges[1] - edges[0])
    for count, start, end in zip(counts, edges[:-1] + gap, edges[1:] - gap, strict=True):
        page.draw_area(plot.to_page([start, end, end, start], [0, 0, count, count]), BLUE, 0.8)
    if plot.x[0] <= 0 <= plot.x[1]:
        page.draw_line(plot.to_page(0, plot.y), FAINT_TEXT_COLOR, 1, DASH_PATTERN)
    page.draw_line(plot.to_page(mean, plot.y), ORANGE, 1.5)


def _format_errors(errors: PredictionErrors) -> str:
    return f"R² {errors.r2:.3f}, mean absolute error {_format_number(errors.mean_absolute)}"


def _format_number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
