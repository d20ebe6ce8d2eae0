"""The order of the samples in an epoch: random, balanced over classes, or in batches of similar length.

It depends only on the seed and the epoch, so that a run resumes within an epoch without any state of its batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

WINDOW_BATCHES = 50  # sorted by length together: larger windows have less padding, smaller ones more random batches


def make_balanced_order(classes: Tensor, seed: int, epoch: int) -> Tensor:
    """Draw as many samples as there are, the same number of each class; no sample is drawn again before all others.

    Args:
        classes: class of each sample (N,)
        seed: seed of the run
        epoch: number of the epoch

    Returns:
        The sample indices (N,), on the CPU.
    """
    generator = np.random.Generator(np.random.PCG64([seed, epoch, 1]))
    numbers = classes.cpu().numpy()
    present = np.unique(numbers)
    counts = np.full(len(present), len(numbers) // len(present))
    counts[generator.permutation(len(present))[: len(numbers) % len(present)]] += 1
    drawn = [_draw(np.flatnonzero(numbers == each), int(count), generator)
             for each, count in zip(present, counts, strict=True)]  # fmt: skip
    return torch.from_numpy(generator.permutation(np.concatenate(drawn)))


def _draw(rows: np.ndarray[tuple[int], np.dtype[np.int64]], count: int, generator: np.random.Generator) -> np.ndarray[
    tuple[int], np.dtype[np.int64]
]:  # fmt: skip
    rounds = -(-count // len(rows))
    drawn: np.ndarray[tuple[int], np.dtype[np.int64]] = np.concatenate(
        [generator.permutation(rows) for _ in range(rounds)]
    )[:count]
    return drawn


def sort_into_buckets(order: Tensor, lengths: Tensor, sizes: Sequence[int], seed: int, epoch: int) -> Tensor:
    """Rearrange an order so that each batch has samples of similar length, and batches come in random order.

    A last batch of another size keeps its samples.

    Args:
        order: the sample indices in random order (N,)
        lengths: length of each sample of the split
        sizes: the sizes of the batches
        seed: seed of the run
        epoch: number of the epoch

    Returns:
        The same indices in another order.
    """
    generator = np.random.Generator(np.random.PCG64([seed, epoch, 2]))
    whole = len(sizes) - (len(sizes) > 1 and sizes[-1] != sizes[0])
    rows, by_sample = order.numpy(), lengths.cpu().numpy()
    ends = [0, *accumulate(sizes)]
    pieces = []
    for first in range(0, whole, WINDOW_BATCHES):
        last = min(first + WINDOW_BATCHES, whole)
        window = rows[ends[first] : ends[last]]
        window = window[np.argsort(by_sample[window], kind="stable")]
        batches = window.reshape(last - first, -1)
        pieces.append(batches[generator.permutation(len(batches))].ravel())
    return torch.from_numpy(np.concatenate([*pieces, rows[ends[whole] :]]))
