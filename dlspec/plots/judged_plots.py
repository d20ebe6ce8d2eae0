"""A grid of images with their predicted classes: the worst errors first, then samples that were right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.plots.canvas import BLUE, FAINT_TEXT_COLOR, ORANGE, Page, TextStyle, measure_text_width, rectangle_corners
from dlspec.plots.image_plots import is_image_shape, to_colors

MAX_JUDGED_IMAGES = 24
COLUMNS = 8
CELL, GAP, MARGIN, TITLE, TEXT = 1.2, 0.14, 0.2, 0.7, 0.36  # in inches
FRAME = 0.03  # around an image, in inches


@dataclass(frozen=True)
class JudgedImages:
    """Images with their true and predicted classes: the worst errors first, then samples that were right."""

    images: Tensor  # (n, C, H, W)
    predicted: Tensor  # (n,), classes
    truth: Tensor  # (n,), classes
    probability: Tensor  # (n,), of the predicted class
    errors: int  # the first of the images
    all_errors: int  # of all samples that were looked at
    samples: int  # that were looked at


def draw_judged_images(target: Target, judged: JudgedImages, note: str) -> Page:
    """Draw images with the predicted class and its probability, and the true class below it where it is another.

    Args:
        target: the target; its class names are below the images.
        judged: the images.
        note: subtitle.
    """
    colors = make_image_colors(judged.images)
    height = min(max(CELL * colors.shape[1] / colors.shape[2], 0.3), 2 * CELL)
    columns = min(len(colors), COLUMNS)
    width = max(2 * MARGIN + columns * (CELL + GAP), 2 * MARGIN + measure_text_width(note, 9))
    page = Page(width, MARGIN + -(-len(colors) // COLUMNS) * (height + TEXT + GAP) + TITLE)
    for index, image in enumerate(colors):
        left = MARGIN + index % COLUMNS * (CELL + GAP)
        bottom = page.height - TITLE - index // COLUMNS * (height + TEXT + GAP) - height
        _draw_frame(page, left, bottom, height, is_right=bool(judged.predicted[index] == judged.truth[index]))
        page.draw_image(image.numpy(), left, bottom, CELL, height)
        _draw_captions(page, target, judged, index, (left, bottom))
    page.draw_title(f"{target.name}: predictions, the worst errors first", note)
    return page


def make_image_colors(images: Tensor) -> Tensor:
    """Convert images (N, C, H, W) to colors (N, H, W, 3); of more than three channels the first ones are shown."""
    images = images.detach().cpu().float()
    visible = images if is_image_shape(images.shape[1:]) else images[:, :3] if images.shape[1] > 3 else images[:, :1]
    low, high = float(visible.min()), float(visible.max())
    return to_colors(visible, *((0.0, 1.0) if low >= 0 and high <= 1 else (low, high if high > low else low + 1)))


def _draw_frame(page: Page, left: float, bottom: float, height: float, *, is_right: bool) -> None:
    """Draw a frame around an image: blue for a right prediction, orange for a error."""
    corners = rectangle_corners(left - FRAME, bottom - FRAME, CELL + 2 * FRAME, height + 2 * FRAME)
    page.draw_area(corners, BLUE if is_right else ORANGE)


def _draw_captions(page: Page, target: Target, judged: JudgedImages, index: int, corner: tuple[float, float]) -> None:
    predicted, truth = int(judged.predicted[index]), int(judged.truth[index])
    share = f" {float(judged.probability[index]):.0%}"
    texts = [(_cut(target.classes[predicted], share) + share, ORANGE if predicted != truth else FAINT_TEXT_COLOR)]
    if predicted != truth:
        texts.append((_cut(f"is {target.classes[truth]}", ""), FAINT_TEXT_COLOR))
    left, bottom = corner
    for line, (text, color) in enumerate(texts):
        style = TextStyle(8, color, horizontal="center", vertical="top")
        page.draw_text((left + CELL / 2, bottom - 0.07 - 0.15 * line), text, style)


def _cut(text: str, after: str) -> str:
    """Cut a text so that it fits below an image, together with what follows it."""
    if measure_text_width(text + after, 8) <= CELL:
        return text
    while text and measure_text_width(f"{text}...{after}", 8) > CELL:
        text = text[:-1]
    return f"{text}..."


def order_worst_maps(predicted: Tensor, truth: Tensor, count: int) -> Tensor:
    """Choose maps to show: the worst in the first half, then others at equal distances.

    Args:
        predicted: predicted classes (N, H, W).
        truth: true classes (N, H, W); negative for pixels without a class.
        count: how many are chosen.

    Returns:
        Their indices, (count,) or fewer.
    """
    is_known = truth >= 0
    right = ((predicted == truth) & is_known).flatten(1).sum(1) / is_known.flatten(1).sum(1).clamp(min=1)
    order = right.argsort(stable=True)
    worst, others = order[: -(-count // 2)], order[-(-count // 2) :].sort().values
    if len(others) > count - len(worst):
        others = others[torch.linspace(0, len(others) - 1, count - len(worst)).long()]
    return torch.cat([worst, others])
