"""A trained network's predictions for some samples of a split, for plots."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.data.dataset import Dataset, Split, Target
from dlspec.data.lazy_array import read_pictures, read_rows
from dlspec.network.module_state import find_device
from dlspec.network.random_state import preserve_random_state
from dlspec.plots.judged_plots import JudgedImages
from dlspec.training.criterion_interface import CriterionProtocol

MAX_SAMPLES = 4096
MAX_JUDGED = 1024  # samples among which the worst errors are searched for pictures
MAX_NUMBERS = 2**24  # predicted numbers to keep: fewer samples are used if they are large
Pair = tuple[Tensor, Tensor]  # (predictions, truth)


@dataclass(frozen=True)
class FlatPredictions:
    """Predictions and truth of targets, with one row per sample, time step or pixel, without padding."""

    # By target name. Predictions are the most probable classes, for two classes the probability of the second one, or
    # numbers in the target's unit.
    pairs: Mapping[str, Pair]
    samples: int  # the number of samples that the rows come from


@dataclass(frozen=True)
class SamplePredictions:
    """Inputs, predictions and truth of whole samples; the first dimension of each tensor is the sample."""

    inputs: Mapping[str, Tensor]  # by input name; images from 0 to 1
    predictions: Mapping[str, Tensor]  # by target name
    truth: Mapping[str, Tensor]  # by target name


@dataclass(frozen=True)
class PredictionView:
    """Predictions of a network for a split, as tensors on the CPU.

    From a large split, samples are taken at equal distances. The network runs in eval mode; afterwards its mode and
    PyTorch's random generators are restored.
    """

    name: Literal["test", "validation"]  # of the split
    network: nn.Module
    criterion: CriterionProtocol
    data: Dataset
    inputs: tuple[str, ...]  # names of the tensors that `network.forward` takes
    batches: Callable[[Split], BatchLoader]  # makes the batches of a split
    rows_name: str = ""  # names the samples in pictures; "" for the split's name

    @property
    def split(self) -> Split:
        """The split to predict."""
        return self.data.test if self.name == "test" else self.data.validation

    @property
    def targets(self) -> list[Target]:
        """The predicted targets, with the shape of one sample."""
        return [self.data.get_loss_target(each.name) or each for each in self.criterion.predicted_targets]

    def predict_flat(self, names: Collection[str]) -> FlatPredictions:
        """Predict the named targets for at most `MAX_SAMPLES` samples, as rows of samples, time steps or pixels."""
        pairs_by_target: dict[str, list[Pair]] = {name: [] for name in names}
        samples = numbers = 0
        with evaluation_mode(self.network):
            for inputs, targets in (
                self.batches(spread_samples(self.split, MAX_SAMPLES)).iterate_in_order() if pairs_by_target else ()
            ):
                for name, (predictions, truth) in self._predict_pairs(inputs, targets).items():
                    if name in pairs_by_target:
                        pairs_by_target[name].append((predictions.cpu(), truth.cpu()))
                        numbers += predictions.numel()
                samples += len(inputs[0])
                if numbers >= MAX_NUMBERS:
                    break
        return FlatPredictions({name: _concatenate_pairs(pairs) for name, pairs in pairs_by_target.items()}, samples)

    def _predict_pairs(self, inputs: Sequence[Tensor], targets: Sequence[Tensor]) -> dict[str, Pair]:
        pairs = self.criterion.make_metric_pairs(self.network(*inputs), tuple(targets))
        return {
            target.name: (_most_probable_class(predictions, target, 1), truth)
            for target, (predictions, truth, *_) in zip(self.criterion.predicted_targets, pairs, strict=True)
        }

    def predict_samples(self, count: int) -> SamplePredictions:
        """Predict whole samples, at most `count`, for example images or maps of classes."""
        split = spread_samples(self.split, count)
        with evaluation_mode(self.network):
            batch_predictions = [self._predict_batch(inputs) for inputs, _ in self.batches(split).iterate_in_order()]
        num_samples = sum(
            len(each) for batch in batch_predictions for each in list(batch.values())[:1]
        )  # fewer than `count` if trainer.limit_batches is small
        return SamplePredictions(
            {name: read_pictures(split.input(name), slice(num_samples)) for name in self.inputs},
            {each.name: torch.cat([batch[each.name] for batch in batch_predictions]) for each in self.targets},
            {
                each.name: _to_original_unit(split.get_loss_target(each.name)[:num_samples], each)
                for each in self.targets
            },
        )

    def judge_images(self, target: Target, input_name: str, count: int) -> JudgedImages:
        """Choose images to show: the worst errors, and some that are right.

        Args:
            target: a target with one class for each sample
            input_name: the input with the images
            count: how many images are chosen
        """
        split = spread_samples(self.split, MAX_JUDGED)
        with evaluation_mode(self.network):
            found = [self.predict_targets(inputs)[target.name].float().cpu()
                     for inputs, _ in self.batches(split).iterate_in_order()]  # fmt: skip
        by_class = torch.cat(found)
        by_class = torch.stack([1 - by_class, by_class], 1) if by_class.dim() == 1 else by_class
        probability, predicted = by_class.max(1)
        truth = read_rows(split.get_loss_target(target.name), slice(len(predicted))).cpu()
        is_known = truth >= 0
        wrong = ((predicted != truth) & is_known).nonzero()[:, 0]
        right = ((predicted == truth) & is_known).nonzero()[:, 0]
        worst = wrong[probability[wrong].argsort(descending=True, stable=True)][: count - min(count // 3, len(right))]
        others = right[torch.linspace(0, max(len(right) - 1, 0), min(count - len(worst), len(right))).long()]
        rows = torch.cat([worst, others])
        images = read_pictures(split.input(input_name), rows).cpu()
        return JudgedImages(images, predicted[rows], truth[rows], probability[rows], len(worst), len(wrong), len(truth))

    def predict_targets(self, inputs: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Predict each target from a batch of inputs on any device. Call it within `evaluation_mode`.

        Return predictions by target name: numbers, or the probabilities of classes (N, ..., K), for two classes the
        probability of the second one (N, ...).
        """
        device = find_device(self.network)
        return self.convert_output(self.network(*(each.to(device) for each in inputs)))

    def convert_output(self, output: Any) -> Mapping[str, Tensor]:
        """Convert what the network returns to predictions by target name."""
        predictions = self.criterion.predict(output)
        names = [each.name for each in self.criterion.predicted_targets]
        return {names[0]: predictions} if len(names) == 1 else predictions

    def _predict_batch(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Predict each target in the target's own shape: numbers, or the most probable classes."""
        predictions = self.predict_targets(inputs)
        return {
            each.name: _threshold_probabilities(
                _most_probable_class(predictions[each.name], each, 1 + len(each.shape)), each
            )
            for each in self.targets
        }


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Within this context, run the network in eval mode without gradients. Random generators are restored after it."""
    was_training, device = network.training, find_device(network)
    network.eval()
    try:
        with torch.inference_mode(), preserve_random_state(device):
            yield
    finally:
        network.train(was_training)


def spread_samples(split: Split, count: int) -> Split:
    """Select at most `count` samples at equal distances over the split, as it may be sorted by class."""
    if len(split) <= count:
        return split
    return split.take(torch.linspace(0, len(split) - 1, count, dtype=torch.float64).long())


def _most_probable_class(predictions: Tensor, target: Target, dims: int) -> Tensor:
    """Replace probabilities (with `dims` + 1 dimensions) by the most probable class; keep other predictions."""
    return predictions.argmax(-1) if target.kind == "classes" and predictions.dim() > dims else predictions


def _threshold_probabilities(predictions: Tensor, target: Target) -> Tensor:
    """Replace the probability of the second of two classes by a class. Move predictions to the CPU."""
    is_probability = target.kind == "classes" and predictions.is_floating_point()
    return ((predictions > 0.5).long() if is_probability else predictions).cpu()


def _to_original_unit(truth: Tensor, target: Target) -> Tensor:
    """Undo the scale of a target."""
    return truth if target.scale is None else target.scale.invert(truth)


def _concatenate_pairs(pairs: Sequence[Pair]) -> Pair:
    predictions, truth = zip(*pairs, strict=True)
    return torch.cat(predictions), torch.cat(truth)
