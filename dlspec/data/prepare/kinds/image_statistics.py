"""Mean and deviation of each channel over images, for `scale: standard`."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dlspec.data.images.image_array import ImageArray
from dlspec.data.images.image_cells import map_in_threads
from dlspec.data.images.kept_statistics import Channels, keep_statistics, name_statistics, read_statistics
from dlspec.errors import DataError


def find_channel_statistics(images: ImageArray) -> Channels:
    """Return the mean and the deviation of each channel, which are measured unless an earlier run has kept them."""
    name = name_statistics(images.recipe, images.content_keys)
    kept = read_statistics(name, images.shape[1])
    if kept is not None:
        return kept
    measured = measure_channels(images)
    keep_statistics(name, measured)
    return measured


def measure_channels(images: ImageArray) -> Channels:
    """Measure the mean and the deviation of each channel over all pixels, in [0, 1].

    Images that can't be read do not count. Bytes are counted as integers, so that the result has no rounding errors and
    does not depend on the order.
    """
    unit = 255.0 if images.form.dtype == torch.uint8 else 1.0
    channels = images.shape[1]
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for found in map_in_threads(lambda row: _sum_pixels(images, row), range(len(images))):
        total, squares, count = total + found[0], squares + found[1], count + found[2]
    mean = total / max(count, 1)
    deviation = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0.0))
    deviation[deviation == 0] = unit  # where all pixels are equal
    return tuple((mean / unit).tolist()), tuple((deviation / unit).tolist())


def _sum_pixels(images: ImageArray, row: int) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Return the sum of an image's pixels and of their squares for each channel, and their number."""
    try:
        pixels = images.read_row(row)
    except DataError:
        nothing = np.zeros(images.shape[1])
        return nothing, nothing, 0
    exact = pixels.long() if pixels.dtype == torch.uint8 else pixels.double()
    sums = exact.sum((1, 2)), (exact * exact).sum((1, 2))
    return sums[0].double().numpy(), sums[1].double().numpy(), pixels[0].numel()
