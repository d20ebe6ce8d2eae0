"""Kinds of columns: their settings, what is fitted on the training rows, and the registries of their names.

A kind's settings are what a spec writes: `zip: category`, `age: {number: {scale: quantile}}`. `fit` reads all rows but
takes statistics from training rows alone, and returns a `FittedColumn`, which encodes any rows and is saved as JSON.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat, find_missing
from dlspec.data.prepare.kinds.saved_values import make_saved_error
from dlspec.errors import format_value, suggest
from dlspec.layouts import Layout
from dlspec.parts.registry import Registry, describe_as_class_itself

if TYPE_CHECKING:
    from torch import nn

Role = Literal["features", "field", "target"]
Rows = NDArray[np.int64]
IGNORED = -100  # the class of a step or sample without one: PyTorch's `ignore_index`


@dataclass(frozen=True)
class Encoded:
    """A column as the network takes it."""

    # An array: (N, W) float32 features, (N,) int64 classes, (N, T) int64 tokens, ...; or a `LazyArray` of samples that
    # are read batch by batch, for a field of its own or a target.
    values: Any
    lengths: NDArray[np.int64] | None = None  # (N,) steps of each row that are not padding
    problems: Mapping[int, str] = field(default_factory=dict)  # why a cell can't be read, by row
    # How often: `unknown` (a category or word that training did not have), `missing` (where training had no gaps),
    # `cut` (texts that were too long). Zero is left out.
    notes: Mapping[str, int] = field(default_factory=dict)
    dropped: Rows = field(default_factory=lambda: np.zeros(0, np.int64))  # rows to leave out: `missing: drop`
    ignored: Rows = field(default_factory=lambda: np.zeros(0, np.int64))  # rows without a target: `missing: ignore`

    def __post_init__(self) -> None:
        object.__setattr__(self, "problems", dict(sorted(self.problems.items())))


class FittedColumn(ABC):
    """What was fitted on the training rows of one column: encodes any rows, and is saved as JSON."""

    kind: ClassVar[str]  # in the saved JSON

    @abstractmethod
    def apply(self, column: NDArray[Any]) -> Encoded:
        """Encode a column (N, ...) of new or known rows."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values, with `kind`."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one encoded row."""

    @property
    def layout(self) -> Layout:
        """Layout of one encoded row."""
        return "features"

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What each feature is, without the column's name: `value` and `missing` of a number; () for a field."""
        return ()

    @property
    def vocab_size(self) -> int | None:
        """Number of different tokens; None for numbers."""
        return None

    def read(self, column: NDArray[Any]) -> NDArray[Any]:
        """Convert cells to what `module()` takes: numbers with NaN for missing cells, or indices of categories."""
        raise NotImplementedError(f"{type(self).__name__} has no module")

    def module(self) -> nn.Module | None:
        """Make a module with the same arithmetic as `apply`, from what `read` returns; None if it isn't arithmetic."""
        return None

    def decode(self, tokens: Sequence[int]) -> str:
        """Convert the tokens of one row to text."""
        raise NotImplementedError(f"{type(self).__name__} is not a text")

    def invert(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert encoded targets back: to class names, or numbers in their own unit."""
        raise NotImplementedError(f"{type(self).__name__} is not a target")


@dataclass(frozen=True)
class FittedShape(FittedColumn):
    """A fitted column whose rows are arrays of one shape, of numbers or tokens."""

    shape_of_row: tuple[int, ...]
    layout_of_row: Layout
    tokens: int | None = None  # number of different tokens or classes; None for numbers
    has_lengths: bool = False  # whether a row may have fewer steps than the shape

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shape_of_row

    @property
    def layout(self) -> Layout:
        return self.layout_of_row

    @property
    def vocab_size(self) -> int | None:
        return self.tokens


class ColumnKind(BaseModel, ABC):
    """Settings of one kind of column."""

    # Validators are built at the first use, as no spec uses all kinds.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    name: ClassVar[str] = ""
    role: ClassVar[Role] = "features"
    reads_files: ClassVar[bool] = False  # whether cells are files, which are read when a batch needs them

    @abstractmethod
    def fit(self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = "") -> FittedColumn:
        """Fit to the training rows.

        Args:
            column: the cells of all rows (N, ...): classes and their order are facts of all rows
            training: the rows that statistics may be taken from
            read: how the file writes numbers
            name: the column's name, for messages

        Returns:
            What was fitted. Cells that can't be read are not an error here: `apply` lists them.

        Raises:
            DataError: if nothing can be fitted, such as a column without any number.
        """

    def find_rows_to_drop(self, column: NDArray[Any]) -> Rows:
        """Return the rows that `missing: drop` leaves out, before anything is fitted."""
        if getattr(self, "missing", "") != "drop":
            return np.zeros(0, np.int64)
        return np.flatnonzero(find_missing(column))


class KindRegistry(Registry[type[ColumnKind]]):
    """A registry of kinds, which imports dlspec's own when it is first asked for one."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind, (), describe_as_class_itself)

    def __iter__(self) -> Iterator[str]:
        load_kinds()
        return super().__iter__()

    def __len__(self) -> int:
        load_kinds()
        return super().__len__()

    def __contains__(self, name: object) -> bool:
        load_kinds()
        return super().__contains__(name)

    def __getitem__(self, name: str) -> type[ColumnKind]:
        load_kinds()
        return super().__getitem__(name)


def load_kinds() -> None:
    """Import all of dlspec's own kinds, which registers them."""
    import_module("dlspec.data.prepare.kinds.all_kinds")


NOT_YET = {"audio": "audio comes later"}
COLUMN_KINDS, TARGET_KINDS = KindRegistry("column kind"), KindRegistry("target kind")
# How to rebuild a fitted column from its JSON, by its `kind`.
SAVED_KINDS: dict[str, Callable[[Mapping[str, Any]], FittedColumn]] = {}
K = TypeVar("K", bound=type[ColumnKind])
F = TypeVar("F", bound=type[FittedColumn])


def register_kind(name: str, registry: KindRegistry) -> Callable[[K], K]:
    """Register a class as the kind of this name."""

    def register(kind: K) -> K:
        registry.register(kind, name).name = name
        return kind

    return register


def register_saved(name: str) -> Callable[[F], F]:
    """Register a fitted column's class, whose classmethod `from_json` reads JSON of this `kind`."""

    def register(fitted: F) -> F:
        fitted.kind = name
        SAVED_KINDS[name] = fitted.from_json  # type: ignore[attr-defined]
        return fitted

    return register


def fitted_from_json(saved: object) -> FittedColumn:
    """Rebuild what was fitted from the result of `to_json`; DataError if that is damaged."""
    load_kinds()
    kind = saved.get("kind") if isinstance(saved, Mapping) else None
    if not isinstance(saved, Mapping) or not isinstance(kind, str):
        raise make_saved_error("each column must be a mapping with its 'kind'")
    if kind not in SAVED_KINDS:
        raise make_saved_error(f"unknown kind {format_value(kind)}; {suggest(kind, SAVED_KINDS)}")
    return SAVED_KINDS[kind](saved)
