"""A picture of a training batch: images as the network gets them, with their targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dlspec.data.dataset import Dataset, Target
from dlspec.data.prepare.kinds.kind import IGNORED
from dlspec.formatting import format_digits
from dlspec.plots.canvas import FAINT_TEXT_COLOR, Page, TextStyle, measure_text_width
from dlspec.plots.image_plots import (
    IGNORED_COLOR,
    draw_legend,
    draw_masks_over,
    is_image_shape,
    make_class_colors,
    to_colors,
)

MAX_SHOWN_SAMPLES = 32
COLUMNS = 8
CELL = 1.2  # width of an image in inches
GAP, MARGIN, TITLE = 0.1, 0.15, 0.7  # in inches
CAPTION_LINE = 0.16  # in inches
LEGEND_LINES = 3
TensorsByName = Mapping[str, Tensor]


@dataclass(frozen=True)
class _Cells:
    """What is drawn for each sample: rows of images with their heights in inches, and lines of text below them."""

    rows: list[Tensor] = field(default_factory=list)  # each (N, H, W, 3)
    captions: list[list[str]] = field(default_factory=list)  # each with one text a sample

    @property
    def height(self) -> float:
        """Height of all images and texts of a sample."""
        return sum(_get_height(each) + GAP / 2 for each in self.rows) + CAPTION_LINE * len(self.captions)


def draw_batch(dataset: Dataset, inputs: TensorsByName, targets: TensorsByName, note: str) -> Page:
    """Draw the first samples of a batch: their images, masks over them, and other targets as text.

    Args:
        dataset: the data, for the names of classes.
        inputs: the fields of images by name, (N, C, H, W).
        targets: the targets by name; classes (N,), or probabilities (N, K) of classes that were mixed.
        note: subtitle.
    """
    known = {each.name: each for each in dataset.targets if each.name in targets}
    shown = {name: each[:MAX_SHOWN_SAMPLES] for name, each in [*inputs.items(), *targets.items()]}
    maps = [each for each in known.values() if len(each.shape) == 2 and each.kind == "classes"]
    cells = _Cells()
    for name in inputs:
        over = [each for each in maps if each.shape == shown[name].shape[-2:]][:1] if not cells.rows else []
        cells.rows.append(_draw_masks(_make_colors(shown[name]), over, shown))
    for target in known.values():
        if target.kind == "numbers" and is_image_shape(target.shape):
            cells.rows.append(_make_colors(shown[target.name]))
        elif target not in maps:
            cells.captions.append(_list_captions(target, shown[target.name]))
    page = _lay_out(cells, dataset, [*inputs, *known], note, has_legend=bool(maps))
    if maps:
        _draw_mask_legend(page, maps[0], shown[maps[0].name])
    return page


def _lay_out(cells: _Cells, dataset: Dataset, names: Sequence[str], note: str, *, has_legend: bool) -> Page:
    """Draw the samples from left to right and from top to bottom."""
    count = len(cells.rows[0])
    columns = min(count, COLUMNS)
    below = 0.2 * LEGEND_LINES + 0.2 if has_legend else MARGIN
    width = max(2 * MARGIN + columns * (CELL + GAP), 2 * MARGIN + measure_text_width(note))
    page = Page(width, below + -(-count // columns) * (cells.height + GAP) + TITLE)
    for sample in range(count):
        left = MARGIN + sample % columns * (CELL + GAP)
        top = page.height - TITLE - sample // columns * (cells.height + GAP)
        for row in cells.rows:
            height = _get_height(row)
            page.draw_image(row[sample].numpy(), left, top - height, CELL, height)
            top -= height + GAP / 2
        for line, texts in enumerate(cells.captions):
            style = TextStyle(8, FAINT_TEXT_COLOR, horizontal="center", vertical="top")
            page.draw_text((left + CELL / 2, top - line * CAPTION_LINE), _cut(texts[sample]), style)
    page.draw_title(f"a training batch of {dataset.name}: {', '.join(names)}", note)
    return page


def _get_height(images: Tensor) -> float:
    """Get the height of a row of images (N, H, W, 3) in inches."""
    return min(max(CELL * images.shape[1] / images.shape[2], 0.2), 3 * CELL)


def _make_colors(images: Tensor) -> Tensor:
    """Convert images (N, C, H, W) to colors; of more channels than three only the first ones are shown."""
    images = images.detach().cpu().float()
    visible = images if is_image_shape(images.shape[1:]) else images[:, :3] if images.shape[1] > 3 else images[:, :1]
    low, high = float(visible.min()), float(visible.max())
    return to_colors(visible, *((0.0, 1.0) if low >= 0 and high <= 1 else (low, high if high > low else low + 1)))


def _draw_masks(colors: Tensor, over: Sequence[Target], shown: TensorsByName) -> Tensor:
    """Blend masks into images (N, H, W, 3); the first class, often the background, leaves the image as it is."""
    for target in over:
        colors = draw_masks_over(colors, shown[target.name].cpu(), len(target.classes))
    return colors


def _draw_mask_legend(page: Page, target: Target, mask: Tensor) -> None:
    """Draw the classes that occur below the images."""
    occurring = sorted(set(mask.flatten().tolist()) - {IGNORED})
    colors = make_class_colors(len(target.classes))[occurring]
    names = [target.classes[each] for each in occurring]
    if (mask == IGNORED).any():
        names, colors = [*names, "ignored"], torch.cat([colors, torch.tensor([IGNORED_COLOR])])
    draw_legend(page, names, colors, LEGEND_LINES, MARGIN)


def _list_captions(target: Target, values: Tensor) -> list[str]:
    """Describe a target of each sample: its class, the shares of two mixed classes, labels, or a number."""
    values = values.detach().cpu()
    if target.kind == "classes" and values.is_floating_point():
        return [_describe_shares(target.classes, each) for each in values]
    if target.kind == "classes" and values.dim() == 1:
        return ["" if each == IGNORED else target.classes[each] for each in values.tolist()]
    if target.labels:
        return [_describe_shares(target.labels, each) for each in values.float()]
    if target.kind == "numbers" and values.dim() == 1:
        scale = target.scale
        return [format_digits(each) for each in (values if scale is None else scale.invert(values)).tolist()]
    return [f"{target.name} {list(target.shape)}"] * len(values)


def _describe_shares(names: Sequence[str], shares: Tensor) -> str:
    """Describe one sample's classes or labels, with their shares where they are mixed."""
    present = [(share, names[index]) for index, share in enumerate(shares.tolist()) if share > 0]
    return ", ".join(name if share == 1 else f"{name} {share:.0%}" for share, name in sorted(present, reverse=True))


def _cut(text: str) -> str:
    """Cut a text so that it fits below an image."""
    while measure_text_width(text, 8) > CELL:
        text = text[: max(len(text) - 4, 0)] + "..."
        if len(text) <= 4:
            break
    return text
