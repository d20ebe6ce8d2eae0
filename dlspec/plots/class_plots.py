"""Plots of predicted classes: a confusion matrix, for two classes also the ROC curve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.plots.axes import Axes
from dlspec.plots.canvas import (
    BLUE,
    DASH_PATTERN,
    EDGE_COLOR,
    FAINT_TEXT_COLOR,
    TEXT_COLOR,
    WHITE,
    Page,
    Point,
    TextStyle,
    measure_text_width,
    rectangle_corners,
)

# The largest number of classes for which a cell shows: its count and fraction of the row; only its count; only a color.
MAX_CLASSES_WITH_FRACTIONS, MAX_CLASSES_WITH_COUNTS, MAX_CLASSES_IN_MATRIX = 12, 30, 200
MAX_PAIRS = 15  # of confused classes, in the list of the most frequent errors
MAX_NAME_LENGTH = 18
CELL_SIZES = ((4, 10), (10, 8), (20, 7))  # (maximum number of classes, font size of a cell in points)
SMALLEST_CELL_SIZE = 6  # font size in points, for more classes


def confusion_matrix(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Count how often each class (row) was predicted as each class (column).

    Args:
        predicted: predicted classes (M,), int64.
        truth: true classes (M,), int64.
        classes: the number of classes K.

    Returns:
        Counts of shape (K, K), int64.
    """
    return torch.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class RocCurve:
    """An ROC curve: false and true positive rates at every threshold, from (0, 0) to (1, 1)."""

    false_positive_rate: Tensor  # (thresholds,)
    true_positive_rate: Tensor  # (thresholds,)
    area: float  # below the curve


def compute_roc(probabilities: Tensor, truth: Tensor) -> RocCurve | None:
    """Compute the ROC curve of the second of two classes; None if only one of them occurs.

    `probabilities` (M,) are those of the second class, `truth` (M,) contains 0 and 1. Samples with equal probabilities
    share one threshold.
    """
    order = probabilities.argsort(descending=True)
    ranked, is_second = probabilities[order], truth[order].bool()
    if is_second.all() or not is_second.any():
        return None
    last = torch.cat([ranked[1:] != ranked[:-1], torch.tensor([True])])  # of each group of equal probabilities
    counts = (each.double().cumsum(0)[last] for each in (~is_second, is_second))
    false_positive_rate, true_positive_rate = (torch.cat([torch.zeros(1), each / each[-1]]) for each in counts)
    return RocCurve(
        false_positive_rate, true_positive_rate, float(torch.trapezoid(true_positive_rate, false_positive_rate))
    )


def find_confused_pairs(predicted: Tensor, truth: Tensor) -> list[tuple[int, int, int]]:
    """List the most frequent errors as (true class, predicted class, count), most frequent first."""
    is_wrong = truth != predicted
    counts = Counter(zip(truth[is_wrong].tolist(), predicted[is_wrong].tolist(), strict=True))
    return [(*pair, count) for pair, count in counts.most_common(MAX_PAIRS)]


def draw_classes(target: Target, predictions: Tensor, truth: Tensor, note: str) -> Page:
    """Plot predicted against true classes, and the ROC curve if probabilities are given.

    Args:
        target: the target; its class names label the plot.
        predictions: predicted classes (M,), or for two classes the probabilities of the second one.
        truth: true classes (M,).
        note: subtitle, for example which split and how many samples are shown.

    Returns:
        A page with the confusion matrix, or with the most frequent errors for more than 200 classes.
    """
    names = [_shorten_name(each) for each in target.classes]
    is_probability = predictions.is_floating_point()
    predicted = (predictions > 0.5).long() if is_probability else predictions
    heading = f"{target.name}: {_format_accuracy(predicted, truth)}"
    pairs = find_confused_pairs(predicted, truth) if len(names) > MAX_CLASSES_WITH_COUNTS else []
    if len(names) > MAX_CLASSES_IN_MATRIX:
        return _make_pairs_page(names, pairs, heading, f"{note}, {len(names):,} classes")
    curve = compute_roc(predictions, truth) if is_probability else None
    page, matrix_right = _make_matrix_page(
        confusion_matrix(predicted, truth, len(names)), names, 4.0 if curve or pairs else 0.0
    )
    page.draw_title(heading, note)
    if curve is not None:
        _draw_roc(page, matrix_right + 0.9, _space_below(names), curve, names)
    if pairs:
        _list_pairs(page, (matrix_right + 0.3, _space_below(names) + _matrix_side(len(names))), names, pairs)
    return page


def _make_matrix_page(counts: Tensor, names: Sequence[str], extra_width: float) -> tuple[Page, float]:
    """Make a page with the confusion matrix and `extra_width` inches of free space on its right.

    Return the page and the x position of the matrix's right side in inches.
    """
    side, left = _matrix_side(len(names)), 0.65 + 0.075 * max(len(each) for each in names)
    page = Page(left + side + extra_width + 0.3, _space_below(names) + side + 0.75)
    _draw_matrix(page, left, _space_below(names), counts, names)
    return page, left + side


def _draw_matrix(page: Page, left: float, bottom: float, counts: Tensor, names: Sequence[str]) -> None:
    """Draw a confusion matrix: rows are true classes, correct cells are blue, errors orange.

    A cell is darker the larger its fraction of its row.
    """
    fractions, side = counts / counts.sum(1, keepdim=True).clamp(min=1), _matrix_side(len(names))
    page.draw_image(_cell_colors(fractions.numpy()), left, bottom, side, side)
    edge = rectangle_corners(left, bottom, side, side)
    page.draw_line([*edge, edge[0]], EDGE_COLOR, 0.8)
    cell, size, is_vertical = side / len(names), 9 if len(names) <= 20 else 7, not _names_fit_horizontally(names)
    for each in range(0, len(names), -(-len(names) // 40)):
        middle = cell * (each + 0.5)
        page.draw_text(
            (left - 0.06, bottom + side - middle), names[each], TextStyle(size, horizontal="right", vertical="center")
        )
        if is_vertical:
            page.draw_text(
                (left + middle, bottom - 0.06),
                names[each],
                TextStyle(size, horizontal="right", vertical="center", is_rotated=True),
            )
        else:
            page.draw_text(
                (left + middle, bottom - 0.07), names[each], TextStyle(size, horizontal="center", vertical="top")
            )
    widest = max(measure_text_width(each, size) for each in names)
    below = 0.2 + (widest if is_vertical else 0.1)
    page.draw_text((left + side / 2, bottom - below), "predicted", TextStyle(horizontal="center", vertical="top"))
    page.draw_text((left - 0.2 - widest, bottom + side / 2), "true", TextStyle(horizontal="center", is_rotated=True))
    if len(names) <= MAX_CLASSES_WITH_COUNTS:
        _write_cells(page, (left, bottom + side), cell, counts.tolist(), fractions.tolist())


def _cell_colors(fractions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Choose the colors (K, K, 3) of cells from their fractions of the row (K, K)."""
    from matplotlib import colormaps

    is_diagonal = np.eye(len(fractions), dtype=bool)
    # The square root makes rare errors visible: most errors are rare.
    colors = np.where(is_diagonal[..., None], colormaps["Blues"](fractions), colormaps["Oranges"](fractions**0.5 / 1.2))
    colors[~is_diagonal & (fractions == 0)] = 1
    return colors[..., :3].astype(np.float32)


def _write_cells(page: Page, corner: Point, cell: float, counts: list[list[int]], fractions: list[list[float]]) -> None:
    """Write counts and fractions into a matrix's cells, `cell` inches wide; `corner` is its upper left corner."""
    (left, top), classes = corner, len(counts)
    size = next((size for max_classes, size in CELL_SIZES if classes <= max_classes), SMALLEST_CELL_SIZE)
    for row, column in product(range(classes), repeat=2):
        fraction, count = fractions[row][column], counts[row][column]
        if not count and classes > 2:
            continue
        lines = [f"{count:,}", f"{fraction:.1%}"] if classes <= MAX_CLASSES_WITH_FRACTIONS else [f"{count:,}"]
        x, y = left + cell * (column + 0.5), top - cell * (row + 0.5)
        for number, line in enumerate(lines):
            offset = size / 72 * 1.25 * (number - (len(lines) - 1) / 2)
            page.draw_text(
                (x, y - offset),
                line,
                TextStyle(size, WHITE if fraction > 0.5 else TEXT_COLOR, horizontal="center", vertical="center"),
            )


def _draw_roc(page: Page, left: float, bottom: float, curve: RocCurve, names: Sequence[str]) -> None:
    plot = Axes(page, left, bottom, 3.0, 3.0, (-0.01, 1.01), (-0.01, 1.01))
    plot.set_title(f"ROC: area {curve.area:.3f}")
    plot.draw_frame(f"fraction of {names[0]} predicted as {names[1]}", f"fraction of {names[1]} found", grid="xy")
    points = plot.to_page(curve.false_positive_rate.numpy(), curve.true_positive_rate.numpy())
    page.draw_line(plot.to_page([0, 1], [0, 1]), FAINT_TEXT_COLOR, 1, DASH_PATTERN)
    page.draw_area([*points, *plot.to_page([1, 0], [0, 0])], BLUE, alpha=0.08)
    page.draw_line(points, BLUE, 1.8)


def _list_pairs(page: Page, corner: Point, names: Sequence[str], pairs: Sequence[tuple[int, int, int]]) -> None:
    """List pairs of confused classes below a heading; `corner` is the list's upper left corner."""
    left, upper = corner
    page.draw_text((left, upper + 0.09), "most frequent errors", TextStyle(10))
    for line, (true_class, predicted_class, count) in enumerate(pairs):
        top = upper - 0.12 - 0.23 * line
        page.draw_text((left + 0.5, top), f"{count:,}", TextStyle(color=BLUE, horizontal="right", vertical="top"))
        page.draw_text(
            (left + 0.62, top), f"{names[true_class]} predicted as {names[predicted_class]}", TextStyle(vertical="top")
        )


def _make_pairs_page(names: Sequence[str], pairs: Sequence[tuple[int, int, int]], heading: str, note: str) -> Page:
    page = Page(6.4, 5.2)
    page.draw_title(heading, note)
    _list_pairs(page, (0.15, 4.4), names, pairs)
    return page


def _format_accuracy(predicted: Tensor, truth: Tensor) -> str:
    right, count = int((predicted == truth).sum()), len(truth)
    return f"{right:,} of {count:,} correct, {right / max(count, 1):.1%}"


def _matrix_side(classes: int) -> float:
    """Choose the side length of a matrix in inches."""
    return min(max(3.0, 0.48 * classes), 9.0)


def _space_below(names: Sequence[str]) -> float:
    """Compute the space below a matrix in inches: vertical class names need more of it."""
    return 0.55 if _names_fit_horizontally(names) else 0.45 + 0.085 * max(len(each) for each in names)


def _names_fit_horizontally(names: Sequence[str]) -> bool:
    """Return whether class names fit side by side below the matrix without rotation."""
    max_characters = 12 * _matrix_side(len(names)) / min(len(names), 40)  # about 12 characters an inch
    return max(len(each) for each in names) <= max_characters


def _shorten_name(name: str) -> str:
    """Cut the middle out of a long name. The end is kept, as names may differ only there."""
    half = MAX_NAME_LENGTH // 2
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[:half]}…{name[1 - half :]}"
