"""Arrays whose rows are read when a batch needs them, beside tensors that are in memory as a whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

MAX_CHECKED_ROWS = 2  # of a lazy array, where a check would need all values: reading all files takes too long


class Digest(Protocol):
    """A hash in the making, as `hashlib` returns it."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""


class MapTasks(Protocol):
    """Calls a function with each item and yields the results in order, as `map` and `Executor.map` do."""

    def __call__(self, task: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[Any]:
        """Call `task` with each item."""


class LazyArray(ABC):
    """An array whose rows are read when a batch needs them, such as images in files.

    Rows are read as compact values on the CPU (`gather`), and become what a network takes by `module`, on any device.
    The first dimension counts the samples; `shape` and `dtype` are those of the prepared values.
    """

    shape: tuple[int, ...]  # (N, C, H, W) for images, (N, H, W) for masks
    dtype: torch.dtype  # float32 for images, int64 for masks

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def gather(self, rows: Tensor, map_tasks: MapTasks = map) -> Tensor:
        """Read some rows. Several threads may call this at once.

        Args:
            rows: their indices (n,), int64, on the CPU; n may be 0
            map_tasks: runs one task for each file; `map` runs them one after another, an executor's in its threads

        Returns:
            Compact values on the CPU, at the stored size: images as uint8 or float32 in [0, 1], masks as integers.

        Raises:
            DataError: if a file can't be read.
        """

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """A module without parameters that prepares compact values, or what an augmentation made of them."""

    @abstractmethod
    def update_hash(self, digest: Digest) -> None:
        """Add the content of all rows to a hash: of what the files contain, not of their names or times."""

    def select(self, rows: slice | Tensor) -> LazyArray:
        """Select some samples without reading them: a slice, or those with these indices (int64)."""
        return SelectedRows(self, torch.arange(len(self))[rows.cpu() if isinstance(rows, Tensor) else rows])

    @torch.no_grad()
    def __getitem__(self, rows: int | slice | Tensor) -> Tensor:
        """Read and prepare some rows on the CPU."""
        indices = torch.arange(len(self))[rows.cpu() if isinstance(rows, Tensor) else rows]
        values: Tensor = self.module(self.gather(indices.reshape(-1)))
        return values if indices.dim() else values[0]


class SelectedRows(LazyArray):
    """Some rows of a lazy array."""

    def __init__(self, array: LazyArray, rows: Tensor) -> None:
        self._array, self._rows = array, rows
        self.shape, self.dtype = (len(rows), *array.shape[1:]), array.dtype

    def gather(self, rows: Tensor, map_tasks: MapTasks = map) -> Tensor:
        """Read some rows."""
        return self._array.gather(self._rows[rows], map_tasks)

    @property
    def module(self) -> nn.Module:
        """The module of the whole array."""
        return self._array.module

    def update_hash(self, digest: Digest) -> None:
        """Add the content of the whole array, and which rows these are."""
        self._array.update_hash(digest)
        digest.update(self._rows.numpy().tobytes())

    def select(self, rows: slice | Tensor) -> LazyArray:
        """Select some of these rows."""
        return SelectedRows(self._array, self._rows[rows.cpu() if isinstance(rows, Tensor) else rows])


class InMemoryArray(LazyArray):
    """Compact values in memory that are prepared batch by batch.

    Args:
        values: compact values (N, ...)
        module: prepares them
    """

    def __init__(self, values: Tensor, module: nn.Module) -> None:
        self._values, self._module = values, module
        prepared = module(values[:1]) if len(values) else module(values.new_zeros(1, *values.shape[1:]))
        self.shape, self.dtype = (len(values), *prepared.shape[1:]), prepared.dtype

    def gather(self, rows: Tensor, map_tasks: MapTasks = map) -> Tensor:
        """Copy some rows."""
        return self._values.index_select(0, rows)

    @property
    def module(self) -> nn.Module:
        """The module that prepares rows."""
        return self._module

    def update_hash(self, digest: Digest) -> None:
        """Add the values."""
        digest.update(self._values.contiguous().numpy().tobytes())


Values = Tensor | LazyArray  # a field or target of a split


def make_values(values: NDArray[Any] | LazyArray) -> Values:
    """Make a tensor of an array; a lazy array stays lazy."""
    return values if isinstance(values, LazyArray) else torch.from_numpy(np.ascontiguousarray(values))


def select_rows(values: Values, rows: slice | Tensor) -> Values:
    """Select some rows: a slice, or those with these indices (int64). Nothing is read of a lazy array."""
    return values.select(rows) if isinstance(values, LazyArray) else values[rows]


def read_rows(values: Values, rows: slice | Tensor = slice(None)) -> Tensor:
    """Read some rows, or all, as the network takes them."""
    is_all = isinstance(rows, slice) and rows == slice(None)
    return values if isinstance(values, Tensor) and is_all else values[rows]


def read_pictures(values: Values, rows: slice | Tensor) -> Tensor:
    """Read some rows for a picture: images from 0 to 1, whatever scale the network takes."""
    read = read_rows(values, rows)
    undo_scale = getattr(values.module, "undo_scale", None) if isinstance(values, LazyArray) else None
    pictures: Tensor = read if undo_scale is None else undo_scale(read)
    return pictures


def read_rows_to_check(values: Values) -> Tensor:
    """Read what checks look at: all rows of a tensor, but only the first ones of a lazy array."""
    return values[:MAX_CHECKED_ROWS] if isinstance(values, LazyArray) else values


def get_tensor(values: Values) -> Tensor:
    """Return a tensor itself; of a lazy array its place in a batch before its rows are read: a tensor (N, 0)."""
    return torch.empty(len(values), 0) if isinstance(values, LazyArray) else values
