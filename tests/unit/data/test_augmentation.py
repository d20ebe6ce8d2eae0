"""Augmentations of images: those of kornia under seeds, masks that move along, MixUp and CutMix, and wrong settings."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from typing import Any

import kornia.augmentation
import kornia.augmentation.auto
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlspec.data.arrays import dataset_from_arrays
from dlspec.data.augment.augmentation_registry import augmentation_registry, fills_pixels
from dlspec.data.augment.augmentation_settings import read_augmentations
from dlspec.data.augment.dataset_augmentation import augment_dataset
from dlspec.data.augment.field_augmentation import FieldAugmentation, make_draw_seed
from dlspec.data.augment.mixing import CutMix, MixUp
from dlspec.data.dataset import Dataset, Split
from dlspec.data.lazy_array import InMemoryArray, read_rows
from dlspec.errors import Code, DataError
from dlspec.language.problems import Problems

# Each augmentation with the settings that it needs, and with others than the defaults where these change nothing.
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {} for name in augmentation_registry()},
    "ColorJiggle": {"brightness": 0.2, "hue": 0.1},
    "ColorJitter": {"brightness": 0.2, "hue": 0.1},
    "RandAugment": {"n": 2, "m": 10},
    "RandomAffine": {"degrees": 20, "translate": [0.1, 0.2], "scale": [0.8, 1.2], "shear": 5},
    "RandomBrightness": {"brightness": [0.5, 1.5]},
    "RandomClahe": {"grid_size": [4, 4]},
    "RandomContrast": {"contrast": [0.5, 1.5]},
    "RandomCrop": {"size": [16, 16], "padding": 3},
    "RandomElasticTransform": {"kernel_size": [5, 5], "sigma": [2, 2]},
    "RandomGamma": {"gamma": [0.5, 1.5]},
    "RandomGaussianBlur": {"kernel_size": 3, "sigma": [0.1, 2]},
    "RandomHue": {"hue": [-0.2, 0.2]},
    "RandomMotionBlur": {"kernel_size": 3, "angle": 20, "direction": 0.5},
    "RandomRain": {"drop_height": [2, 3], "drop_width": [-1, 1], "number_of_drops": [5, 9]},
    "RandomResizedCrop": {"size": [16, 16]},
    "RandomRotation": {"degrees": 30},
    "RandomRotation90": {"times": [1, 3]},
    "RandomSaturation": {"saturation": [0.5, 1.5]},
    "RandomShear": {"shear": 10},
    "RandomSnow": {"snow_coefficient": [0.2, 0.8], "brightness": [1, 2]},
    "RandomTranslate": {"translate_x": [-0.2, 0.2]},
}
MIXINGS = ("MixUp", "CutMix")


def read_one(entry: Any) -> Any:
    problems = Problems()
    found = read_augmentations([entry], ("data", "augment"), problems)
    assert not problems.found
    return found[""][0]


def make_images(samples: int = 4, channels: int = 3, size: int = 16) -> Tensor:
    return torch.rand(samples, channels, size, size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", [each for each in SETTINGS if each not in MIXINGS])
def test_an_augmentation_is_kornias_under_the_same_seed(name: str) -> None:
    images, seed = make_images(), make_draw_seed(0, 1, 2, "image")
    module = read_one({name: SETTINGS[name]} if SETTINGS[name] else name).build()
    found, _, _ = FieldAugmentation("image", [module]).augment(images, [], [], seed)
    own = getattr(kornia.augmentation, name, None) or getattr(kornia.augmentation.auto, name)
    settings = {key: tuple(each) if isinstance(each, list) else each for key, each in SETTINGS[name].items()}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        expected = own(**settings)(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert SETTINGS.keys() == augmentation_registry().keys()


GEOMETRIC = [
    {"RandomAffine": {"degrees": 40, "translate": [0.2, 0.2], "resample": "nearest", "p": 1.0}},
    {"RandomCrop": {"size": [16, 16], "padding": 4}},
    {"RandomErasing": {"p": 1.0, "value": 0.0}},
    {"RandomHorizontalFlip": {"p": 0.5}},
    {"RandomPerspective": {"resample": "nearest", "p": 1.0}},
    {"RandomResizedCrop": {"size": [16, 16], "resample": "nearest"}},
    {"RandomRotation": {"degrees": 40, "resample": "nearest", "p": 1.0}},
]


@pytest.mark.parametrize("entry", GEOMETRIC, ids=lambda each: next(iter(each)))
def test_a_mask_moves_with_its_image(entry: dict[str, Any]) -> None:
    classes = torch.randint(0, 5, (6, 16, 16), generator=torch.Generator().manual_seed(1))
    image = (classes + 1).float().unsqueeze(1) / 8  # 0 is not an image's value: it fills what shows nothing
    term = read_one(entry)
    found, (mask,), _ = FieldAugmentation("image", [term.build()]).augment(image, [classes], [], 3)
    assert mask.dtype == torch.int64
    assert mask.shape == classes.shape
    assert not torch.equal(mask, classes)
    assert torch.equal(found[:, 0], torch.where(mask == -100, 0, mask + 1) / 8)
    assert (mask == -100).any() == (fills_pixels(term.name) and term.name != "RandomResizedCrop")


def test_colors_change_the_image_alone() -> None:
    images, mask = make_images(), torch.randint(0, 3, (4, 16, 16))
    picture = make_images(channels=2)
    modules = [read_one(each).build() for each in ("RandomInvert", {"RandomGaussianNoise": {"std": 0.2, "p": 1.0}})]
    found, masks, pictures = FieldAugmentation("image", modules).augment(images, [mask], [picture], 3)
    assert not torch.equal(found, images)
    assert torch.equal(masks[0], mask)
    assert torch.equal(pictures[0], picture)


def test_a_target_image_is_moved_and_interpolated() -> None:
    images = make_images(channels=1)
    module = read_one({"RandomAffine": {"degrees": 40, "p": 1.0}}).build()
    found, _, (picture,) = FieldAugmentation("image", [module]).augment(images, [], [images], 3)
    torch.testing.assert_close(found, picture)


def test_ignored_pixels_stay_ignored() -> None:
    mask, of_bytes = torch.full((2, 8, 8), -100), torch.full((2, 8, 8), 255, dtype=torch.uint8)
    module = read_one({"RandomHorizontalFlip": {"p": 1.0}}).build()
    _, masks, _ = FieldAugmentation("image", [module]).augment(make_images(2, 1, 8), [mask, of_bytes], [], 0)
    assert all(torch.equal(each, mask) for each in masks)


def test_images_of_bytes_become_floats() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    module = read_one({"RandomHorizontalFlip": {"p": 1.0}}).build()
    found, _, _ = FieldAugmentation("image", [module]).augment(images, [], [], 0)
    assert torch.equal(found, (images.float() / 255).flip(-1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_floats_keep_their_type(dtype: torch.dtype) -> None:
    module = read_one({"RandomAffine": {"degrees": 10, "p": 1.0}}).build()
    found, _, _ = FieldAugmentation("image", [module]).augment(make_images().to(dtype), [], [], 0)
    assert found.dtype == dtype


# ---- batches -------------------------------------------------------------------------------------------------------


def make_pairs(**more: Any) -> Dataset:
    """Two fields of images with a class for each pair."""
    images = make_images(20)
    return dataset_from_arrays({"left": images, "right": images, "target": np.arange(20) % 3, **more})


def augment_batch(dataset: Dataset, seed: int = 0, epoch: int = 1, batch: int = 0) -> Any:
    assert dataset.augmentation is not None
    return dataset.augmentation(get_images(dataset), {"target": dataset.train.target}, seed, epoch, batch)


def get_images(dataset: Dataset) -> dict[str, Tensor]:
    return {name: read_rows(each) for name, each in dataset.train.tensors.items()}


def test_each_field_has_its_own_draws_of_seed_epoch_and_batch() -> None:
    dataset = augment_dataset(make_pairs(), ["RandomErasing"])
    inputs, _ = augment_batch(dataset)
    assert not torch.equal(inputs["left"], inputs["right"])
    again, _ = augment_batch(dataset)
    assert torch.equal(inputs["left"], again["left"])
    for other in ({"seed": 1}, {"epoch": 2}, {"batch": 1}):
        assert not torch.equal(inputs["left"], augment_batch(dataset, **other)[0]["left"])


def test_a_list_for_one_field_leaves_the_others() -> None:
    dataset = augment_dataset(make_pairs(), {"right": [{"RandomHorizontalFlip": 1.0}]})
    inputs, _ = augment_batch(dataset)
    assert torch.equal(inputs["left"], get_images(dataset)["left"])
    assert torch.equal(inputs["right"], get_images(dataset)["right"].flip(-1))


def test_pytorchs_generator_goes_on_as_without_augmentation() -> None:
    dataset = augment_dataset(make_pairs(), ["RandomErasing", {"RandomAffine": 10}, "MixUp"])
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    augment_batch(dataset)
    assert torch.equal(torch.rand(3), expected)


def test_the_batch_that_is_given_does_not_change() -> None:
    dataset = augment_dataset(make_pairs(), ["RandomInvert", {"RandomAffine": 10}, "CutMix"])
    before = {name: each.clone() for name, each in get_images(dataset).items()}
    augment_batch(dataset)
    assert all(torch.equal(each, get_images(dataset)[name]) for name, each in before.items())


# ---- MixUp and CutMix ----------------------------------------------------------------------------------------------


def test_mixup_averages_images_and_classes_by_one_share() -> None:
    dataset = augment_dataset(make_pairs(), [{"MixUp": {"alpha": 0.5}}])
    inputs, targets = augment_batch(dataset)
    mixture = MixUp(0.5).draw(len(dataset.train), 16, 16, skip_choice(0, 1, 0))
    assert mixture is not None
    images, classes = get_images(dataset)["left"], dataset.train.target
    share, partners = mixture.share, mixture.partners
    torch.testing.assert_close(inputs["left"], share * images + (1 - share) * images[partners])
    torch.testing.assert_close(inputs["right"], inputs["left"])
    one_hot = torch.eye(3)[classes]
    torch.testing.assert_close(targets["target"], share * one_hot + (1 - share) * one_hot[partners])


def skip_choice(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """The generator of a batch after it chose between MixUp and CutMix."""
    generator = np.random.default_rng([seed, epoch, batch, 3])
    generator.integers(1)
    return generator


def test_cutmix_counts_targets_by_their_areas() -> None:
    images = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 1, 12, 10) / 8
    classes = torch.arange(8)
    dataset = augment_dataset(
        dataset_from_arrays(
            {
                "image": images,
                "target": classes,
            },
            validation=0,
            test=0,
        ),
        ["CutMix"],
    )
    for batch in range(5):
        inputs, targets = augment_batch(dataset, batch=batch)
        for image, shares in zip(inputs["image"], targets["target"], strict=True):
            areas = torch.stack([(image == each / 8).float().mean() for each in range(8)])
            order = get_images(dataset)["image"][:, 0, 0, 0] * 8
            known = torch.zeros(8)
            known[dataset.train.target] = areas[order.long()]
            torch.testing.assert_close(shares, known)


def test_some_batches_are_not_mixed_but_all_have_probabilities() -> None:
    dataset = augment_dataset(make_pairs(), [{"MixUp": {"p": 0.5}}, {"CutMix": {"p": 0.5}}])
    found = [augment_batch(dataset, batch=each) for each in range(20)]
    assert {targets["target"].shape for _, targets in found} == {(len(dataset.train), 3)}
    unmixed = [torch.equal(inputs["left"], get_images(dataset)["left"]) for inputs, _ in found]
    assert 0 < sum(unmixed) < 20


def test_a_small_alpha_keeps_most_samples_almost_as_they_are() -> None:
    shares = [
        max(mixture.share, 1 - mixture.share)
        for each in range(200)
        if (mixture := MixUp(0.05).draw(4, 8, 8, np.random.default_rng(each)))
    ]
    assert np.mean(np.array(shares) > 0.9) > 0.8
    areas = [mixture.share for each in range(200) if (mixture := CutMix().draw(4, 32, 32, np.random.default_rng(each)))]
    assert 0.5 < np.mean(areas) < 0.75  # a box that is cut at the border is smaller than was drawn


# ---- wrong settings ------------------------------------------------------------------------------------------------

WRONG: list[tuple[Any, tuple[Any, ...], Code, str]] = [
    (5, (), Code.WRONG_TYPE, "write a list"),
    ({"RandomErasing": None, "RandomInvert": None}, (), Code.WRONG_TYPE, "[RandomErasing: ..., RandomInvert: ...]"),
    ({"left": 5}, ("left",), Code.WRONG_TYPE, "must be a list"),
    (["RandomErasingg"], (0,), Code.UNKNOWN_AUGMENTATION, "did you mean 'RandomErasing'?"),
    (["RandomFlip"], (0,), Code.UNKNOWN_AUGMENTATION, "use RandomHorizontalFlip"),
    (["Cutout"], (0,), Code.UNKNOWN_AUGMENTATION, "use RandomErasing"),
    (["Normalize"], (0,), Code.NOT_YET, "`scale`"),
    (["Resize"], (0,), Code.NOT_YET, "`size`"),
    (["RandomCrop3D"], (0,), Code.NOT_YET, "use RandomCrop"),
    (["RandomAffine"], (0,), Code.MISSING_VALUE, "write RandomAffine: {degrees: ...}"),
    ([{"RandomAffine": {"degree": 5}}], (0, "RandomAffine", "degree"), Code.UNKNOWN_SETTING, "did you mean 'degrees'?"),
    ([{"RandomAffine": {"degrees": "x"}}], (0, "RandomAffine", "degrees"), Code.WRONG_VALUE, "got 'x'"),
    ([{"RandomAffine": {"degrees": -5}}], (0, "RandomAffine", "degrees"), Code.WRONG_VALUE, "kornia says"),
    ([{"RandomGamma": {"gamma": [2, 1]}}], (0, "RandomGamma", "gamma"), Code.WRONG_VALUE, "kornia says"),
    ([{"RandomAffine": {"degrees": [9, -9]}}], (0, "RandomAffine", "degrees"), Code.WRONG_VALUE, "[from, to]"),
    ([{"RandomInvert": {"p": 1.5}}], (0, "RandomInvert", "p"), Code.WRONG_VALUE, ">= 0 and <= 1"),
    ([{"RandomShear": {"shear": 5, "resample": "x"}}], (0, "RandomShear", "resample"), Code.WRONG_VALUE, "nearest"),
    ([{"RandAugment": {"n": 2, "m": 99}}], (0, "RandAugment", "m"), Code.WRONG_VALUE, "kornia says"),
    ([{"MixUp": {"alpha": 0}}], (0, "MixUp", "alpha"), Code.WRONG_VALUE, "> 0"),
    (["MixUp", "RandomInvert"], (0,), Code.CONFLICT, "move MixUp to the end"),
    (["RandomInvert"] * 101, (), Code.TOO_LARGE, "101"),
    ([None], (0,), Code.MISSING_NAME, "NAME: {setting: value}"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "path", "code", "words"), WRONG)
def test_wrong_settings_are_reported_where_they_stand(raw: Any, path: tuple[Any, ...], code: Code, words: str) -> None:
    problems = Problems()
    read_augmentations(raw, ("data", "augment"), problems)
    (found,) = problems.found
    assert (found.path[2:], found.code) == (path, code)
    assert words in f"{found.found} {found.fix}"


@pytest.mark.parametrize("raw", [[], None, {}, ""])
def test_nothing_to_augment(raw: Any) -> None:
    dataset = make_pairs()
    assert augment_dataset(dataset, raw) is dataset


def test_without_kornia_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    augmentation_registry.cache_clear()
    problems = Problems()
    read_augmentations(["RandomInvert"], ("data", "augment"), problems)
    assert [each.code for each in problems.found] == [Code.NOT_INSTALLED]
    assert problems.found[0].fix == "pip install 'dlspec[images]'"
    with pytest.raises(DataError, match="needs kornia"):
        augment_dataset(make_pairs(), ["RandomInvert"])


UNFIT: list[tuple[Any, tuple[Any, ...], Code, str]] = [
    ([{"RandomCrop": {"size": [8, 8]}}], (0,), Code.SHAPE_MISMATCH, "(3, 8, 8), and the network is built for (3, 16"),
    ([{"RandomCrop": {"size": [8, 8], "p": 0.5}}], (0,), Code.SHAPE_MISMATCH, "write p: 1"),
    (["RandomInvert", {"RandomGaussianBlur": {"kernel_size": 41, "sigma": [1, 2]}}], (1,), Code.UNSUPPORTED, "kornia"),
    ({"middle": ["RandomInvert"]}, ("middle",), Code.UNKNOWN_FIELD, "available: left, right"),
    ({"left": ["MixUp"]}, ("left", 0), Code.UNSUPPORTED, "write augment as one list"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "path", "code", "words"), UNFIT)
def test_augmentations_that_do_not_fit_the_data(raw: Any, path: tuple[Any, ...], code: Code, words: str) -> None:
    with pytest.raises(DataError) as caught:
        augment_dataset(make_pairs(), raw)
    error = caught.value
    assert (error.key, error.inner_path, error.finding.code) == ("augment", path, code)
    assert words in str(error)


def test_a_crop_to_the_size_of_the_network_is_allowed() -> None:
    augmented = augment_dataset(make_pairs(), [{"RandomResizedCrop": {"size": [16, 16]}}])
    assert augment_batch(augmented)[0]["left"].shape[1:] == (3, 16, 16)


def test_data_without_images_are_refused() -> None:
    dataset = dataset_from_arrays({"x": np.zeros((9, 4), np.float32), "target": np.arange(9) % 3})
    with pytest.raises(DataError, match="has no images"):
        augment_dataset(dataset, ["RandomInvert"])


def test_mixup_with_other_inputs_is_refused() -> None:
    with pytest.raises(DataError, match="'age' has no images"):
        augment_dataset(make_pairs(age=np.zeros((20, 1), np.float32)), ["MixUp"])


def test_colors_of_numbers_beyond_0_to_1_are_refused() -> None:
    dataset = dataset_from_arrays({"image": make_images(12) * 255, "target": np.arange(12) % 3})
    with pytest.raises(DataError, match="expects images from 0 to 1"):
        augment_dataset(dataset, [{"ColorJitter": {"brightness": 0.2}}])
    augment_dataset(dataset, [{"RandomAffine": 10}])


def test_masks_that_an_augmentation_can_not_move() -> None:
    masks = np.arange(12)[:, None, None] % 3 * np.ones((12, 16, 16), np.int64)
    dataset = dataset_from_arrays({"image": make_images(12), "target": masks})
    with pytest.raises(DataError, match="can't move the masks"):
        augment_dataset(dataset, ["RandomThinPlateSpline"])
    assert not augment_dataset(dataset, ["RandomHorizontalFlip", "RandomInvert"]).target.has_ignored
    assert augment_dataset(dataset, [{"RandomAffine": 10}]).target.has_ignored


def test_a_mask_that_is_kept_at_another_size_is_refused() -> None:
    masks = np.arange(12)[:, None, None] % 3 * np.ones((12, 16, 16), np.int64)
    dataset = dataset_from_arrays({"image": make_images(12), "target": masks}, validation=0, test=0)
    kept = InMemoryArray(make_images(12, size=20), nn.AdaptiveAvgPool2d(16))
    larger = replace(dataset, train=Split({"image": kept}, dataset.train.targets))
    with pytest.raises(DataError, match="write the same `store` for both"):
        augment_dataset(larger, ["RandomHorizontalFlip"])


def test_images_that_are_kept_larger_can_be_cropped() -> None:
    dataset = dataset_from_arrays({"image": make_images(12), "target": np.arange(12) % 3}, validation=0, test=0)
    kept = InMemoryArray(make_images(12, size=20), nn.AdaptiveAvgPool2d(16))
    larger = replace(dataset, train=Split({"image": kept}, dataset.train.targets))
    assert augment_dataset(larger, [{"RandomCrop": {"size": [16, 16]}}, "RandomHorizontalFlip"]).augmentation
    with pytest.raises(DataError, match=r"make images \(3, 18, 18\)"):
        augment_dataset(larger, [{"RandomCrop": {"size": [18, 18]}}])


def test_an_augmented_data_set_can_be_sent_to_another_process() -> None:
    dataset = augment_dataset(make_pairs(), [{"RandomAffine": 10}, {"ColorJitter": {"hue": 0.1}}, "CutMix"])
    expected, found = augment_batch(dataset), augment_batch(pickle.loads(pickle.dumps(dataset)))
    assert torch.equal(expected[0]["left"], found[0]["left"])
