"""Small pictures of single samples, as data URIs: images, and maps of a class for each pixel."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_SIDE = 96  # pixels of a picture
MIN_SIDE = 32  # smaller pictures are enlarged


def is_picture(shape: Sequence[int]) -> bool:
    """Whether values of this shape can be shown as a picture: (C, H, W) with one or three channels."""
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 1


def make_picture(values: Tensor) -> str:
    """Make a small PNG of an image (C, H, W) as a data URI; its smallest value is black, its largest white."""
    from PIL import Image

    low, high = float(values.min()), float(values.max())
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    pixels = ((values.double() - low) / max(high - low, 1e-12) * 255).round().clamp(0, 255).to(torch.uint8)
    array: NDArray[np.uint8] = pixels.movedim(0, -1).contiguous().numpy()
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    return _encode(_resize(image, Image.Resampling.BICUBIC))


def make_class_picture(classes: NDArray[Any], count: int) -> str:
    """Make a small PNG of a map of classes (H, W) as a data URI, in the colors of training's pictures.

    Args:
        classes: the class of each pixel; a pixel without one, below 0, looks like the first class
        count: the number of classes
    """
    from PIL import Image

    from dlspec.plots.image_plots import make_class_colors

    colors: NDArray[np.uint8] = (make_class_colors(count) * 255).round().to(torch.uint8).numpy()
    image = Image.fromarray(colors[np.maximum(classes, 0)])
    return _encode(_resize(image, Image.Resampling.NEAREST))


def _resize(image: Any, resampling: Any) -> Any:
    """Shrink a large image with this resampling; enlarge a small one pixel by pixel."""
    from PIL import Image

    longest = max(image.size)
    if longest > MAX_SIDE:
        image.thumbnail((MAX_SIDE, MAX_SIDE), resampling)
    elif longest < MIN_SIDE:
        factor = -(-MIN_SIDE // longest)
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return image


def _encode(image: Any) -> str:
    file = io.BytesIO()
    image.save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
