"""Change the images of one field at random, and the masks and target images that belong to them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlspec.data.prepare.kinds.kind import IGNORED

IGNORED_BYTE = 255  # `IGNORED` in masks of bytes


class FieldAugmentation:
    """Augmentations of one field in the order in which they are applied.

    Each sample gets its own random numbers. They are drawn on the CPU, so that a run on a GPU draws the same ones, and
    PyTorch's generator is as before afterwards, so that dropout does not depend on the augmentation.

    Args:
        name: the field's name.
        modules: kornia's augmentations.
    """

    def __init__(self, name: str, modules: Sequence[Any]) -> None:
        self.name = name
        self._images = _make_sequence(modules, "nearest")
        self._pictures = _make_sequence(modules, "bilinear")  # the same modules: only targets are resampled otherwise
        self._device = torch.device("cpu")

    def augment(
        self, images: Tensor, masks: Sequence[Tensor], pictures: Sequence[Tensor], seed: int
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Augment a batch. Masks and pictures move with the images, but their colors stay.

        Args:
            images: (N, C, H, W), uint8 or floats.
            masks: classes (N, H, W): bytes with 255 for ignored pixels, or int64 with -100 for them. Pixels from
                outside of the image become -100, which losses ignore.
            pictures: numbers for each pixel (N, C, H, W). Pixels from outside of the image become 0.
            seed: of the random numbers, as `make_draw_seed` returns it.

        Returns:
            The images in float, the masks in int64 and the pictures.
        """
        images = to_unit_floats(images)
        self._move_to(images.device)
        given = to_computed_type(images)
        shifted = [_shift_classes(each).unsqueeze(1) for each in masks]
        with seed_draws(seed), torch.no_grad():
            params = self._images.forward_parameters(given.shape)
            changed = self._apply(self._images, [given, *shifted], ["input", *["mask"] * len(masks)], params)
            kept_types = [to_computed_type(each) for each in pictures]
            moved = self._apply(self._pictures, kept_types, ["mask"] * len(pictures), params) if pictures else []
        moved = [each.to(own.dtype) for each, own in zip(moved, pictures, strict=True)]
        return changed[0].to(images.dtype), [_unshift_classes(each.squeeze(1)) for each in changed[1:]], moved

    def _apply(self, sequence: Any, tensors: Sequence[Tensor], keys: Sequence[str], params: Any) -> list[Tensor]:
        found = sequence(*tensors, params=params, data_keys=list(keys))
        return [found] if isinstance(found, Tensor) else list(found)

    def _move_to(self, device: torch.device) -> None:
        """Move the modules' tables to a device; the random numbers are still drawn on the CPU."""
        if device == self._device:
            return
        self._device = device
        for sequence in (self._images, self._pictures):
            sequence.to(device)
            for module in sequence.modules():
                if hasattr(module, "set_rng_device_and_dtype"):
                    module.set_rng_device_and_dtype(torch.device("cpu"), torch.float32)


def _make_sequence(modules: Sequence[Any], resample: str) -> Any:
    """Make kornia's container; `resample` is how masks are resampled."""
    from kornia.augmentation import AugmentationSequential
    from kornia.constants import DataKey, Resample

    for_masks = {"resample": Resample.get(resample), "align_corners": None, "fill": 0}
    sequence = AugmentationSequential(
        *modules, data_keys=["input"], transformation_matrix_mode="skip", extra_args={DataKey.MASK: for_masks}
    )
    sequence.disable_features = True  # conversions from PIL and NumPy, and keeping the last image
    return sequence


@contextmanager
def seed_draws(seed: int) -> Iterator[None]:
    """Seed PyTorch's generator on the CPU within the `with` block; afterwards it continues as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed the GPU's generator too
        yield


def make_draw_seed(seed: int, epoch: int, batch: int, name: str) -> int:
    """Make the seed of a batch's draws.

    Args:
        seed: seed of the run.
        epoch: number of the epoch.
        batch: number of the batch within the epoch.
        name: what is drawn for, such as a field.
    """
    entropy = [seed, epoch, batch, zlib.crc32(name.encode())]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])  # PyTorch's generator uses 32 bits


def to_unit_floats(images: Tensor) -> Tensor:
    """Convert images of bytes to floats from 0 to 1; floats stay as they are."""
    return images if images.is_floating_point() else images.float().div_(255)


def to_computed_type(values: Tensor) -> Tensor:
    """Convert half-precision numbers to float32: kornia computes in float32 or float64."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _shift_classes(mask: Tensor) -> Tensor:
    """Number classes from 1: kornia fills pixels from outside of the image with 0, which is to be ignored."""
    ignored = IGNORED_BYTE if mask.dtype == torch.uint8 else IGNORED
    return torch.where(mask == ignored, 0, mask.long() + 1)


def _unshift_classes(shifted: Tensor) -> Tensor:
    return torch.where(shifted == 0, IGNORED, shifted - 1)
