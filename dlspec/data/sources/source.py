"""What all data sources share: the common settings, the registry, and the check of stated facts.

A source is its settings, checked without touching a file; `open_data` reads the data. NumPy and PyTorch are imported
when data is opened, so that a spec can be checked in milliseconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dlspec.errors import Code, DataError, suggest
from dlspec.limits import GIGABYTE, MAX_CLASSES, MAX_DATA_BYTES
from dlspec.parts.registry import Registry, keep_class

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlspec.data.dataset import Dataset
    from dlspec.data.split_indices import SplitIndices

Size = Annotated[int, Field(ge=1)]


class DataSource(BaseModel, ABC):
    """The settings of one kind of data. `open` reads it; a file that can't be used is a `DataError`."""

    # Pydantic compiles a source when it is first used: no command uses all of them.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    source_name: ClassVar[str] = ""
    stated: ClassVar[tuple[str, ...]] = ("num_classes", "vocab_size", "shape", "length")
    """The facts among the settings that are checked once the data are open; of a source that obeys them none."""

    split_seed: int = Field(0, ge=0, description="decides which samples go where; the same seed, the same split")
    validation: float = Field(0.1, ge=0, lt=1, description="share of the samples kept aside to watch the training")
    limit: int | None = Field(None, ge=1, description="keep at most this many samples of each split, for a quick try")
    num_classes: int | None = Field(None, ge=2, le=MAX_CLASSES, description="stated and then checked: how many classes")
    vocab_size: int | None = Field(None, ge=1, description="stated and then checked: how many different tokens")
    shape: list[Size] | None = Field(None, description="stated and then checked: a sample's shape, without the batch")
    length: int | None = Field(None, ge=1, description="stated and then checked: how many steps a sample has")
    target: str | None = Field(
        None, description="what is to be predicted: one of its targets, or a field, to be given again; null: its own"
    )

    @abstractmethod
    def open(self) -> Dataset:
        """The data set: read, split and encoded."""

    def shrink(self) -> DataSource:
        """A source with the same fields and targets that opens in little time and memory; refuses what `open` does."""
        return self

    def parts(self, count: int, test: float, classes: NDArray[np.int64] | None = None) -> SplitIndices:
        """Which of `count` rows train, validate and test."""
        from dlspec.data.split_indices import SplitPlan, split_rows

        return split_rows(count, SplitPlan(self.split_seed, self.validation, test, self.limit), classes)


class SplitSource(DataSource):
    """A source that has no official test set: one is split off."""

    test: float = Field(0.2, ge=0, lt=1, description="share of the samples kept aside for the final test")

    @model_validator(mode="after")
    def _check_fractions(self) -> SplitSource:
        if self.validation + self.test >= 1:
            shares = f"validation {self.validation:g} and test {self.test:g}"
            raise ValueError(f"{shares} leave nothing to train on: together they must be below 1")
        return self


SOURCES: Registry[type[DataSource]] = Registry("data set", (), keep_class)
S = TypeVar("S", bound=DataSource)


def data_source(name: str) -> Callable[[type[S]], type[S]]:
    """Registers a source as `data.type: NAME`. A class that is defined anew (in a notebook) replaces itself."""

    def register(source: type[S]) -> type[S]:
        SOURCES.register(source, name).source_name = name
        return source

    return register


def make_size_error(key: str, what: str, size: int, fix: str) -> DataError:
    """An array of more bytes than any source makes: `1,000 samples of 8 bytes are`, and how many that is."""
    found = f"{what} {size / GIGABYTE:,.1f} GB; at most {MAX_DATA_BYTES // GIGABYTE} GB are made"
    return DataError(key, f"{found}: try {fix}", Code.TOO_LARGE)


def open_data(source: DataSource) -> Dataset:
    """The source's data set; a fact that was stated and is not so is a `DataError`."""
    dataset = _select_target(source.open(), source.target)
    for key in source.stated:
        _check_stated_fact(key, getattr(source, key), dataset.facts.get(key), dataset.name)
    return dataset


def _select_target(dataset: Dataset, target: str | None) -> Dataset:
    if target is None:
        return dataset
    selected = dataset.with_target(target)
    if selected is None:
        names = [*(each.name for each in dataset.targets), *(each.name for each in dataset.fields)]
        raise DataError("target", f"{dataset.name} has no '{target}'; {suggest(target, names)}", Code.UNKNOWN_FIELD)
    return selected


def _check_stated_fact(key: str, stated: object, found: object, name: str) -> None:
    if stated is None or stated == found:
        return
    raise DataError(key, f"stated as {stated}, but {name} has {'none' if found is None else found}", Code.MISSING_FACT)
