"""A part of a split as the trained network sees it: what pictures are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dlspec.data.batches.batches import Batches
from dlspec.data.dataset import Dataset, Split, Target
from dlspec.network.random_state import kept_random_state
from dlspec.training.protocols import Criterion

MOST_SAMPLES = 4096
MOST_NUMBERS = 2**24
"""Of large samples fewer are looked at: so many numbers are kept at most."""
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Rows:
    """For each target predictions and truth, a row a sample, step or pixel without padding, of so many `samples`.

    Of classes the predictions are the most probable ones, of two the probability of the second; numbers are in their
    own unit.
    """

    pairs: Mapping[str, Pair]
    samples: int


@dataclass(frozen=True)
class Samples:
    """Samples whole, a row each: what came in, by name; what is told and what is true, by target."""

    inputs: Mapping[str, Tensor]
    predictions: Mapping[str, Tensor]
    truth: Mapping[str, Tensor]


@dataclass(frozen=True)
class View:
    """The split called `name`, looked at with `network`; all tensors that it gives lie on the CPU.

    Where it is large, samples from its beginning to its end are taken. The network is looked at in eval mode and left
    as it was, and so are PyTorch's generators.
    """

    name: Literal["test", "validation"]
    network: nn.Module
    criterion: Criterion
    data: Dataset
    inputs: tuple[str, ...]
    batches: Callable[[Split], Batches]

    @property
    def split(self) -> Split:
        return self.data.test if self.name == "test" else self.data.validation

    @property
    def targets(self) -> list[Target]:
        """What is predicted, of the shape that a sample has."""
        return [self.data.compared(each.name) or each for each in self.criterion.predicted]

    def rows(self, names: Collection[str]) -> Rows:
        """The named targets' predictions and truth of at most `MOST_SAMPLES` samples."""
        found: dict[str, list[Pair]] = {name: [] for name in names}
        samples = numbers = 0
        with looking(self.network):
            for inputs, targets in self.batches(spread(self.split, MOST_SAMPLES)).in_order() if found else ():
                for name, (told, true) in self._judged(inputs, targets).items():
                    if name in found:
                        found[name].append((told.cpu(), true.cpu()))
                        numbers += told.numel()
                samples += len(inputs[0])
                if numbers >= MOST_NUMBERS:
                    break
        return Rows({name: _joined(pairs) for name, pairs in found.items()}, samples)

    def _judged(self, inputs: Sequence[Tensor], targets: Sequence[Tensor]) -> dict[str, Pair]:
        pairs = self.criterion.judged(self.network(*inputs), tuple(targets))
        return {
            target.name: (_answer(told, target, 1), true)
            for target, (told, true) in zip(self.criterion.predicted, pairs, strict=True)
        }

    def samples(self, count: int) -> Samples:
        """`count` samples whole, or as many as there are: images, and maps of the most probable classes."""
        split = spread(self.split, count)
        with looking(self.network):
            told = [self._told(inputs) for inputs, _ in self.batches(split).in_order()]
        seen = sum(len(each) for some in told for each in list(some.values())[:1])  # trainer.limit_batches may say less
        return Samples(
            {name: split.input(name)[:seen] for name in self.inputs},
            {each.name: torch.cat([some[each.name] for some in told]) for each in self.targets},
            {each.name: _in_its_unit(split.compared(each.name)[:seen], each) for each in self.targets},
        )

    def predicted(self, inputs: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """What the network says of each target: numbers, or probabilities (N, ..., K), (N, ...) of the second of two.

        To be called within `looking`; the inputs may lie anywhere.
        """
        device = next(self.network.parameters(), torch.empty(0)).device
        told = self.criterion.predict(self.network(*(each.to(device) for each in inputs)))
        names = [each.name for each in self.criterion.predicted]
        return {names[0]: told} if len(names) == 1 else told

    def _told(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the network says of each target, in the target's own shape."""
        told = self.predicted(inputs)
        return {each.name: _chosen(_answer(told[each.name], each, 1 + len(each.shape)), each) for each in self.targets}


@contextmanager
def looking(network: nn.Module) -> Iterator[None]:
    """Within it the network is in eval mode and no gradients are kept; what is drawn changes no generator."""
    was_training, device = network.training, next(network.parameters(), torch.empty(0)).device
    network.eval()
    try:
        with torch.inference_mode(), kept_random_state(device):
            yield
    finally:
        network.train(was_training)


def spread(split: Split, count: int) -> Split:
    """At most `count` of the split's samples, from its beginning to its end: it may be in the order of its classes."""
    if len(split) <= count:
        return split
    chosen = torch.linspace(0, len(split) - 1, count, dtype=torch.float64).long()

    def some(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: each[chosen] for name, each in tensors.items()}

    return Split(some(split.tensors), some(split.targets))


def _answer(told: Tensor, target: Target, dims: int) -> Tensor:
    """Of probabilities with one more than `dims` dimensions the most probable class; others are left as they are."""
    return told.argmax(-1) if target.kind == "classes" and told.dim() > dims else told


def _chosen(told: Tensor, target: Target) -> Tensor:
    """Classes instead of the probability of the second of two; on the CPU."""
    is_probability = target.kind == "classes" and told.is_floating_point()
    return ((told > 0.5).long() if is_probability else told).cpu()


def _in_its_unit(truth: Tensor, target: Target) -> Tensor:
    return truth if target.scale is None else truth * target.scale[1] + target.scale[0]


def _joined(pairs: Sequence[Pair]) -> Pair:
    told, true = zip(*pairs, strict=True)
    return torch.cat(told), torch.cat(true)
