"""Resize pixels to one size: cover, fit or stretch. Masks are resized by nearest neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Resize = Literal["cover", "fit", "stretch"]
RESIZES: tuple[Resize, ...] = ("cover", "fit", "stretch")
Size = tuple[int, int]  # height, width


def resize_image(pixels: NDArray[Any], size: Size, resize: Resize) -> Tensor:
    """Resize an image with antialiasing.

    Args:
        pixels: uint8, or float32 in [0, 1] (C, h, w)
        size: the new height and width
        resize: `cover` takes the largest part in the center that has the new shape, `fit` keeps the whole image with
            black borders, `stretch` changes its shape

    Returns:
        The image (C, H, W), of the same dtype.
    """
    import torch
    from torch.nn.functional import interpolate

    source, target = _plan(pixels.shape[1:], size, resize)
    part = torch.from_numpy(np.require(pixels[:, source[0], source[1]], requirements=("C", "W")))
    inner = (target[0].stop - target[0].start, target[1].stop - target[1].start)
    if part.shape[1:] != inner:
        part = interpolate(part[None], inner, mode="bilinear", antialias=True)[0]
    if inner == size:
        return part
    whole = torch.zeros(len(part), *size, dtype=part.dtype)
    whole[:, target[0], target[1]] = part
    return whole


def resize_mask(classes: NDArray[Any], size: Size, resize: Resize, border: int) -> Tensor:
    """Resize a mask to the pixels that `resize_image` takes: each is the class of the nearest pixel.

    Args:
        classes: integers (h, w)
        size: the new height and width
        resize: as for its image
        border: the class of what `fit` adds

    Returns:
        The mask (H, W), of the same dtype.
    """
    import torch

    source, target = _plan(classes.shape, size, resize)
    inner = (target[0].stop - target[0].start, target[1].stop - target[1].start)
    rows, columns = (_find_nearest(part, count) for part, count in zip(source, inner, strict=True))
    nearest = classes[rows[:, None], columns[None]]
    if inner == size:
        return torch.from_numpy(np.ascontiguousarray(nearest))
    whole = np.full(size, border, classes.dtype)
    whole[target[0], target[1]] = nearest
    return torch.from_numpy(whole)


def _find_nearest(part: slice, count: int) -> NDArray[np.int64]:
    """Return for each of `count` new pixels the old one in its center."""
    found: NDArray[np.int64] = part.start + (2 * np.arange(count) + 1) * (part.stop - part.start) // (2 * count)
    return found


def _plan(old: tuple[int, ...], new: Size, resize: Resize) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return which part of the old image is resized, and which part of the new one it becomes.

    No step makes an image larger than both, so that a picture of 1 x 100,000,000 pixels is harmless.
    """
    height, width = old
    if resize == "cover":
        scale = min(height / new[0], width / new[1])
        kept = (_clip(new[0] * scale, height), _clip(new[1] * scale, width))
        return (_center(kept[0], height), _center(kept[1], width)), (slice(0, new[0]), slice(0, new[1]))
    inner = new
    if resize == "fit":
        scale = min(new[0] / height, new[1] / width)
        inner = (_clip(height * scale, new[0]), _clip(width * scale, new[1]))
    return (slice(0, height), slice(0, width)), (_center(inner[0], new[0]), _center(inner[1], new[1]))


def _clip(size: float, largest: int) -> int:
    return min(max(round(size), 1), largest)


def _center(size: int, whole: int) -> slice:
    start = (whole - size) // 2
    return slice(start, start + size)


def crop_center(values: Tensor, size: Size) -> Tensor:
    """Cut the center of this size out of images (N, C, H, W) or masks (N, H, W)."""
    height, width = values.shape[-2:]
    if (height, width) == size:
        return values
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return values[..., top : top + size[0], left : left + size[1]]
