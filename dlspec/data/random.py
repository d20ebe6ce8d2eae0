"""Noise of any shape: a placeholder that tries a model without files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from dlspec.data.source import GIGABYTE, MOST_BYTES, Size, SplitSource, data_source
from dlspec.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlspec.data import dataset
    from dlspec.data.dataset import Dataset
    from dlspec.layouts import Layout

LAYOUT_OF_RANK: dict[int, Layout] = {1: "features", 2: "sequence"}
"""By a sample's rank; of a higher one it is channels-first."""


@data_source("random")
class Random(SplitSource):
    """Gaussian `input` of `shape`, or `input` tokens; the target `label` is random too, so nothing can be learned."""

    size: int = Field(1024, ge=1, description="how many samples, all splits together")
    num_classes: int | None = Field(None, ge=2, le=10**6, description="how many classes; null: the target is a number")
    shape: list[Size] | None = Field(None, description="a sample's shape, without the batch: [3, 32, 32]")
    vocab_size: int | None = Field(None, ge=1, le=2**31, description="for tokens: how many different ones")
    length: int | None = Field(None, ge=1, description="for tokens: how many a sample has")

    @model_validator(mode="after")
    def _one_kind_of_input(self) -> Random:
        tokens = (self.vocab_size is not None, self.length is not None)
        if not self.shape and not any(tokens):
            raise ValueError("says not what to make: data.shape=[3,32,32], or data.vocab_size=1000 data.length=50")
        if self.shape and any(tokens):
            raise ValueError("makes numbers of a shape or tokens, not both: for tokens add data.shape=null")
        if not self.shape and not all(tokens):
            raise ValueError("needs both vocab_size and length to make tokens: data.vocab_size=1000 data.length=50")
        return self

    def open(self) -> Dataset:
        """The same numbers for the same `split_seed`; over 4 GB is a `DataError`."""
        import numpy as np

        from dlspec.data.assembly import assemble

        self._check_bytes()
        generator = np.random.Generator(np.random.PCG64([self.split_seed, 1]))
        field, values = self._input(generator)
        target, labels = self._target(generator)
        parts = self.parts(self.size, self.test, labels if self.num_classes else None)
        return assemble(self.source_name, [field], target, {field.name: values}, labels, parts, {})

    def _check_bytes(self) -> None:
        each = 4 * math.prod(self.shape) if self.shape else 8 * (self.length or 1)
        if self.size * each <= MOST_BYTES:
            return
        found = f"{self.size:,} samples of {each:,} bytes are {self.size * each / GIGABYTE:,.1f} GB"
        most = MOST_BYTES // each
        fix = f"data.size={most}" if most else "a smaller data.shape or data.length"
        raise DataError("size", f"{found}; at most {MOST_BYTES // GIGABYTE} GB are made: try {fix}")

    def _input(self, generator: np.random.Generator) -> tuple[dataset.Field, NDArray[Any]]:
        import numpy as np

        from dlspec.data import dataset

        if self.vocab_size is None or self.length is None:
            shape = tuple(self.shape or ())
            layout = LAYOUT_OF_RANK.get(len(shape), "channels-first")
            numbers = generator.standard_normal((self.size, *shape), dtype=np.float32)
            return dataset.Field("input", shape, layout), numbers
        tokens = generator.integers(self.vocab_size, size=(self.size, self.length), dtype=np.int64)
        return dataset.Field("input", (self.length,), "tokens", vocab_size=self.vocab_size), tokens

    def _target(self, generator: np.random.Generator) -> tuple[dataset.Target, NDArray[Any]]:
        import numpy as np

        from dlspec.data import dataset

        if self.num_classes is None:
            return dataset.Target("label", "numbers"), generator.standard_normal(self.size, dtype=np.float32)
        classes = tuple(str(index) for index in range(self.num_classes))
        return dataset.Target("label", "classes", (), classes), generator.integers(self.num_classes, size=self.size)
