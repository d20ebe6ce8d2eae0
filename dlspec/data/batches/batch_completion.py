"""Complete batches: read the rows of lazy arrays ahead in threads, augment them, and prepare them on the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dlspec.data.batches.decoder_threads import open_decoders
from dlspec.data.batches.prefetching import Batch, Tensors, prefetch
from dlspec.data.dataset import Augmentation
from dlspec.data.lazy_array import LazyArray, MapTasks, Values

READING_THREADS = 2  # batches that are read at once: the decoders have work while the last files of one are decoded
MAX_BYTES_AHEAD = 2**28  # of compact values that are read before the step that needs them


@dataclass(frozen=True)
class BatchDraws:
    """What the random changes of the batches of an epoch depend on."""

    seed: int
    epoch: int
    start: int  # number of the first batch


class LazyBatches:
    """Puts the rows of lazy arrays into batches that were gathered without them.

    Args:
        values: inputs and targets in the order of a batch
        device: where batches are prepared
        workers: threads that decode files; 0 for one on each core
    """

    def __init__(self, values: Sequence[Values], device: torch.device, workers: int) -> None:
        self._arrays = {index: each for index, each in enumerate(values) if isinstance(each, LazyArray)}
        self._modules = {index: deepcopy(each.module).to(device) for index, each in self._arrays.items()}
        self._device, self._workers = device, workers

    def __bool__(self) -> bool:
        return bool(self._arrays)

    def read(self, batches: Iterable[Batch], rows: Iterable[Tensor]) -> Iterator[Batch]:
        """Put compact values in place of what batches have at the positions of lazy arrays.

        Files are read ahead in threads; an error of a file is raised at the batch that needs it.

        Args:
            batches: the batches, in order
            rows: for each batch the indices of its samples (n,), on the CPU
        """
        decoders = open_decoders(self._workers)
        tasks = (partial(self._gather, each, decoders.map) for each in rows)
        ahead = prefetch(tasks, READING_THREADS, self._device, MAX_BYTES_AHEAD)
        try:
            for (inputs, targets), values in zip(batches, ahead, strict=True):
                yield self._replace(inputs, targets, values)
        finally:  # of an epoch, or after an error or a signal: no file is decoded any more, so that nobody waits
            decoders.shutdown(wait=False, cancel_futures=True)
            ahead.close()
            decoders.shutdown()

    def _replace(self, inputs: Tensors, targets: Tensors, values: Sequence[Tensor]) -> Batch:
        """Put tensors in place of the lazy arrays of a batch."""
        tensors = [*inputs, *targets]
        for index, each in zip(self._arrays, values, strict=True):
            tensors[index] = each
        return tuple(tensors[: len(inputs)]), tuple(tensors[len(inputs) :])

    def _gather(self, rows: Tensor, map_tasks: MapTasks) -> Tensors:
        """Read the rows of each lazy array; an array that is both input and target is read once."""
        read = {each: each.gather(rows, map_tasks) for each in dict.fromkeys(self._arrays.values())}
        return tuple(read[each] for each in self._arrays.values())

    @torch.no_grad()
    def prepare(self, batch: Batch) -> Batch:
        """Prepare the compact values of a batch."""
        inputs, targets = batch
        tensors = (*inputs, *targets)
        return self._replace(inputs, targets, [module(tensors[index]) for index, module in self._modules.items()])


@dataclass(frozen=True)
class BatchCompletion:
    """What happens to batches after they were gathered.

    Batches of tensors that are not augmented pass unchanged.
    """

    inputs: Sequence[str]
    targets: Sequence[str]
    lazy: LazyBatches
    augmentation: Augmentation | None
    dtype: torch.dtype | None  # of floating-point tensors; None keeps theirs

    @property
    def is_empty(self) -> bool:
        """Whether all batches pass unchanged."""
        return not self.lazy and self.augmentation is None

    def complete(
        self, batches: Iterator[Batch], rows: Iterable[Tensor], draws: BatchDraws | None = None
    ) -> Iterator[Batch]:
        """Read, augment and prepare batches.

        Args:
            batches: the batches, with any tensors in place of lazy arrays
            rows: for each batch the indices of its samples (n,), on the CPU
            draws: what augmentations are drawn from; None for batches that are not augmented
        """
        is_augmented = self.augmentation is not None and draws is not None
        if not self.lazy and not is_augmented:
            return batches
        batches = self.lazy.read(batches, rows) if self.lazy else batches
        if self.augmentation is not None and draws is not None:
            batches = self._augment(self.augmentation, batches, draws)
        return (self._convert(self.lazy.prepare(each)) for each in batches)

    def _augment(self, augmentation: Augmentation, batches: Iterator[Batch], draws: BatchDraws) -> Iterator[Batch]:
        for number, (inputs, targets) in enumerate(batches, draws.start):
            inputs_by_name = dict(zip(self.inputs, inputs, strict=True))
            targets_by_name = dict(zip(self.targets, targets, strict=True))
            with torch.no_grad():
                changed = augmentation(inputs_by_name, targets_by_name, draws.seed, draws.epoch, number)
            yield tuple(changed[0][name] for name in self.inputs), tuple(changed[1][name] for name in self.targets)

    def _convert(self, batch: Batch) -> Batch:
        """Convert floating-point tensors to the dtype of the run."""
        dtype = self.dtype
        if dtype is None:
            return batch
        inputs, targets = (
            tuple(each.to(dtype) if each.is_floating_point() else each for each in tensors) for tensors in batch
        )
        return inputs, targets
