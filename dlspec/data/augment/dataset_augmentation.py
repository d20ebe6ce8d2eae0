"""Add the augmentations of the setting `augment` to a data set, after trying them on its first samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.data.augment.augmentation_registry import expects_unit_range, fills_pixels
from dlspec.data.augment.augmentation_settings import (
    ALL_FIELDS,
    AugmentationTerm,
    AugmentationTerms,
    read_augmentations,
)
from dlspec.data.augment.batch_augmentation import BatchAugmentation, find_owner, list_image_fields
from dlspec.data.augment.field_augmentation import FieldAugmentation, seed_draws, to_computed_type, to_unit_floats
from dlspec.data.dataset import Dataset, Field, Target
from dlspec.errors import Code, DataError, KeyPath, suggest
from dlspec.formatting import first_line
from dlspec.language.problems import Problems
from dlspec.layouts import format_shape

TRIAL_SAMPLES = 2


def augment_dataset(dataset: Dataset, raw: Any) -> Dataset:
    """Return the data set with the augmentations of its training batches.

    Args:
        dataset: the data.
        raw: the setting `augment`, as written.

    Raises:
        DataError: if an augmentation is wrong, or does not fit the data.
    """
    problems = Problems()
    terms = read_augmentations(raw, ("data", "augment"), problems)
    for problem in problems.found:
        raise AugmentationError(problem.path[2:], f"{problem.found}: {problem.fix}", problem.code)
    if not terms:
        return dataset
    images = list_image_fields(dataset)
    _check_fields(dataset, terms, images)
    mixings = [term for each in terms.values() for term in each if term.is_mixing]
    _check_mixings(dataset, terms, mixings, images)
    fields, filled = {}, set[str]()
    for each in images:
        chosen = [term for term in terms.get(each.name, terms.get(ALL_FIELDS, ())) if not term.is_mixing]
        if chosen:
            modules = [term.build() for term in chosen]
            _FieldTrial(dataset, each, images).check(list(zip(chosen, modules, strict=True)))
            fields[each.name] = FieldAugmentation(each.name, modules)
            filled |= {each.name} if any(fills_pixels(term.name) for term in chosen) else set()
    may_fill = [each for each in images if each.name in filled]
    targets = [_mark_ignored(each, bool(find_owner(each.name, each, may_fill))) for each in dataset.targets]
    augmentation = BatchAugmentation(images, {each.name: each for each in targets}, fields, mixings)
    return replace(dataset, targets=tuple(targets), augmentation=augmentation)


def _mark_ignored(target: Target, is_filled: bool) -> Target:
    """Mark a mask with pixels that show nothing of the image, so that losses and metrics leave them out."""
    return replace(target, has_ignored=True) if is_filled and target.kind == "classes" else target


class AugmentationError(DataError):
    """An augmentation that does not fit the data."""

    def __init__(self, inner_path: KeyPath, message: str, code: Code = Code.WRONG_VALUE) -> None:
        super().__init__("augment", message, code, inner_path=inner_path)


def _check_fields(dataset: Dataset, terms: AugmentationTerms, images: Sequence[Field]) -> None:
    names = [each.name for each in images]
    if not names:
        fields = ", ".join(each.name for each in dataset.fields)
        found = f"{dataset.name} has no images, (channels, height, width), to augment; its fields: {fields}"
        raise AugmentationError((), f"{found}; remove augment", Code.UNSUPPORTED)
    for name in terms:
        if name not in (*names, ALL_FIELDS):
            found = f"{dataset.name} has no images '{name}'; {suggest(name, names)}"
            raise AugmentationError((name,), found, Code.UNKNOWN_FIELD)


def _check_mixings(
    dataset: Dataset, terms: AugmentationTerms, mixings: Sequence[AugmentationTerm], images: Sequence[Field]
) -> None:
    """Refuse mixing of samples with other inputs than images, and of a single field of several."""
    if not mixings:
        return
    name, path = mixings[0].name, mixings[0].inner_path
    others = [each.name for each in dataset.fields if each not in images]
    if others:
        found = f"{name} mixes whole samples, and '{others[0]}' has no images; remove {name}"
        raise AugmentationError(path, found, Code.UNSUPPORTED)
    if len(images) > 1 and ALL_FIELDS not in terms:
        found = f"{name} mixes whole samples, so it can't be written for one field: write augment as one list"
        raise AugmentationError(path, found, Code.UNSUPPORTED)


class _FieldTrial:
    """Tries augmentations on the first samples of a field.

    Args:
        dataset: the data.
        field: the field.
        images: all fields of images.
    """

    def __init__(self, dataset: Dataset, field: Field, images: Sequence[Field]) -> None:
        self.dataset, self.field = dataset, field
        self.samples = to_computed_type(to_unit_floats(_read_stored(dataset.train.tensors[field.name])))
        owned = [each.name for each in dataset.targets if find_owner(each.name, each, images) == field.name]
        self.maps = {name: _read_stored(dataset.train.targets[name]) for name in owned}

    def check(self, terms: Sequence[tuple[AugmentationTerm, nn.Module]]) -> None:
        """Apply one augmentation after the other, to every sample whatever its probability."""
        images = self.samples
        stored_shape = images.shape
        if not len(images):
            return
        self._check_stored_sizes(terms[0][0])
        for term, module in terms:
            self._check_range(term)
            images = self._apply(term, module, images)
        term = terms[-1][0]
        if images.shape[1:] not in (self.field.shape, stored_shape[1:]):
            made, wanted = format_shape(images.shape[1:]), format_shape(self.field.shape)
            found = f"the augmentations make images {made}, and the network is built for {wanted}"
            resizing = [each for each, _ in terms if "size" in each.settings]
            fix = f"write {(resizing or [term])[0].name}: {{size: {list(self.field.shape[1:])}}}"
            raise AugmentationError((resizing or [term])[0].inner_path, f"{found}: {fix}", Code.SHAPE_MISMATCH)

    def _apply(self, term: AugmentationTerm, module: Any, images: Tensor) -> Tensor:
        try:
            with seed_draws(0), torch.no_grad():
                params = module.forward_parameters(images.shape)
                if isinstance(params, dict):
                    params["batch_prob"] = torch.ones_like(params["batch_prob"])
                changed: Tensor = module(images, params=params)
                if self.maps:
                    FieldAugmentation("", [module]).augment(images, [images[:, 0].long()], [], 0)
        except NotImplementedError:
            found = f"{term.name} can't move the masks of '{self.field.name}': remove it, or use RandomAffine"
            raise AugmentationError(term.inner_path, found, Code.UNSUPPORTED) from None
        except Exception as error:  # kornia raises errors of many types
            shown = format_shape(images.shape[1:])
            found = f"{term.name} can't augment '{self.field.name}' {shown}; kornia says: {first_line(error, 200)}"
            raise AugmentationError(term.inner_path, found, Code.UNSUPPORTED) from None
        if changed.shape != images.shape and term.settings.get("p", 1.0) != 1:
            sizes = f"{format_shape(images.shape[1:])} to {format_shape(changed.shape[1:])}"
            found = f"{term.name} changes the size of images from {sizes}, so all of a batch need it: write p: 1"
            raise AugmentationError(term.inner_path, found, Code.SHAPE_MISMATCH)
        return changed

    def _check_stored_sizes(self, term: AugmentationTerm) -> None:
        """Refuse masks and target images that are kept at another size than their images."""
        for name, values in self.maps.items():
            if values.shape[-2:] != self.samples.shape[-2:]:
                sizes = [format_shape(each.shape[-2:]) for each in (self.samples, values)]
                found = f"'{self.field.name}' is kept at {sizes[0]} and its target '{name}' at {sizes[1]}"
                raise AugmentationError(
                    term.inner_path, f"{found}: write the same `store` for both", Code.SHAPE_MISMATCH
                )

    def _check_range(self, term: AugmentationTerm) -> None:
        """Refuse changes of colors that would cut off values below 0 or above 1."""
        values = self.dataset.train.tensors[self.field.name]
        if not expects_unit_range(term.name) or not isinstance(values, Tensor) or not values.is_floating_point():
            return
        low, high = (float(each) for each in values.aminmax())
        if low < 0 or high > 1:
            found = f"{term.name} expects images from 0 to 1, and '{self.field.name}' has values {low:g} to {high:g}"
            raise AugmentationError(term.inner_path, f"{found}: scale them to 0 to 1 first", Code.BAD_DATA)


def _read_stored(values: Any) -> Tensor:
    """Read the first samples at the size in which they are stored, which training batches are augmented at."""
    first: Tensor = values[:TRIAL_SAMPLES] if isinstance(values, Tensor) else values.gather(
        torch.arange(min(TRIAL_SAMPLES, len(values)))
    )  # fmt: skip
    return first
