"""A split handed out in batches without a wait in between.

Whole tensors lie on the device and a batch is gathered by one `index_select` per tensor: measured 1.39 times a
`DataLoader` at batch 32. What has no room there stays in the host's memory, and threads gather its batches ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, chain, repeat

import numpy as np
import torch
from torch import Tensor

from dlspec.data.batches.prefetching import Tensors, prefetch
from dlspec.data.batches.sequence_lengths import PaddingTrim, apply_windows
from dlspec.data.dataset import Split
from dlspec.layouts import Lengths

Batch = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""The network's inputs in the order of its `forward`, and what its outputs are compared with."""
NO_FEWEST_STEPS: Mapping[str, int] = {}
MAX_INPUT_NUMBERS, MAX_OUTPUT_NUMBERS = 2**20, 2**26
"""So many numbers at most go into an evaluation batch or come out of one of its layers; training's has its own size."""


@dataclass(frozen=True)
class BatchPlan:
    """How a split is cut into batches.

    At most `limit` batches are handed out; a last one of less than `smallest` samples joins the one before it. Where a
    field's lengths are among the inputs, its batches end at their longest sample, and so do the targets that `trims`
    names, but at the field's `fewest_steps` at least; `trim=False` leaves them whole, for a network that needs a fixed
    length further on. `dtype` is that of numbers, None as they are. `workers` are threads that gather the next batches
    in the host's memory, where the data stay then, while the device computes; the batches are the same.
    """

    batch_size: int
    limit: int | None = None
    min_batch_size: int = 1
    trim: bool = True
    trims: Mapping[str, PaddingTrim] = field(default_factory=dict)
    fewest_steps: Mapping[str, int] = field(default_factory=dict)
    dtype: torch.dtype | None = None
    workers: int = 0


class BatchLoader:
    """A split's batches on a device; `inputs` and `targets` name the tensors of a batch, in order.

    Lengths lie on the same device as everything else.
    """

    def __init__(
        self, split: Split, inputs: Sequence[str], targets: Sequence[str], plan: BatchPlan, device: torch.device
    ) -> None:
        tensors = [*(split.input(name) for name in inputs), *(split.get_loss_target(name) for name in targets)]
        storage_device = torch.device("cpu") if plan.workers else device
        self.tensors = tuple(
            move_to_device(each.to(plan.dtype) if each.is_floating_point() else each, storage_device)
            for each in tensors
        )
        self.sizes = compute_batch_sizes(len(split), plan.batch_size, plan.min_batch_size)[: plan.limit]
        self.samples = sum(self.sizes)
        self._input_count = len(inputs)
        self._split_size = len(split)
        self._device, self._storage_device, self._workers = device, storage_device, plan.workers
        self._fewest_steps = plan.fewest_steps
        self._trims = _find_trims(split, inputs, targets, plan.trims) if plan.trim else {}

    def __len__(self) -> int:
        return len(self.sizes)

    def iterate_shuffled(self, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from `start` on. Their order depends on nothing but (seed, epoch)."""
        order = make_permutation(self._split_size, seed, epoch)[: self.samples]
        rows = torch.split(order.to(self._storage_device), self.sizes)
        pieces = zip(rows[start:], self._trim_tensors(order, start), strict=False)
        return self._run_tasks(partial(_gather_rows, tensors, batch) for batch, tensors in pieces)

    def iterate_in_order(self) -> Iterator[Batch]:
        """Every batch, in the split's own order, as views: nothing is copied."""
        order = torch.arange(self.samples)
        pieces = zip(self.sizes, accumulate(self.sizes), self._trim_tensors(order), strict=False)
        return self._run_tasks(partial(_slice_rows, tensors, end - size, end) for size, end, tensors in pieces)

    def _run_tasks(self, tasks: Iterable[Callable[[], Tensors]]) -> Iterator[Batch]:
        inputs = self._input_count
        for tensors in prefetch(tasks, self._workers, self._device) if self._workers else (task() for task in tasks):
            yield tensors[:inputs], tensors[inputs:]

    def make_longest_batch(self, rows: int) -> Batch:
        """So many samples with the most steps; the first ones where all have the same number."""
        order = torch.arange(rows)
        if self._trims:
            steps = torch.stack([lengths for lengths, _ in self._trims.values()]).sum(0)
            order = steps.argsort(descending=True)[:rows]
        tensors = list(self.tensors)
        for index, (lengths, trim) in self._trims.items():
            tensors[index] = tensors[index].narrow(trim.dim, 0, self._count_kept_steps(int(lengths[order].max()), trim))
        return next(self._run_tasks([partial(_gather_rows, tuple(tensors), order.to(self._storage_device))]))

    def _trim_tensors(self, order: Tensor, start: int = 0) -> Iterator[Tensors]:
        """For each batch from `start` on, the whole tensors cut to the longest sample that it will hold."""
        if not self._trims:
            return repeat(self.tensors)
        # Found on the host for the whole epoch at once, from a copy of the lengths: a step never waits for the device.
        longest = {index: self._count_steps(order, *cut) for index, cut in self._trims.items()}
        return (
            tuple(
                tensor.narrow(self._trims[index][1].dim, 0, longest[index][batch]) if index in longest else tensor
                for index, tensor in enumerate(self.tensors)
            )
            for batch in range(start, len(self.sizes))
        )

    def _count_steps(self, order: Tensor, lengths: Tensor, trim: PaddingTrim) -> list[int]:
        """How many steps each batch keeps of a tensor."""
        return [self._count_kept_steps(longest, trim) for longest in _find_longest(lengths[order], self.sizes)]

    def _count_kept_steps(self, longest: int, trim: PaddingTrim) -> int:
        """How many steps a batch keeps of a tensor whose longest sample has so many."""
        return apply_windows(max(longest, self._fewest_steps.get(trim.lengths.field, 1)), trim.lengths.windows)


def _gather_rows(tensors: Tensors, rows: Tensor) -> Tensors:
    return tuple([each.index_select(0, rows) for each in tensors])


def _slice_rows(tensors: Tensors, start: int, end: int) -> Tensors:
    return tuple([each[start:end] for each in tensors])


def move_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device, row after row; windows that overlap stay views of their one long tensor."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    if tensor.numel() <= max(reach, 0):
        return tensor.to(device).contiguous()
    # Copied as they are, a million windows of 64 that begin one token apart would take half a gigabyte, not 8 MB.
    return tensor.as_strided((reach,), (1,)).to(device).as_strided(tensor.shape, tensor.stride())


def compute_batch_sizes(samples: int, batch_size: int, min_batch_size: int = 1) -> list[int]:
    """`[32, 32, 6]` for 70 samples in batches of 32; a last one of less than `smallest` joins the one before."""
    whole, rest = divmod(samples, batch_size)
    sizes = [batch_size] * whole
    if 0 < rest < min_batch_size and sizes:
        sizes[-1] += rest
    elif rest:
        sizes.append(rest)
    return sizes


def make_permutation(samples: int, seed: int, epoch: int) -> Tensor:
    """An order of the samples, on the CPU, that depends on `seed` and `epoch` alone."""
    generator = torch.Generator()
    # The generator keeps 32 bits of its seed. The factor keeps (0, epoch 1) and (1, epoch 0) apart.
    generator.manual_seed((seed * 1_000_003 + epoch) % 2**32)
    return torch.randperm(samples, generator=generator)


def choose_evaluation_batch_size(
    split: Split, inputs: Sequence[str], batch_size: int, device: torch.device, max_layer_outputs: int = 0
) -> int:
    """An evaluation batch: larger than training's, as no activations are kept; about a million input numbers at most.

    `widest` is the most numbers that a layer gives for a sample: a language model gives its whole vocabulary for every
    step. On a CPU 256 samples are enough, and larger activations only leave the caches.
    """
    if not len(split):
        return batch_size
    numbers = sum(split.input(name)[0].numel() for name in inputs)
    max_samples = 256 if device.type == "cpu" else 1024
    return max(
        batch_size,
        min(max_samples, MAX_INPUT_NUMBERS // max(numbers, 1), MAX_OUTPUT_NUMBERS // max(max_layer_outputs, 1)),
    )


def _find_trims(
    split: Split, inputs: Sequence[str], targets: Sequence[str], trims: Mapping[str, PaddingTrim]
) -> dict[int, tuple[Tensor, PaddingTrim]]:
    """By a tensor's position in a batch the CPU's copy of the lengths that it is cut by, and where."""
    trim_by_position = [PaddingTrim(Lengths(name), 1) for name in inputs] + [trims.get(name) for name in targets]
    pairs = (
        (index, each, f"{each.lengths.field}_lengths")
        for index, each in enumerate(trim_by_position)
        if each is not None
    )
    return {index: (split.tensors[name].cpu(), each) for index, each, name in pairs if name in inputs}


def _find_longest(lengths: Tensor, sizes: Sequence[int]) -> list[int]:
    """The largest length in each batch, at least 1: no layer takes a sequence of no steps."""
    if not sizes:
        return []
    starts = list(accumulate(chain([0], sizes[:-1])))
    longest: list[int] = np.maximum(np.maximum.reduceat(lengths.numpy(), starts), 1).tolist()
    return longest
