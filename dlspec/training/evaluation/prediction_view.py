"""A part of a split as the trained network sees it: what pictures are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.data.dataset import Dataset, Split, Target
from dlspec.network.random_state import preserve_random_state
from dlspec.training.criterion_interface import CriterionProtocol

MAX_SAMPLES = 4096
MAX_NUMBERS = 2**24
"""Of large samples fewer are looked at: so many numbers are kept at most."""
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class FlatPredictions:
    """For each target predictions and truth, a row a sample, step or pixel without padding, of so many `samples`.

    Of classes the predictions are the most probable ones, of two the probability of the second; numbers are in their
    own unit.
    """

    pairs: Mapping[str, Pair]
    samples: int


@dataclass(frozen=True)
class SamplePredictions:
    """Samples whole, a row each: what came in, by name; what is told and what is true, by target."""

    inputs: Mapping[str, Tensor]
    predictions: Mapping[str, Tensor]
    truth: Mapping[str, Tensor]


@dataclass(frozen=True)
class PredictionView:
    """The split called `name`, looked at with `network`; all tensors that it gives lie on the CPU.

    Where it is large, samples from its beginning to its end are taken. The network is looked at in eval mode and left
    as it was, and so are PyTorch's generators.
    """

    name: Literal["test", "validation"]
    network: nn.Module
    criterion: CriterionProtocol
    data: Dataset
    inputs: tuple[str, ...]
    batches: Callable[[Split], BatchLoader]

    @property
    def split(self) -> Split:
        return self.data.test if self.name == "test" else self.data.validation

    @property
    def targets(self) -> list[Target]:
        """What is predicted, of the shape that a sample has."""
        return [self.data.get_loss_target(each.name) or each for each in self.criterion.predicted_targets]

    def predict_flat(self, names: Collection[str]) -> FlatPredictions:
        """The named targets' predictions and truth of at most `MAX_SAMPLES` samples."""
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
            for target, (predictions, truth) in zip(self.criterion.predicted_targets, pairs, strict=True)
        }

    def predict_samples(self, count: int) -> SamplePredictions:
        """`count` samples whole, or as many as there are: images, and maps of the most probable classes."""
        split = spread_samples(self.split, count)
        with evaluation_mode(self.network):
            batch_predictions = [self._predict_batch(inputs) for inputs, _ in self.batches(split).iterate_in_order()]
        num_samples = sum(
            len(each) for batch in batch_predictions for each in list(batch.values())[:1]
        )  # trainer.limit_batches may say less
        return SamplePredictions(
            {name: split.input(name)[:num_samples] for name in self.inputs},
            {each.name: torch.cat([batch[each.name] for batch in batch_predictions]) for each in self.targets},
            {
                each.name: _to_original_unit(split.get_loss_target(each.name)[:num_samples], each)
                for each in self.targets
            },
        )

    def predict_targets(self, inputs: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """What the network says of each target: numbers, or probabilities (N, ..., K), (N, ...) of the second of two.

        To be called within `looking`; the inputs may lie anywhere.
        """
        device = next(self.network.parameters(), torch.empty(0)).device
        predictions = self.criterion.predict(self.network(*(each.to(device) for each in inputs)))
        names = [each.name for each in self.criterion.predicted_targets]
        return {names[0]: predictions} if len(names) == 1 else predictions

    def _predict_batch(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the network says of each target, in the target's own shape."""
        predictions = self.predict_targets(inputs)
        return {
            each.name: _threshold_probabilities(
                _most_probable_class(predictions[each.name], each, 1 + len(each.shape)), each
            )
            for each in self.targets
        }


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Within it the network is in eval mode and no gradients are kept; what is drawn changes no generator."""
    was_training, device = network.training, next(network.parameters(), torch.empty(0)).device
    network.eval()
    try:
        with torch.inference_mode(), preserve_random_state(device):
            yield
    finally:
        network.train(was_training)


def spread_samples(split: Split, count: int) -> Split:
    """At most `count` of the split's samples, from its beginning to its end: it may be in the order of its classes."""
    if len(split) <= count:
        return split
    chosen = torch.linspace(0, len(split) - 1, count, dtype=torch.float64).long()

    def select_samples(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: each[chosen] for name, each in tensors.items()}

    return Split(select_samples(split.tensors), select_samples(split.targets))


def _most_probable_class(predictions: Tensor, target: Target, dims: int) -> Tensor:
    """Of probabilities with one more than `dims` dimensions the most probable class; others are left as they are."""
    return predictions.argmax(-1) if target.kind == "classes" and predictions.dim() > dims else predictions


def _threshold_probabilities(predictions: Tensor, target: Target) -> Tensor:
    """Classes instead of the probability of the second of two; on the CPU."""
    is_probability = target.kind == "classes" and predictions.is_floating_point()
    return ((predictions > 0.5).long() if is_probability else predictions).cpu()


def _to_original_unit(truth: Tensor, target: Target) -> Tensor:
    return truth if target.scale is None else truth * target.scale[1] + target.scale[0]


def _concatenate_pairs(pairs: Sequence[Pair]) -> Pair:
    predictions, truth = zip(*pairs, strict=True)
    return torch.cat(predictions), torch.cat(truth)
