"""The predictions of batches, and consecutive ones joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PredictedBatch:
    """The predictions of one batch, on the CPU."""

    # By target: numbers in their unit, or probabilities of classes (N, ..., K), of two classes that of the second one
    # (N, ...). By output, as the network returns it, if no loss says what it predicts.
    values: Mapping[str, Tensor]
    rows: range  # of the samples


def join_batches(batches: Iterable[PredictedBatch], rows: int) -> Iterator[PredictedBatch]:
    """Yield consecutive batches as one, as long as their predictions have the same shape.

    Each batch is copied and released. Small tensors that are kept lie between the large ones that a forward pass
    allocates and frees, so that glibc may return and clear memory for each batch: 1.5 times the time of a small MLP.

    Args:
        batches: the predictions
        rows: the number of all samples
    """
    joined: dict[str, Tensor] = {}
    start = end = 0
    for batch in batches:
        if joined and not _fits(batch, joined):
            yield _take(joined, start, end)
            joined = {}
        if not joined:
            start = batch.rows.start
            joined = {name: each.new_empty((rows - start, *each.shape[1:])) for name, each in batch.values.items()}
        end = batch.rows.stop
        for name, each in batch.values.items():
            joined[name].narrow(0, batch.rows.start - start, len(batch.rows)).copy_(each)
    if joined:
        yield _take(joined, start, end)


def _fits(batch: PredictedBatch, joined: dict[str, Tensor]) -> bool:
    return all(each.shape[1:] == joined[name].shape[1:] for name, each in batch.values.items())


def _take(joined: dict[str, Tensor], start: int, end: int) -> PredictedBatch:
    return PredictedBatch({name: each[: end - start] for name, each in joined.items()}, range(start, end))
