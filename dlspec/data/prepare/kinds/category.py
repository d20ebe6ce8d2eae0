"""The kind `category`: one of the training rows' categories, as one-hot features or as tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat, list_cells
from dlspec.data.prepare.kinds.kind import (
    COLUMN_KINDS,
    ColumnKind,
    Encoded,
    FittedColumn,
    Role,
    Rows,
    register_kind,
    register_saved,
)
from dlspec.data.prepare.kinds.saved_values import SavedValues
from dlspec.data.prepare.kinds.setting_lines import format_drop_line
from dlspec.data.prepare.vocabulary import PADDING, RESERVED, UNKNOWN
from dlspec.errors import Code, DataError

if TYPE_CHECKING:
    from torch import nn

MAX_CATEGORIES = 10_000_000
MAX_ONE_HOTS = 10_000  # wider ones take too much memory; tokens with an embedding do not
MISSING, UNKNOWN_NAME = "missing", "unknown"
Tokens = NDArray[np.int64]


@register_kind("category", COLUMN_KINDS)
class Category(ColumnKind):
    """One of several categories: one-hot features, or tokens where the column has a field of its own."""

    role: ClassVar[Role] = "features"

    min_count: int = Field(1, ge=1, description="categories that are rarer than this in training are unknown")
    max_values: int = Field(1_000, ge=1, le=MAX_CATEGORIES, description="keep the most frequent categories")
    hash: int | None = Field(None, ge=1, le=MAX_CATEGORIES, description="share this many tokens among the others")

    @override
    def fit(self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = "") -> FittedCategory:
        cells = list_cells(column[training])
        counts = {cell: count for cell, count in Counter(cells).items() if cell is not None}
        if not counts:
            found = f"the column '{name}' is empty in the training rows"
            raise DataError(name, f"{found}; leave it out: {format_drop_line(name)}", Code.BAD_DATA)
        frequent = sorted((-count, cell) for cell, count in counts.items() if count >= self.min_count)
        kept = tuple(cell for _, cell in frequent[: self.max_values])
        if not kept and self.hash is None:
            found = f"no category of '{name}' occurs {self.min_count:,} times in the training rows"
            raise DataError(name, f"{found}; lower min_count to at most {max(counts.values()):,}", Code.BAD_DATA)
        has_rest = self.hash is None and len(kept) < len(counts)
        return FittedCategory(kept, self.hash or 0, has_missing=None in cells, has_unknown=has_rest)


@register_saved("category")
@dataclass(frozen=True)
class FittedCategory(FittedColumn):
    """The categories with an id. Id 0 is a missing cell (and padding), 1 an unknown category.

    One-hot features leave out the ids that training does not have: those cells are zeros only.
    """

    categories: tuple[str, ...]  # in the order of their ids, from 2: most frequent first
    buckets: int  # ids after those of the categories, shared by all other categories; 0: these are unknown
    has_missing: bool  # whether training has missing cells
    has_unknown: bool  # whether training has categories that are not among `categories`

    @property
    def vocab_size(self) -> int:
        return RESERVED + len(self.categories) + self.buckets

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.has_missing + self.has_unknown + len(self.categories) + self.buckets,)

    @property
    def feature_names(self) -> tuple[str, ...]:
        reserved = [MISSING] * self.has_missing + [UNKNOWN_NAME] * self.has_unknown
        return (*reserved, *self.categories, *(f"hash {number}" for number in range(self.buckets)))

    def read(self, column: NDArray[Any]) -> Tokens:
        """Convert cells to ids (N,): the tokens of a field, and what `module()` takes."""
        ids: dict[str | None, int] = {cell: number for number, cell in enumerate(self.categories, RESERVED)}
        ids[None] = PADDING
        cells = list_cells(column)
        if self.buckets:
            ids |= {cell: self._choose_bucket(cell) for cell in set(cells) if cell is not None and cell not in ids}
        return np.fromiter(map(ids.get, cells, repeat(UNKNOWN)), np.int64, len(cells))

    def _choose_bucket(self, cell: str) -> int:
        return RESERVED + len(self.categories) + crc32(cell.encode()) % self.buckets

    def apply(self, column: NDArray[Any]) -> Encoded:
        """Encode cells as one-hot features (N, W); DataError where W is above 10,000."""
        self._check_width()
        tokens = self.read(column)
        table = np.zeros((self.vocab_size, *self.shape), np.float32)
        table[self._list_kept_ids(), np.arange(self.shape[0])] = 1
        return Encoded(table[tokens], notes=self._count_new(tokens))

    def encode_tokens(self, column: NDArray[Any]) -> Encoded:
        """Encode cells as tokens (N, 1), for a field of their own."""
        tokens = self.read(column)
        return Encoded(tokens[:, None], notes=self._count_new(tokens))

    def _list_kept_ids(self) -> list[int]:
        """List the ids that have a one-hot feature."""
        reserved = [PADDING] * self.has_missing + [UNKNOWN] * self.has_unknown
        return [*reserved, *range(RESERVED, self.vocab_size)]

    def _count_new(self, tokens: Tokens) -> dict[str, int]:
        unknown = 0 if self.has_unknown else int((tokens == UNKNOWN).sum())
        missing = 0 if self.has_missing else int((tokens == PADDING).sum())
        return {key: count for key, count in (("unknown", unknown), ("missing", missing)) if count}

    def _check_width(self) -> None:
        if self.shape[0] > MAX_ONE_HOTS:
            found = f"{self.shape[0]:,} categories are more than {MAX_ONE_HOTS:,} one-hot features"
            fix = f"give the column a field of its own, or lower max_values to at most {MAX_ONE_HOTS - RESERVED:,}"
            raise DataError("", f"{found}; {fix}", Code.TOO_LARGE)

    def module(self) -> nn.Module:
        from dlspec.data.prepare.kinds.modules import OneHotModule

        return OneHotModule(self.vocab_size, self._list_kept_ids())

    def to_json(self) -> dict[str, Any]:
        flags = {"has_missing": self.has_missing, "has_unknown": self.has_unknown}
        return {"kind": self.kind, "categories": list(self.categories), "buckets": self.buckets, **flags}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedCategory:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, ("categories", "buckets", "has_missing", "has_unknown"))
        flags = (values.get_flag("has_missing"), values.get_flag("has_unknown"))
        categories = values.get_texts("categories", MAX_CATEGORIES)
        return cls(categories, values.get_integer("buckets", 0, MAX_CATEGORIES), *flags)
