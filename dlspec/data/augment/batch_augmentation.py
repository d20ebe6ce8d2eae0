"""Augment training batches: images with their masks, then MixUp and CutMix over the whole batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dlspec.data.augment.augmentation_settings import AugmentationTerm
from dlspec.data.augment.field_augmentation import FieldAugmentation, make_draw_seed, to_unit_floats
from dlspec.data.augment.mixing import Mixing, Mixture
from dlspec.data.dataset import Dataset, Field, Target

MIXING_STREAM = 3  # tells the draws of MixUp and CutMix from others that follow from seed and epoch

TensorsByName = Mapping[str, Tensor]


class BatchAugmentation:
    """Augments training batches. The draws depend only on the seed of the run, the epoch and the batch's number.

    Args:
        images: the data's fields of images, in their order.
        targets: the data's targets, by name.
        fields: the augmentations of each field that has any, by name.
        mixings: MixUp and CutMix as written; one of them is drawn for each batch.
    """

    def __init__(
        self,
        images: Sequence[Field],
        targets: Mapping[str, Target],
        fields: Mapping[str, FieldAugmentation],
        mixings: Sequence[AugmentationTerm] = (),
    ) -> None:
        self.images, self.targets, self.fields, self.mixings = images, targets, fields, mixings
        self._built_mixings: Sequence[Mixing] = [each.build() for each in mixings]

    def __call__(
        self, inputs: TensorsByName, targets: TensorsByName, seed: int, epoch: int, batch: int
    ) -> tuple[TensorsByName, TensorsByName]:
        """Augment a batch.

        Args:
            inputs: the network's inputs by name, with images as uint8 or floats (N, C, H, W).
            targets: the targets of the losses by name.
            seed: seed of the run.
            epoch: number of the epoch.
            batch: number of the batch within the epoch.

        Returns:
            The inputs, with images in float, and the targets: masks in int64, mixed classes as probabilities.
        """
        changed_inputs, changed_targets = dict(inputs), dict(targets)
        for name, augmentation in self.fields.items():
            if name in inputs:
                masks, pictures = self._select_own_targets(name, inputs, targets)
                draw_seed = make_draw_seed(seed, epoch, batch, name)
                changed_inputs[name], new_masks, new_pictures = augmentation.augment(
                    inputs[name], list(masks.values()), list(pictures.values()), draw_seed
                )
                changed_targets |= dict(zip([*masks, *pictures], [*new_masks, *new_pictures], strict=True))
        if self._built_mixings:
            self._mix(changed_inputs, changed_targets, np.random.default_rng([seed, epoch, batch, MIXING_STREAM]))
        return changed_inputs, changed_targets

    def _select_own_targets(
        self, name: str, inputs: TensorsByName, targets: TensorsByName
    ) -> tuple[TensorsByName, TensorsByName]:
        """Select the masks and target images that move with a field: those that `find_owner` gives to it."""
        used = [each for each in self.images if each.name in inputs]
        own = {key: each for key, each in targets.items() if find_owner(key, self.targets.get(key), used) == name}
        masks = {key: each for key, each in own.items() if key in self.targets and self.targets[key].kind == "classes"}
        return masks, {key: each for key, each in own.items() if key not in masks}

    def _mix(self, inputs: dict[str, Tensor], targets: dict[str, Tensor], generator: np.random.Generator) -> None:
        """Mix the images and the targets of a batch; classes become probabilities even where it is not mixed."""
        images = [each.name for each in self.images if each.name in inputs]
        if not images:
            return
        mixing = self._built_mixings[int(generator.integers(len(self._built_mixings)))]
        count, _, height, width = inputs[images[0]].shape
        mixture = mixing.draw(count, height, width, generator)
        for name, each in targets.items():
            targets[name] = self._mix_target(name, each, mixture)
        if mixture is not None:
            inputs |= {name: mixture.mix_images(to_unit_floats(inputs[name])) for name in images}

    def _mix_target(self, name: str, values: Tensor, mixture: Mixture | None) -> Tensor:
        target = self.targets.get(name)
        if target is not None and target.kind == "classes" and not target.shape:
            values = make_probabilities(values, len(target.classes))
        if mixture is None:
            return values
        is_image = is_map(target) if target is not None else values.dim() == 4
        return mixture.mix_images(values) if is_image else mixture.mix_values(values)


def make_probabilities(classes: Tensor, count: int) -> Tensor:
    """Convert classes (N,) to probabilities (N, K) of 0 and 1; an ignored class has no 1."""
    found = nn.functional.one_hot(classes.clamp(min=0), count).to(torch.get_default_dtype())
    return found * (classes >= 0).unsqueeze(1)


def list_image_fields(dataset: Dataset) -> list[Field]:
    """List the fields of images, (C, H, W)."""
    return [each for each in dataset.fields if each.layout == "channels-first" and len(each.shape) == 3]


def is_map(target: Target) -> bool:
    """Whether a target has a class (H, W) or numbers (C, H, W) for each pixel."""
    return len(target.shape) == (2 if target.kind == "classes" else 3)


def find_owner(name: str, target: Target | None, images: Sequence[Field]) -> str:
    """Find the field of images that a mask or target image moves with.

    Args:
        name: name of the target.
        target: the target; None for a field that is to be reconstructed, and for weights of samples.
        images: the fields of images that are inputs of the network.

    Returns:
        The name of the first field with images of the same size, or of the field itself; '' for other targets.
    """
    if target is None:
        return name if any(each.name == name for each in images) else ""
    same_size = [each.name for each in images if is_map(target) and each.shape[-2:] == target.shape[-2:]]
    return same_size[0] if same_size else ""
