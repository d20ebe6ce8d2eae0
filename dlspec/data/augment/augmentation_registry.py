"""What `augment` can name: kornia's augmentations of images under their own names, and `MixUp` and `CutMix`.

kornia (the extra `images`) is imported when an augmentation is first needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from dlspec.data.augment.mixing import CutMix, MixUp
from dlspec.parts.registry import Registry
from dlspec.parts.schema import Schema
from dlspec.parts.schema_derivation import SchemaOptions, derive_schema
from dlspec.parts.type_hints import Constraint

MIXING_NAMES = ("MixUp", "CutMix")
# They move pixels, and masks move with them.
_GEOMETRIC_NAMES = (
    "RandomAffine RandomCrop RandomElasticTransform RandomHorizontalFlip RandomPerspective RandomResizedCrop "
    "RandomRotation RandomRotation90 RandomShear RandomThinPlateSpline RandomTranslate RandomVerticalFlip"
).split()
# They change colors, and compute correctly for images of any numbers.
_ANY_NUMBERS_NAMES = (
    "RandomBoxBlur RandomChannelDropout RandomChannelShuffle RandomErasing RandomGaussianBlur RandomGaussianNoise "
    "RandomGrayscale RandomMedianBlur RandomMotionBlur"
).split()
# They change colors, and expect values from 0 to 1.
_UNIT_RANGE_NAMES = (
    "ColorJiggle ColorJitter RandomAutoContrast RandomBrightness RandomClahe RandomContrast RandomEqualize RandomGamma "
    "RandomGaussianIllumination RandomHue RandomInvert RandomJPEG RandomLinearCornerIllumination "
    "RandomLinearIllumination RandomPlanckianJitter RandomPlasmaBrightness RandomPlasmaContrast RandomPlasmaShadow "
    "RandomPosterize RandomRGBShift RandomRain RandomSaltAndPepperNoise RandomSaturation RandomSharpness RandomSnow "
    "RandomSolarize"
).split()
# They choose from a list of operations, and are in `kornia.augmentation.auto`.
_POLICY_NAMES = ("AutoAugment", "RandAugment", "TrivialAugment")
_USES_UNIT_RANGE = frozenset((*_UNIT_RANGE_NAMES, *_POLICY_NAMES))

_FIXED_SIZE_FIX = "set `size` and `resize` of the image: validation and test images need it too"
_FIXED_SCALE_FIX = "set `scale` of the image: validation and test images need it too"
_UNSUPPORTED: Mapping[str, str] = {
    **dict.fromkeys(("Normalize", "Denormalize", "ToTensor", "ToDtype", "Rescaling", "ToFloat"), _FIXED_SCALE_FIX),
    **dict.fromkeys(("CenterCrop", "Resize", "PadTo", "LongestMaxSize", "SmallestMaxSize"), _FIXED_SIZE_FIX),
    **dict.fromkeys(("RandomMosaic", "RandomJigsaw", "PatchMix", "RandomTransplantation"), "use CutMix or MixUp"),
    "RandomDissolving": "it downloads a model; use RandomPlasmaBrightness or RandomGaussianNoise",
    "RandomFisheye": "use RandomPerspective or RandomElasticTransform",
    **dict.fromkeys(
        ("Compose", "Sequential", "AugmentationSequential", "ImageSequential"), "write a list: augment: [NAME, NAME]"
    ),
}  # fmt: skip
_SUGGESTIONS: Mapping[str, str] = {
    "RandomMixUpV2": "MixUp", "RandomMixUp": "MixUp", "Mixup": "MixUp", "mixup": "MixUp",
    "RandomCutMixV2": "CutMix", "RandomCutMix": "CutMix", "Cutmix": "CutMix", "cutmix": "CutMix",
    "RandomFlip": "RandomHorizontalFlip, or RandomVerticalFlip",
    "HorizontalFlip": "RandomHorizontalFlip", "VerticalFlip": "RandomVerticalFlip", "Flip": "RandomHorizontalFlip",
    "RandomZoom": "RandomAffine: {degrees: 0, scale: [0.8, 1.2]}",
    "RandomScale": "RandomAffine: {degrees: 0, scale: [0.8, 1.2]}",
    "ShiftScaleRotate": "RandomAffine: {degrees: 15, translate: [0.1, 0.1], scale: [0.9, 1.1]}",
    "RandomTranslation": "RandomAffine: {degrees: 0, translate: [0.1, 0.1]}",
    "RandomErase": "RandomErasing", "Cutout": "RandomErasing", "CoarseDropout": "RandomErasing",
    "RandomCutout": "RandomErasing",
    "GaussianBlur": "RandomGaussianBlur: {kernel_size: [3, 3], sigma: [0.1, 2.0]}",
    "GaussianNoise": "RandomGaussianNoise", "GaussNoise": "RandomGaussianNoise",
    "ElasticTransform": "RandomElasticTransform", "Rotate": "RandomRotation",
    "RandomAdjustSharpness": "RandomSharpness", "RandomPhotometricDistort": "ColorJitter",
    "RandomColorJitter": "ColorJitter", "RandomBrightnessContrast": "ColorJitter", "RandomGrayScale": "RandomGrayscale",
    "TrivialAugmentWide": "TrivialAugment", "AugMix": "RandAugment", "RandomChoice": "RandAugment or TrivialAugment",
}  # fmt: skip

_PROBABILITY = Constraint(at_least=0, at_most=1)
# Larger numbers than any image needs would take hours or all of the memory.
_SIZE = Constraint(at_least=1, at_most=2**14)
_SAMPLER_PADDING = Constraint(hint=Literal["zeros", "border", "reflection", "fill"], default="zeros")
_BORDERS = Constraint(hint=Literal["constant", "reflect", "replicate", "circular"])
_CONSTRAINTS: Mapping[str, Constraint] = {
    "p": _PROBABILITY,
    "p_batch": _PROBABILITY,
    "alpha": Constraint(above=0, is_finite=True),
    "RandomElasticTransform.alpha": Constraint(is_finite=True),
    "size": _SIZE,
    "kernel_size": Constraint(at_least=1, at_most=255),
    "grid_size": Constraint(at_least=1, at_most=256),
    "number_of_drops": Constraint(at_least=0, at_most=10_000),
    "RandAugment.n": Constraint(at_least=1, at_most=100),
    "resample": Constraint(hint=Literal["bilinear", "nearest", "bicubic"], default="bilinear"),
    "RandomMotionBlur.resample": Constraint(hint=Literal["bilinear", "nearest", "bicubic"], default="nearest"),
    "border_type": _BORDERS,
    "RandomMotionBlur.border_type": Constraint(
        hint=Literal["constant", "reflect", "replicate", "circular"], default="constant"
    ),
    **{f"{name}.padding_mode": _SAMPLER_PADDING for name in ("RandomAffine", "RandomShear", "RandomTranslate")},
    "RandomThinPlateSpline.padding_mode": Constraint(hint=Literal["zeros", "border", "reflection"], default="zeros"),
    "RandomElasticTransform.padding_mode": Constraint(hint=Literal["zeros", "border", "reflection"]),
    "RandomCrop.padding_mode": _BORDERS,
    "RandomCrop.padding": Constraint(at_least=0, at_most=2**14),
    "cropping_mode": Constraint(hint=Literal["slice", "resample"]),
    "AutoAugment.policy": Constraint(hint=Literal["imagenet", "cifar10", "svhn"]),
    "sampling_method": Constraint(hint=Literal["basic", "area_preserving"]),
    "mode": Constraint(hint=Literal["blackbody", "cied"]),
}
_IGNORED_ARGUMENTS = frozenset({"keepdim", "transformation_matrix_mode", "slow_and_differentiable"})
_IGNORED_OF_PART: Mapping[str, frozenset[str]] = {
    name: _IGNORED_ARGUMENTS | {"policy"} for name in ("RandAugment", "TrivialAugment")
}


@cache
def augmentation_registry() -> Registry[Schema]:
    """Return the registry of augmentations. The first call imports kornia; ImportError if it is not installed."""
    from kornia import augmentation
    from kornia.augmentation import auto

    names = [*_GEOMETRIC_NAMES, *_ANY_NUMBERS_NAMES, *_UNIT_RANGE_NAMES]
    classes: list[Any] = [getattr(augmentation, name) for name in names if hasattr(augmentation, name)]
    classes += [getattr(auto, name) for name in _POLICY_NAMES]
    volumes = {name: f"images have two dimensions; use {name.removesuffix('3D')}" for name in vars(augmentation)
               if name.endswith("3D")}  # fmt: skip
    return Registry(
        "augmentation",
        [*classes, MixUp, CutMix],
        _derive_augmentation,
        unsupported={**volumes, **_UNSUPPORTED},
        suggestions=_SUGGESTIONS,
    )


def _derive_augmentation(cls: type) -> Schema:
    ignored = _IGNORED_OF_PART.get(cls.__name__, _IGNORED_ARGUMENTS)
    return derive_schema(cls, "augmentation", SchemaOptions(_find_constraint, ignored))


def _find_constraint(part: str, setting: str) -> Constraint:
    return _CONSTRAINTS.get(f"{part}.{setting}") or _CONSTRAINTS.get(setting) or Constraint()


def fills_pixels(name: str) -> bool:
    """Whether an augmentation makes pixels that show nothing of the image, whose class is then unknown."""
    is_geometric = name in _GEOMETRIC_NAMES and not name.endswith("Flip") and name != "RandomRotation90"
    return is_geometric or name in _POLICY_NAMES or name == "RandomErasing"


def expects_unit_range(name: str) -> bool:
    """Whether an augmentation computes correctly only for values from 0 to 1: it cuts off others."""
    return name in _USES_UNIT_RANGE
