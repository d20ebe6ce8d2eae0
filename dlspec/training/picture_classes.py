"""The picture of predicted classes: a confusion matrix, of two classes the ROC curve beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.training.drawing import BLUE, FAINT, INK, furnish, new_figure, place, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_WITH_SHARES, MOST_WITH_COUNTS, MOST_IN_MATRIX = 12, 30, 200
"""Up to so many classes a cell holds its count and share, its count alone, or only its colour."""
MOST_PAIRS = 15
LONGEST_NAME = 18


def confusion(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """How often each class (the row) was taken for each (the column): int64 of shape (K, K)."""
    return torch.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class Roc:
    """The rates of false and true alarms at every threshold, from none to all, and the area below."""

    false_rate: Tensor
    true_rate: Tensor
    area: float


def roc(probabilities: Tensor, truth: Tensor) -> Roc | None:
    """Of the second of two classes; None where one of them does not occur. Ties are one step."""
    order = probabilities.argsort(descending=True)
    ranked, is_second = probabilities[order], truth[order].bool()
    if is_second.all() or not is_second.any():
        return None
    last = torch.cat([ranked[1:] != ranked[:-1], torch.tensor([True])])  # of each run of equal ones
    counts = (each.double().cumsum(0)[last] for each in (~is_second, is_second))
    false_rate, true_rate = (torch.cat([torch.zeros(1), each / each[-1]]) for each in counts)
    return Roc(false_rate, true_rate, float(torch.trapezoid(true_rate, false_rate)))


def confused_pairs(predicted: Tensor, truth: Tensor) -> list[tuple[int, int, int]]:
    """The most frequent mistakes as (truth, prediction, how often), the most frequent first."""
    is_wrong = truth != predicted
    counts = Counter(zip(truth[is_wrong].tolist(), predicted[is_wrong].tolist(), strict=True))
    return [(*pair, count) for pair, count in counts.most_common(MOST_PAIRS)]


def draw_classes(target: Target, told: Tensor, truth: Tensor, note: str) -> Figure:
    """`told` are the predicted classes (M,), of two classes the probabilities of the second; `note` says of what."""
    names = [_short(each) for each in target.classes]
    is_probability = told.is_floating_point()
    predicted = (told > 0.5).long() if is_probability else told
    heading = f"{target.name}: {_right(predicted, truth)}"
    pairs = confused_pairs(predicted, truth) if len(names) > MOST_WITH_COUNTS else []
    if len(names) > MOST_IN_MATRIX:
        return _draw_pairs(names, pairs, heading, f"{note}, {len(names):,} classes")
    curve = roc(told, truth) if is_probability else None
    figure, beside = _with_matrix(confusion(predicted, truth, len(names)), names, 4.0 if curve or pairs else 0.0)
    title(figure, heading, note)
    if curve is not None:
        _draw_roc(place(figure, beside + 0.9, _below(names), 3.0, 3.0), curve, names)
    if pairs:
        _list_pairs(place(figure, beside + 0.3, _below(names), 3.5, _side(len(names))), names, pairs)
    return figure


def _with_matrix(counts: Tensor, names: Sequence[str], more: float) -> tuple[Figure, float]:
    """A figure with the matrix at its left, and how far that reaches; `more` inches are left beside it."""
    side, left = _side(len(names)), 0.65 + 0.075 * max(len(each) for each in names)
    figure = new_figure(left + side + more + 0.3, _below(names) + side + 0.75)
    _draw_matrix(place(figure, left, _below(names), side, side), counts, names)
    return figure, left + side


def _draw_matrix(axes: Axes, counts: Tensor, names: Sequence[str]) -> None:
    """Rows are the truth; a cell's colour is its share of its row: of what is right blue, of mistakes orange."""
    shares = (counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
    right = np.eye(len(names), dtype=bool)
    axes.imshow(np.ma.array(shares, mask=~right), cmap="Blues", vmin=0, vmax=1)
    # By its square root: most mistakes are rare, and all of them are to be seen.
    axes.imshow(np.ma.array(shares**0.5, mask=right | (shares == 0)), cmap="Oranges", vmin=0, vmax=1.2)
    places, size = range(0, len(names), -(-len(names) // 40)), 9 if len(names) <= 20 else 7
    axes.set_xticks(places, [names[each] for each in places], rotation=0 if _is_upright(names) else 90, fontsize=size)
    axes.set_yticks(places, [names[each] for each in places], fontsize=size)
    axes.tick_params(length=0, colors=INK)
    axes.set_xlabel("predicted", fontsize=9, color=INK)
    axes.set_ylabel("true", fontsize=9, color=INK)
    for spine in axes.spines.values():
        spine.set_color("#c5cad5")
    if len(names) <= MOST_WITH_COUNTS:
        _write_cells(axes, counts.tolist(), shares.tolist())


def _write_cells(axes: Axes, counts: list[list[int]], shares: list[list[float]]) -> None:
    classes = len(counts)
    size = 10 if classes <= 4 else 8 if classes <= 10 else 7 if classes <= 20 else 6
    for row, column in product(range(classes), repeat=2):
        share, count = shares[row][column], counts[row][column]
        if not count and classes > 2:
            continue
        text = f"{count:,}\n{share:.1%}" if classes <= MOST_WITH_SHARES else f"{count:,}"
        color = "white" if share > 0.5 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color, linespacing=1.1)


def _draw_roc(axes: Axes, curve: Roc, names: Sequence[str]) -> None:
    false_rate, true_rate = curve.false_rate.numpy(), curve.true_rate.numpy()
    axes.plot([0, 1], [0, 1], color=FAINT, lw=1, ls=(0, (4, 3)))
    axes.fill_between(false_rate, true_rate, color=BLUE, alpha=0.08, lw=0)
    axes.plot(false_rate, true_rate, color=BLUE, lw=1.8)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    furnish(axes, "", f"share of {names[0]} taken for {names[1]}", f"share of {names[1]} found", "both")
    axes.set_title(f"ROC: area {curve.area:.3f}", loc="left", fontsize=10, color=INK)


def _list_pairs(axes: Axes, names: Sequence[str], pairs: Sequence[tuple[int, int, int]]) -> None:
    axes.set_axis_off()
    axes.set_title("most frequent mistakes", loc="left", fontsize=10, color=INK)
    for line, (true, told, count) in enumerate(pairs):
        height = 0.97 - 0.055 * line
        axes.text(0.14, height, f"{count:,}", ha="right", va="top", fontsize=9, color=BLUE)
        axes.text(0.18, height, f"{names[true]} taken for {names[told]}", va="top", fontsize=9, color=INK)


def _draw_pairs(names: Sequence[str], pairs: Sequence[tuple[int, int, int]], right: str, note: str) -> Figure:
    figure = new_figure(6.4, 5.2)
    title(figure, right, note)
    _list_pairs(place(figure, 0.15, 0.2, 6, 4.2), names, pairs)
    return figure


def _right(predicted: Tensor, truth: Tensor) -> str:
    right, count = int((predicted == truth).sum()), len(truth)
    return f"{right:,} of {count:,} right, {right / max(count, 1):.1%}"


def _side(classes: int) -> float:
    """A matrix's inches a side."""
    return min(max(3.0, 0.48 * classes), 9.0)


def _below(names: Sequence[str]) -> float:
    """The inches below a matrix: its classes' names may stand upright or not."""
    return 0.55 if _is_upright(names) else 0.45 + 0.085 * max(len(each) for each in names)


def _is_upright(names: Sequence[str]) -> bool:
    """Whether each class's name fits beside the next one's."""
    room = 12 * _side(len(names)) / min(len(names), 40)  # in characters
    return max(len(each) for each in names) <= room


def _short(name: str) -> str:
    """The name without its middle, where it is long: what tells classes apart may stand at its end."""
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[1 - half :]}"
