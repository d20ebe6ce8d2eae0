"""Predicted masks and images as PNG files: a mask has a palette, and the number of a class as the value of a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.dataset import Target
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.prepare.kinds.mask_target import FittedMask
from dlspec.errors import UserError
from dlspec.plots.class_colors import list_class_colors

MAX_PALETTE = 256  # colours of a PNG with a palette; masks of more classes have 16 bits
IMAGE_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class ImageTarget:
    """A predicted target that is written as images."""

    name: str
    classes: tuple[str, ...]  # of a mask; () for an image
    colors: tuple[tuple[int, int, int], ...]  # of each class, from 0 to 255

    def write(self, values: NDArray[Any], file: Path) -> None:
        """Write one prediction.

        Args:
            values: the class of each pixel (H, W), or an image (C, H, W) from 0 to 1
            file: the PNG file
        """
        self._make_image(np.asarray(values)).save(file)

    def _make_image(self, values: NDArray[Any]) -> Any:
        from PIL import Image

        if not self.classes:
            pixels = (np.nan_to_num(values.astype(np.float64)).clip(0, 1) * 255).round().astype(np.uint8)
            return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        if len(self.classes) > MAX_PALETTE:
            return Image.fromarray(values.astype(np.uint16))
        image = Image.fromarray(values.astype(np.uint8), mode="P")
        image.putpalette([part for color in self.colors for part in color])
        return image


def list_image_targets(targets: Sequence[Target], fitted: FittedTable | None) -> list[ImageTarget]:
    """List the predicted targets that are masks or images.

    Args:
        targets: the predicted targets, with the shape of a sample
        fitted: how the run's rows were encoded, for the colours of masks

    Raises:
        UserError: if none of them is.
    """
    found = [_make_image_target(each, fitted) for each in targets if is_mask(each) or _is_image(each)]
    if not found:
        names = ", ".join(each.name for each in targets) or "no target"
        raise UserError(f"the run predicts {names}, which is not an image; write output=predictions.csv")
    return found


def is_mask(target: Target) -> bool:
    """Whether a target has a class for each pixel."""
    return target.kind == "classes" and len(target.shape) == 2 and not target.labels


def _is_image(target: Target) -> bool:
    return target.kind == "numbers" and len(target.shape) == 3 and target.shape[0] in IMAGE_CHANNELS


def _make_image_target(target: Target, fitted: FittedTable | None) -> ImageTarget:
    if not is_mask(target):
        return ImageTarget(target.name, (), ())
    column = None if fitted is None else fitted.targets.get(target.name)
    colors = [tuple(round(255 * part) for part in color) for color in list_class_colors(len(target.classes))]
    if isinstance(column, FittedMask) and column.pixels.is_colour:
        for code, index in reversed(list(zip(column.pixels.codes, column.pixels.classes, strict=True))):
            if index >= 0:
                colors[index] = (code >> 16, code >> 8 & 255, code & 255)
    return ImageTarget(target.name, target.classes, tuple((r, g, b) for r, g, b in colors))
