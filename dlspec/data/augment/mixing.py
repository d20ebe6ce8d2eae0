"""MixUp and CutMix: each sample of a batch is mixed with another one, and so are their targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Box = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class Mixture:
    """How the samples of one batch are mixed. Sample i is mixed with sample `partners[i]`."""

    partners: Tensor  # (N,), on the CPU
    share: float  # of sample i itself; that of its partner is 1 - share
    # The part of an image that comes from its partner, as shares of height and width: (top, left, bottom, right).
    # None: both images are averaged.
    box: tuple[float, float, float, float] | None = None

    def mix_images(self, images: Tensor) -> Tensor:
        """Mix images or maps (N, ..., H, W) with those of their partners."""
        other = images.index_select(0, self.partners.to(images.device))
        if self.box is None:
            return self.average(images, other)
        top, left, height, width = find_pixels(self.box, images.shape[-2], images.shape[-1])
        inside = torch.zeros(images.shape[-2:], dtype=torch.bool, device=images.device)
        inside[top : top + height, left : left + width] = True
        return torch.where(inside, other, images)

    def mix_values(self, values: Tensor) -> Tensor:
        """Average values (N, ...) of each sample with those of its partner, by their shares."""
        return self.average(values, values.index_select(0, self.partners.to(values.device)))

    def average(self, values: Tensor, other: Tensor) -> Tensor:
        """Average values by the shares of a sample and its partner."""
        return values * self.share + other * (1 - self.share)


def find_pixels(box: tuple[float, float, float, float], height: int, width: int) -> Box:
    """Find the pixels of a box.

    Args:
        box: top, left, bottom and right, as shares of height and width.
        height: number of rows.
        width: number of columns.

    Returns:
        The first row, the first column, the number of rows and of columns.
    """
    top, left, bottom, right = (round(each * size) for each, size in zip(box, (height, width) * 2, strict=True))
    return top, left, bottom - top, right - left


class Mixing(ABC):
    """An augmentation that mixes each sample with another one of its batch.

    Args:
        alpha: the share of a sample is drawn from Beta(alpha, alpha), once for each batch.
        p: probability that a batch is mixed.
    """

    def __init__(self, alpha: float, p: float) -> None:
        self.alpha, self.p = alpha, p

    def draw(self, samples: int, height: int, width: int, generator: np.random.Generator) -> Mixture | None:
        """Draw how a batch is mixed; None if it is not.

        Args:
            samples: number of samples in the batch.
            height: number of rows of its images.
            width: number of columns.
            generator: where the random numbers come from.
        """
        is_mixed = bool(generator.random() < self.p)
        partners = torch.from_numpy(generator.permutation(samples))
        share = float(generator.beta(self.alpha, self.alpha))
        return self._make_mixture(partners, share, (height, width), generator) if is_mixed else None

    @abstractmethod
    def _make_mixture(
        self, partners: Tensor, share: float, size: tuple[int, int], generator: np.random.Generator
    ) -> Mixture: ...


class MixUp(Mixing):
    """Average each image and its target with those of another sample (Zhang et al., 2018).

    Args:
        alpha: the share of a sample is drawn from Beta(alpha, alpha), once for each batch: small values keep most
            images almost as they are.
        p: probability that a batch is mixed.
    """

    def __init__(self, alpha: float = 0.2, p: float = 1.0) -> None:
        super().__init__(alpha, p)

    def _make_mixture(
        self, partners: Tensor, share: float, size: tuple[int, int], generator: np.random.Generator
    ) -> Mixture:
        return Mixture(partners, share)


class CutMix(Mixing):
    """Replace a box of each image by that of another sample; targets count by their areas (Yun et al., 2019).

    Args:
        alpha: the share of the area that stays is drawn from Beta(alpha, alpha), once for each batch.
        p: probability that a batch is mixed.
    """

    def __init__(self, alpha: float = 1.0, p: float = 1.0) -> None:
        super().__init__(alpha, p)

    def _make_mixture(
        self, partners: Tensor, share: float, size: tuple[int, int], generator: np.random.Generator
    ) -> Mixture:
        edge = (1 - share) ** 0.5  # of the box, as a share of the image's height and width
        sides = [_draw_side(edge, each, generator) for each in size]
        box = (sides[0][0], sides[1][0], sides[0][1], sides[1][1])
        _, _, rows, columns = find_pixels(box, *size)
        return Mixture(partners, 1 - rows * columns / (size[0] * size[1]), box)


def _draw_side(edge: float, pixels: int, generator: np.random.Generator) -> tuple[float, float]:
    """Draw where the box starts and ends in one dimension, at borders of pixels; it is cut at the image's border."""
    middle, half = int(generator.integers(pixels)), round(edge * pixels) // 2
    return max(middle - half, 0) / pixels, min(middle + half, pixels) / pixels
