"""Pictures of what is an image itself: originals above what the network makes of them, and a class a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.training.drawing import FAINT, INK, new_figure, place, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_IMAGES, MOST_MAPS = 10, 6
CELL = 1.15
"""A small image's inches a side."""
GAP, LEFT, BELOW = 0.08, 1.25, 0.25
MOST_IN_LEGEND = 21


def is_image(shape: Sequence[int]) -> bool:
    """Whether (C, H, W) is one that can be shown: gray or in colours."""
    return len(shape) == 3 and shape[0] in (1, 3)


def draw_images(target: Target, predicted: Tensor, truth: Tensor, note: str, *, is_input: bool) -> Figure:
    """Originals above predictions, (N, C, H, W), with each one's mean squared error."""
    rows, errors = (truth, predicted), (predicted - truth).square().flatten(1).mean(1).tolist()
    words = ("original", "reconstruction") if is_input else ("true", "predicted")
    figure, axes = _grid(len(truth), words, truth.shape[-2:], BELOW)
    low, high = _range(truth)
    for line, images in zip(axes, rows, strict=True):
        for each, image in zip(line, images, strict=True):
            _show(each, (image - low) / (high - low))
    for each, error in zip(axes[-1], errors, strict=True):
        each.set_xlabel(f"{error:#.2g}", fontsize=8, color=FAINT)
    title(figure, f"{target.name}: {words[0]} and {words[1]}", f"{note}; below each the mean squared error")
    return figure


def draw_maps(target: Target, predicted: Tensor, truth: Tensor, images: Tensor | None, note: str) -> Figure:
    """The image (N, C, H, W) where there is one, its true and its predicted classes (N, H, W), and a legend."""
    shown = {} if images is None else {"image": images}
    occurring = torch.cat([predicted, truth]).flatten().bincount().nonzero()[:, 0].tolist()
    names = [target.classes[each] for each in occurring]
    columns = _legend_columns(names, len(truth))
    lines = -(-min(len(names), MOST_IN_LEGEND) // columns)
    below = BELOW + 0.2 * lines + 0.2
    figure, axes = _grid(len(truth), (*shown, "true", "predicted"), truth.shape[-2:], below)
    colors = class_colors(len(target.classes))
    for each, image in zip(axes[0], images if images is not None else (), strict=False):
        low, high = _range(image)
        _show(each, (image - low) / (high - low))
    for line, maps in zip(axes[-2:], (truth, predicted), strict=True):
        for each, labels in zip(line, maps, strict=True):
            each.imshow(colors[labels].numpy(), interpolation="nearest")
    for each, told, true in zip(axes[-1], predicted, truth, strict=True):
        each.set_xlabel(f"{float((told == true).float().mean()):.1%}", fontsize=8, color=FAINT)
    _add_legend(figure, names, colors[occurring], columns)
    title(figure, f"{target.name}: true and predicted", f"{note}; below each the share of right pixels")
    return figure


def class_colors(count: int) -> Tensor:
    """A colour for each class, (K, 3) in [0, 1]: the first, mostly the background, is light."""
    from matplotlib import colormaps

    first = [(0.91, 0.92, 0.94)]
    named = [tuple(each) for name in ("tab10", "Set2", "Dark2") for each in colormaps[name].colors]  # type: ignore[attr-defined]
    more = [hsv_to_rgb((index * 0.618) % 1, 0.4 + (index * 0.37) % 0.6, 0.9) for index in range(count)]
    return torch.tensor([*first, *named, *more])[:count]


def _grid(count: int, words: Sequence[str], shape: Sequence[int], below: float) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a named line of `count` empty places for each of the words, over `below` inches."""
    width = CELL if count > MOST_MAPS else CELL * 1.3
    height = min(max(width * shape[0] / shape[1], 0.3), 3 * width)
    figure = new_figure(LEFT + count * (width + GAP) + 0.15, below + len(words) * (height + GAP) + 0.7)
    axes = [
        [place(figure, LEFT + column * (width + GAP), below + row * (height + GAP), width, height)
         for column in range(count)]
        for row in reversed(range(len(words)))
    ]  # fmt: skip
    for line, word in zip(axes, words, strict=True):
        line[0].set_ylabel(word, rotation=0, ha="right", va="center", fontsize=10, color=INK)
    for each in (each for line in axes for each in line):
        each.set(xticks=[], yticks=[])
        each.spines[:].set_visible(False)
    return figure, axes


def _range(images: Tensor) -> tuple[float, float]:
    """What is black and what is white: 0 and 1 where all lies between them."""
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1


def _show(axes: Axes, image: Tensor) -> None:
    shown = image.clamp(0, 1)
    if len(shown) == 3:
        axes.imshow(shown.movedim(0, -1).numpy(), interpolation="nearest")
    else:
        axes.imshow(shown[0].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _add_legend(figure: Figure, names: Sequence[str], colors: Tensor, columns: int) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=color, label=name) for name, color in zip(names, colors.tolist(), strict=True)]
    if len(names) > MOST_IN_LEGEND:
        patches[MOST_IN_LEGEND - 1 :] = [Patch(color="none", label=f"and {len(names) - MOST_IN_LEGEND + 1} more")]
    across, up = figure.get_size_inches()
    figure.legend(handles=patches, loc="lower left", bbox_to_anchor=(LEFT / across, 0.08 / up), ncols=columns,
                  fontsize=8, frameon=False, labelcolor=INK, borderpad=0, handlelength=1.2)  # fmt: skip


def _legend_columns(names: Sequence[str], images: int) -> int:
    """So many names fit side by side below so many images."""
    width = images * (CELL * 1.3 + GAP)
    return max(1, min(len(names), int(width / (0.55 + 0.08 * max(len(each) for each in names)))))
