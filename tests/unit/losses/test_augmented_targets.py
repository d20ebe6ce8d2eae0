"""Losses and metrics of targets that augmentations change: mixed classes, and pixels that are to be ignored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlspec.data.arrays import dataset_from_arrays
from dlspec.data.augment.dataset_augmentation import augment_dataset
from dlspec.data.dataset import Dataset
from dlspec.data.lazy_array import read_rows
from dlspec.errors import Code, SpecError
from dlspec.jobs.python_spec import prepare_spec
from dlspec.losses.criterion import Criterion
from dlspec.parts.torch.torch_parts import LOSSES

ROWS, SIZE = 24, 6
IMAGES = np.random.default_rng(0).random((ROWS, 1, SIZE, SIZE)).astype(np.float32)
FLIPPED_BY_ROTATION = [{"RandomAffine": {"degrees": 90, "p": 1.0}}]


def make_data(target: Any, augment: Any) -> Dataset:
    return augment_dataset(dataset_from_arrays({"image": IMAGES, "target": target}), augment)


def draw_classes(count: int, shape: tuple[int, ...] = (ROWS,)) -> Any:
    return np.random.default_rng(2).integers(0, count, shape)


def make_criterion(data: Dataset, layers: list[Any], loss: Any = "auto") -> Criterion:
    return prepare_spec({"layers": layers, "loss": loss}, data).prepare().criterion


def augment_batch(data: Dataset) -> tuple[Tensor, Tensor]:
    """Augment the images and the targets of the training split as one batch."""
    assert data.augmentation is not None
    batch = ({"image": read_rows(data.train.tensors["image"])}, {"target": data.train.target})
    inputs, targets = data.augmentation(*batch, 0, 1, 0)
    return inputs["image"], targets["target"]


def augment_targets(data: Dataset) -> Tensor:
    return augment_batch(data)[1]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOSSES, "_classes", LOSSES._classes | {"Dice": Dice})
    monkeypatch.setattr(LOSSES, "_described", dict(LOSSES._described))


# ---- MixUp and CutMix ----------------------------------------------------------------------------------------------

MIXED: list[tuple[int, int, Any, Any]] = [
    (3, 3, "CrossEntropyLoss", lambda output, target: functional.cross_entropy(output, target)),
    (2, 1, "BCEWithLogitsLoss",
     lambda output, target: functional.binary_cross_entropy_with_logits(output.squeeze(1), target[:, 1])),
    (2, 2, "CrossEntropyLoss", lambda output, target: functional.cross_entropy(output, target)),
    (3, 3, "BCEWithLogitsLoss", lambda output, target: functional.binary_cross_entropy_with_logits(output, target)),
    (3, 3, "MSELoss", lambda output, target: functional.mse_loss(output, target)),
    (3, 3, {"type": "CrossEntropyLoss", "weight": [1.0, 2.0, 0.5], "label_smoothing": 0.1},
     lambda output, target: functional.cross_entropy(
         output, target, weight=torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)),
]  # fmt: skip


@pytest.mark.parametrize(("classes", "outputs", "loss", "compute"), MIXED)
def test_mixed_classes_are_probabilities(classes: int, outputs: int, loss: Any, compute: Any) -> None:
    data = make_data(draw_classes(classes), ["MixUp"])
    criterion, target = make_criterion(data, ["Flatten", {"Linear": outputs}], loss), augment_targets(data)
    output = torch.randn(len(target), outputs)
    torch.testing.assert_close(criterion(output, (target,)), compute(output, target))
    torch.testing.assert_close(criterion(output.double(), (target,)).float(), compute(output, target))
    weights = criterion.weigh((target,))
    assert weights is None or weights.flatten().tolist() == [1.0] * len(target)
    ((_, truth),) = criterion.make_metric_pairs(output, (target,))
    assert torch.equal(truth, target.argmax(1))


REFUSED: list[tuple[Any, list[Any], Any, Any]] = [
    (draw_classes(3), ["Flatten", {"Linear": 3}, {"LogSoftmax": 1}], "NLLLoss", "MixUp"),
    (draw_classes(3), ["Flatten", {"Linear": 3}], "MultiMarginLoss", "CutMix"),
    (draw_classes(2), ["Flatten", {"Linear": 1}], "SoftMarginLoss", "MixUp"),
    (draw_classes(3), ["Flatten", {"Linear": 3}], {"type": "CrossEntropyLoss", "ignore_index": 1}, "MixUp"),
    (draw_classes(3, (ROWS, SIZE, SIZE)), [{"Conv2d": {"out_channels": 3, "kernel_size": 1}}], "auto", "MixUp"),
]


@pytest.mark.parametrize(("target", "layers", "loss", "mixing"), REFUSED)
def test_losses_that_take_no_mixed_targets(target: Any, layers: list[Any], loss: Any, mixing: str) -> None:
    with pytest.raises(SpecError) as caught:
        make_criterion(make_data(target, [mixing]), layers, loss)
    (problem,) = caught.value.problems
    assert (problem.code, problem.path) == (Code.UNSUPPORTED, "data.augment.0")
    assert f"remove {mixing}" in problem.fix


def test_cutmix_moves_masks_with_their_boxes() -> None:
    masks = np.broadcast_to(draw_classes(3)[:, None, None], (ROWS, SIZE, SIZE))
    data = augment_dataset(
        dataset_from_arrays({"image": masks[:, None].astype(np.float32) / 2, "target": masks}), ["CutMix"]
    )
    make_criterion(data, [{"Conv2d": {"out_channels": 3, "kernel_size": 1}}])
    images, found = augment_batch(data)
    assert torch.equal((images[:, 0] * 2).long(), found)
    assert not torch.equal(found, data.train.target)


def test_numbers_and_labels_are_averaged() -> None:
    labels = np.random.default_rng(3).integers(0, 2, (ROWS, 4)).astype(bool)
    data = make_data(labels, ["MixUp"])
    criterion, target = make_criterion(data, ["Flatten", {"Linear": 4}]), augment_targets(data)
    assert len(set(target.flatten().tolist())) == 4
    ((_, truth),) = criterion.make_metric_pairs(torch.randn(len(target), 4), (target,))
    assert torch.equal(truth, data.train.target.long()) or torch.equal(truth, (target > 0.5).long())
    data = make_data(np.arange(ROWS, dtype=np.float32), ["MixUp"])
    assert augment_targets(data).mean().item() == pytest.approx(data.train.target.mean().item())


# ---- pixels that are to be ignored ---------------------------------------------------------------------------------

IGNORED: list[tuple[int, int, Any]] = [
    (3, 3, "CrossEntropyLoss"),
    (3, 3, {"type": "CrossEntropyLoss", "ignore_index": 1}),
    (3, 3, {"type": "CrossEntropyLoss", "weight": [1.0, 2.0, 0.5]}),
    (2, 1, "BCEWithLogitsLoss"),
    (3, 3, "BCEWithLogitsLoss"),
]


def compute_without_ignored(output: Tensor, mask: Tensor, loss: Any) -> Tensor:
    """The mean over known pixels, by PyTorch, of pixels as rows."""
    rows, classes = output.movedim(1, -1)[mask != -100], mask[mask != -100]
    if isinstance(loss, dict):
        weight = torch.tensor(loss["weight"]) if "weight" in loss else None
        return functional.cross_entropy(rows, classes, weight, ignore_index=loss.get("ignore_index", -100))
    if loss == "CrossEntropyLoss":
        return functional.cross_entropy(rows, classes)
    given = classes.unsqueeze(1) if rows.shape[1] == 1 else functional.one_hot(classes, rows.shape[1])
    return functional.binary_cross_entropy_with_logits(rows, given.float())


@pytest.mark.parametrize(("classes", "outputs", "loss"), IGNORED)
def test_pixels_from_outside_of_the_image_are_left_out(classes: int, outputs: int, loss: Any) -> None:
    data = make_data(draw_classes(classes, (ROWS, SIZE, SIZE)), FLIPPED_BY_ROTATION)
    layers = [{"Conv2d": {"out_channels": outputs, "kernel_size": 1}}]
    criterion, mask = make_criterion(data, layers, loss), augment_targets(data)
    known = mask != -100
    assert 0 < known.float().mean() < 1
    output = torch.randn(len(mask), outputs, SIZE, SIZE)
    torch.testing.assert_close(criterion(output, (mask,)), compute_without_ignored(output, mask, loss))
    ((found, truth),) = criterion.make_metric_pairs(output, (mask,))
    assert torch.equal(truth, mask[known])
    assert len(found) == len(truth)


@pytest.mark.parametrize(("classes", "outputs", "loss"), IGNORED)
def test_means_of_batches_combine_to_that_of_all(classes: int, outputs: int, loss: Any) -> None:
    data = make_data(draw_classes(classes, (ROWS, SIZE, SIZE)), FLIPPED_BY_ROTATION)
    criterion = make_criterion(data, [{"Conv2d": {"out_channels": outputs, "kernel_size": 1}}], loss)
    mask = augment_targets(data)
    output = torch.randn(len(mask), outputs, SIZE, SIZE)
    weights = criterion.weigh((mask,))
    assert weights is not None
    parts = [criterion.accumulate(output[rows], (mask[rows],), weights[rows].sum(0), weights.sum(0))[0]
             for rows in (slice(0, 5), slice(5, None))]  # fmt: skip
    torch.testing.assert_close(sum(parts), criterion(output, (mask,)).double(), check_dtype=False)


def test_accumulated_batches_count_as_if_no_pixel_was_ignored() -> None:
    data = make_data(draw_classes(3, (ROWS, SIZE, SIZE)), FLIPPED_BY_ROTATION)
    criterion, mask = make_criterion(data, [{"Conv2d": {"out_channels": 3, "kernel_size": 1}}]), augment_targets(data)
    output = torch.randn(len(mask), 3, SIZE, SIZE)
    parts, pieces = [], (slice(0, 5), slice(5, len(mask)))
    for rows in pieces:
        known_before = torch.tensor([float((rows.stop - rows.start) * SIZE * SIZE)], dtype=torch.float64)
        whole = torch.tensor([float(len(mask) * SIZE * SIZE)], dtype=torch.float64)
        part, loss = criterion.accumulate(output[rows], (mask[rows],), known_before, whole)
        torch.testing.assert_close(loss, criterion(output[rows], (mask[rows],)), check_dtype=False)
        parts.append(part)
    shares = [(rows.stop - rows.start) / len(mask) for rows in pieces]
    means = [criterion(output[rows], (mask[rows],)) for rows in pieces]
    expected = sum(share * mean for share, mean in zip(shares, means, strict=True))
    torch.testing.assert_close(sum(parts), expected, check_dtype=False)


def test_a_mask_of_flipped_images_has_no_ignored_pixels() -> None:
    data = make_data(draw_classes(2, (ROWS, SIZE, SIZE)), ["RandomHorizontalFlip"])
    criterion = make_criterion(data, [{"Conv2d": {"out_channels": 1, "kernel_size": 1}}])
    assert criterion.weigh((augment_targets(data),)) is None


class Dice(nn.Module):
    """A user's own loss, of rows of probabilities."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return 1 - 2 * (output * target).sum() / (output + target).sum()


def test_a_users_own_loss_gets_the_known_pixels(registered: None) -> None:
    data = make_data(draw_classes(3, (ROWS, SIZE, SIZE)), FLIPPED_BY_ROTATION)
    layers = [{"Conv2d": {"out_channels": 3, "kernel_size": 1}}, {"Softmax": 1}]
    criterion, mask = make_criterion(data, layers, "Dice"), augment_targets(data)
    output = torch.rand(len(mask), 3, SIZE, SIZE).softmax(1)
    rows, classes = output.movedim(1, -1)[mask != -100], mask[mask != -100]
    expected = Dice()(rows, functional.one_hot(classes, 3).float())
    torch.testing.assert_close(criterion(output, (mask,)), expected)
