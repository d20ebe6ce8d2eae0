"""The predictions of batches, and consecutive ones joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class PredictedBatch:
    """The predictions of one batch, on the CPU."""

    # By target: numbers in their unit, or probabilities of classes (N, ..., K), of two classes that of the second one
    # (N, ...). By output, as the network returns it, if no loss says what it predicts.
    values: Mapping[str, Tensor]
    rows: range  # of the samples


def convert_tensors(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Convert tensors on the CPU to arrays; NumPy has no bfloat16, so that becomes float32."""
    return {name: (each.float() if each.dtype == torch.bfloat16 else each).numpy() for name, each in tensors.items()}


def join_batches(batches: Iterable[Mapping[str, Tensor]], sizes: Sequence[int]) -> Iterator[PredictedBatch]:
    """Yield consecutive batches as one, as long as their predictions have the same shape.

    Each batch is copied and released. Small tensors that are kept lie between the large ones that a forward pass
    allocates and frees, so that glibc may return and clear memory for each batch: 1.5 times the time of a small MLP.

    Args:
        batches: the predictions of each batch
        sizes: the number of samples in each batch
    """
    joined: dict[str, Tensor] = {}
    parts: dict[str, Sequence[Tensor]] = {}  # of `joined`: where the first batch and those after it go
    first = 0
    for number, batch in enumerate(batches):
        if joined and _copy_batch(batch, parts, number - first):
            continue
        if joined:
            yield _take_batches(joined, sizes, first, number)
        first, rows = number, sum(sizes[number:])
        joined = {name: each.new_empty((rows, *each.shape[1:]), device="cpu") for name, each in batch.items()}
        parts = {name: torch.split(each, list(sizes[first:])) for name, each in joined.items()}
        _copy_batch(batch, parts, 0)
    if joined:
        yield _take_batches(joined, sizes, first, len(sizes))


def _copy_batch(batch: Mapping[str, Tensor], parts: Mapping[str, Sequence[Tensor]], position: int) -> bool:
    """Copy a batch to its part, and return whether it has the shape of that."""
    for name, each in batch.items():
        part = parts[name][position]
        if part.shape != each.shape:
            return False
        part.copy_(each)
    return True


def _take_batches(joined: Mapping[str, Tensor], sizes: Sequence[int], first: int, end: int) -> PredictedBatch:
    """Take the batches from `first` to `end`, which lie at the start of `joined`."""
    start, count = sum(sizes[:first]), sum(sizes[first:end])
    return PredictedBatch({name: each[:count] for name, each in joined.items()}, range(start, start + count))
