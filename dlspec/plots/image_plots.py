"""Plots of targets that are images, or maps of a class per pixel: true images above predicted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.data.prepare.kinds.kind import IGNORED
from dlspec.plots.canvas import FAINT_TEXT_COLOR, WHITE, Page, TextStyle, measure_text_width, rectangle_corners
from dlspec.plots.class_colors import list_class_colors

MAX_IMAGES, MAX_MAPS = 10, 6
CELL_SIZE = 1.15  # width of a small image in inches
GAP, LEFT_MARGIN, BOTTOM_MARGIN = 0.08, 1.25, 0.25  # in inches
MAX_LEGEND_ENTRIES = 21
MASK_OPACITY = 0.5
MAP_OPACITY = 0.65  # of maps to compare: their colours must agree with the legend
IGNORED_COLOR = (0.85, 0.1, 0.75)  # of pixels without a class


def is_image_shape(shape: Sequence[int]) -> bool:
    """Return whether a shape is (C, H, W) with one channel (gray) or three (RGB)."""
    return len(shape) == 3 and shape[0] in (1, 3)


def draw_images(target: Target, predicted: Tensor, truth: Tensor, note: str, *, is_input: bool) -> Page:
    """Draw true images above predicted ones, with the mean squared error below each pair.

    Args:
        target: the target, named in the title.
        predicted: predicted images (N, C, H, W).
        truth: true images (N, C, H, W).
        note: subtitle, for example which split and how many samples are shown.
        is_input: whether the target is also an input, so that predictions are called reconstructions.
    """
    errors = (predicted - truth).square().flatten(1).mean(1).tolist()
    row_names = ("original", "reconstruction") if is_input else ("true", "predicted")
    low, high = _value_range(truth)
    rows = {row_name: to_colors(each, low, high) for row_name, each in zip(row_names, (truth, predicted), strict=True)}
    page = _draw_image_grid(rows, [f"{error:#.2g}" for error in errors], BOTTOM_MARGIN)
    page.draw_title(f"{target.name}: {row_names[0]} and {row_names[1]}", f"{note}; mean squared error below each image")
    return page


def draw_class_maps(target: Target, predicted: Tensor, truth: Tensor, images: Tensor | None, note: str) -> Page:
    """Draw true maps of classes above predicted ones, with a legend and the accuracy below each pair.

    Args:
        target: the target; its class names are in the legend.
        predicted: predicted classes (N, H, W).
        truth: true classes (N, H, W); pixels of class -100 are white, and count in no accuracy.
        images: input images (N, C, H, W) to draw above the maps, if any.
        note: subtitle, for example which split and how many samples are shown.
    """
    is_known = truth != IGNORED
    occurring = torch.cat([predicted.flatten(), truth[is_known]]).bincount().nonzero()[:, 0].tolist()
    names, colors = [target.classes[each] for each in occurring], make_class_colors(len(target.classes))
    shown = colors[occurring]
    if not is_known.all():
        names, shown = [*names, "ignored"], torch.cat([shown, torch.tensor([IGNORED_COLOR])])
    columns = _count_legend_columns(names, len(truth))
    lines = -(-min(len(names), MAX_LEGEND_ENTRIES) // columns)
    rows = _draw_maps(predicted, truth, images, len(target.classes))
    right = ((predicted == truth) & is_known).flatten(1).sum(1) / is_known.flatten(1).sum(1).clamp(min=1)
    page = _draw_image_grid(rows, [f"{each:.1%}" for each in right.tolist()], BOTTOM_MARGIN + 0.2 * lines + 0.2)
    draw_legend(page, names, shown, lines)
    page.draw_title(f"{target.name}: true and predicted", f"{note}; fraction of correct pixels below each map")
    return page


def _draw_maps(predicted: Tensor, truth: Tensor, images: Tensor | None, classes: int) -> dict[str, Tensor]:
    """Draw maps as rows of colors (N, H, W, 3): over their images, if there are any."""
    if images is None:
        blank = torch.ones(*truth.shape, 3)
        maps = {"true": truth, "predicted": predicted}
        return {name: draw_masks_over(blank, each, classes, opacity=1, shows_first=True) for name, each in maps.items()}
    colors = torch.cat([to_colors(each[None], *_value_range(each)) for each in images])
    maps = {"true": truth, "predicted": predicted}
    drawn = {name: draw_masks_over(colors, each, classes, opacity=MAP_OPACITY) for name, each in maps.items()}
    return {"image": colors, **drawn}


def draw_masks_over(
    colors: Tensor, masks: Tensor, classes: int, *, opacity: float = MASK_OPACITY, shows_first: bool = False
) -> Tensor:
    """Blend masks into images.

    Args:
        colors: the images (N, H, W, 3) from 0 to 1.
        masks: the class of each pixel (N, H, W), int64; -100 for none.
        classes: the number of classes.
        opacity: of the masks, from 0 to 1.
        shows_first: whether the first class is drawn; it is often the background.

    Returns:
        The colors, (N, H, W, 3).
    """
    palette = make_class_colors(classes)[masks.clamp(min=0)]
    palette = torch.where((masks == IGNORED)[..., None], torch.tensor(IGNORED_COLOR), palette)
    return torch.where(((masks != 0) | shows_first)[..., None], torch.lerp(colors, palette, opacity), colors)


def make_class_colors(count: int) -> Tensor:
    """Return the color of each class as a tensor (count, 3), from 0 to 1."""
    return torch.tensor(list_class_colors(count))


def _draw_image_grid(rows: Mapping[str, Tensor], captions: Sequence[str], below: float) -> Page:
    """Make a page with named rows of images (N, H, W, 3), captions under the columns, and `below` inches of space."""
    count, num_rows, num_columns, _ = next(iter(rows.values())).shape
    width = CELL_SIZE if count > MAX_MAPS else CELL_SIZE * 1.3
    height = min(max(width * num_rows / num_columns, 0.3), 3 * width)
    page = Page(LEFT_MARGIN + count * (width + GAP) + 0.15, below + len(rows) * (height + GAP) + 0.7)
    for index, (row_name, images) in enumerate(reversed(list(rows.items()))):
        bottom = below + index * (height + GAP)
        page.draw_text(
            (LEFT_MARGIN - 0.06, bottom + height / 2), row_name, TextStyle(10, horizontal="right", vertical="center")
        )
        for column, image in enumerate(images):
            page.draw_image(image.numpy(), LEFT_MARGIN + column * (width + GAP), bottom, width, height)
    for column, caption in enumerate(captions):
        middle = LEFT_MARGIN + column * (width + GAP) + width / 2
        page.draw_text(
            (middle, below - 0.06), caption, TextStyle(8, FAINT_TEXT_COLOR, horizontal="center", vertical="top")
        )
    return page


def _value_range(images: Tensor) -> tuple[float, float]:
    """Choose the values drawn in black and white: 0 and 1 if all values lie between them, else minimum and maximum."""
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1


def to_colors(images: Tensor, low: float, high: float) -> Tensor:
    """Convert gray or RGB images to colors.

    Args:
        images: the images, (N, 1, H, W) or (N, 3, H, W).
        low: the number that is black.
        high: the number that is white.

    Returns:
        The colors, (N, H, W, 3) from 0 to 1.
    """
    return ((images - low) / (high - low)).clamp(0, 1).expand(-1, 3, -1, -1).movedim(1, -1).float()


def draw_legend(page: Page, names: Sequence[str], colors: Tensor, lines: int, left: float = LEFT_MARGIN) -> None:
    """Draw a legend at the page's lower left, in columns of at most `lines` lines.

    Args:
        page: the page.
        names: the names of the classes.
        colors: their colors, (N, 3) from 0 to 1.
        lines: most lines in a column.
        left: distance from the page's left side in inches.
    """
    hex_colors = ["#" + "".join(f"{round(255 * part):02x}" for part in color) for color in colors.tolist()]
    entries = list(zip(names, hex_colors, strict=True))
    if len(names) > MAX_LEGEND_ENTRIES:
        entries[MAX_LEGEND_ENTRIES - 1 :] = [(f"and {len(names) - MAX_LEGEND_ENTRIES + 1} more", WHITE)]
    label_offset = 0.24
    for start in range(0, len(entries), lines):
        column = entries[start : start + lines]
        for line, (name, hex_color) in enumerate(column):
            bottom = 0.1 + 0.2 * (lines - 1 - line)
            page.draw_area(rectangle_corners(left, bottom, 0.14, 0.09), hex_color)
            page.draw_text((left + label_offset - 0.03, bottom), name, TextStyle(8))
        left += label_offset + max(measure_text_width(name, 8) for name, _ in column) + 0.2


def _count_legend_columns(names: Sequence[str], images: int) -> int:
    """Count how many legend columns fit below a number of images."""
    width = images * (CELL_SIZE * 1.3 + GAP)
    return max(1, min(len(names), int(width / (0.55 + 0.08 * max(len(each) for each in names)))))
