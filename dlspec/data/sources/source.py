"""The base classes of data sources: common settings, the registry, and the check of declared facts.

A source consists of its settings, which are checked without reading a file; `open_data` reads the data. NumPy and
PyTorch are imported when data is opened, so that a spec can be checked in milliseconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from dlspec.errors import Code, DataError, suggest
from dlspec.limits import GIGABYTE, MAX_CLASSES, MAX_DATA_BYTES
from dlspec.parts.name_suggestions import SOURCES_NOT_YET
from dlspec.parts.registry import Registry, describe_as_class_itself

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlspec.data.dataset import Dataset
    from dlspec.data.split_indices import SplitIndices

Size = Annotated[int, Field(ge=1)]


class DataSource(BaseModel, ABC):
    """Settings of one kind of data. `open` reads the data and raises `DataError` if a file cannot be used."""

    # Defer building the validators to the first use, as no command uses all sources.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    source_name: ClassVar[str] = ""  # the name in `data.type`
    # The settings that declare facts: they are compared with the data once it is open. A source that makes its data
    # from such a setting leaves it out here.
    stated: ClassVar[tuple[str, ...]] = ("num_classes", "vocab_size", "shape", "length")
    # Whether `open` uses `target` itself, to find the column, rather than choosing among the targets of its data.
    selects_target: ClassVar[bool] = False
    # Settings that say how the data are read, not which data: jobs that differ in nothing else are the same job.
    reading_keys: ClassVar[tuple[str, ...]] = ()

    split_seed: int = Field(0, ge=0, description="seed of the split: the same seed gives the same split")
    validation: float = Field(0.1, ge=0, lt=1, description="fraction of the samples used for validation")
    limit: int | None = Field(None, ge=1, description="keep at most this many samples of each split, for a quick try")
    num_classes: int | None = Field(
        None, ge=2, le=MAX_CLASSES, description="expected number of classes, checked when the data is opened"
    )
    vocab_size: int | None = Field(
        None, ge=1, description="expected number of different tokens, checked when the data is opened"
    )
    shape: list[Size] | None = Field(
        None, description="expected shape of a sample, without the batch, checked when the data is opened"
    )
    length: int | None = Field(
        None, ge=1, description="expected number of steps in a sample, checked when the data is opened"
    )
    target: str | None = Field(
        None, description="what to predict: a target, or a field to reconstruct; null: all targets of the data"
    )

    augment: Annotated[Any, AfterValidator(lambda value: value or None)] = Field(
        None, description="random changes of training images: a list of augmentations, or a list for each image field"
    )

    @abstractmethod
    def open(self) -> Dataset:
        """Read, split and encode the data."""

    def shrink(self) -> DataSource:
        """Return a source with the same fields and targets that opens quickly and in little memory.

        It raises a `DataError` for the same settings as `open`.
        """
        return self

    def parts(self, count: int, test: float, classes: NDArray[np.int64] | None = None) -> SplitIndices:
        """Split row indices into training, validation and test, as the settings say.

        Args:
            count: number of rows
            test: fraction of the rows for the test
            classes: class of each row, numbered from 0; every split has them in equal proportions

        Returns:
            The row indices of each split.
        """
        from dlspec.data.split_indices import SplitPlan, split_rows

        return split_rows(count, SplitPlan(self.split_seed, self.validation, test, self.limit), classes)


class SplitSource(DataSource):
    """A source without an official test set: part of the samples becomes the test split."""

    test: float = Field(0.2, ge=0, lt=1, description="fraction of the samples used for the final test")

    @model_validator(mode="after")
    def _check_fractions(self) -> SplitSource:
        if self.validation + self.test >= 1:
            shares = f"validation {self.validation:g} and test {self.test:g}"
            raise ValueError(f"{shares} leave no samples to train on: their sum must be below 1")
        return self


SOURCES: Registry[type[DataSource]] = Registry("data set", (), describe_as_class_itself, unsupported=SOURCES_NOT_YET)
S = TypeVar("S", bound=DataSource)


def data_source(name: str) -> Callable[[type[S]], type[S]]:
    """Register a class as the source `data.type: NAME`. Defining the class again, in a notebook, replaces it."""

    def register(source: type[S]) -> type[S]:
        SOURCES.register(source, name).source_name = name
        return source

    return register


def make_size_error(key: str, what: str, size: int, fix: str) -> DataError:
    """Make the error for data that would take too much memory.

    Args:
        key: the setting to change
        what: the start of the message, such as `1,000 samples of 8 bytes take`
        size: size of the data in bytes
        fix: a setting that is small enough, such as `data.size=10`

    Returns:
        The error.
    """
    found = f"{what} {size / GIGABYTE:,.1f} GB; at most {MAX_DATA_BYTES // GIGABYTE} GB are allowed"
    return DataError(key, f"{found}: try {fix}", Code.TOO_LARGE)


def open_data(source: DataSource) -> Dataset:
    """Open a source and check the declared facts; DataError if the data differs from one of them."""
    dataset = source.open()
    if not source.selects_target:
        dataset = _select_target(dataset, source.target)
    if source.augment:
        dataset = _add_augmentation(dataset, source.augment)
    for key in source.stated:
        _check_stated_fact(key, getattr(source, key), dataset.facts.get(key), dataset.name)
    return dataset


def _add_augmentation(dataset: Dataset, augment: Any) -> Dataset:
    """Add the random changes of training images; DataError if one does not fit the data."""
    from dlspec.data.augment.dataset_augmentation import augment_dataset

    return augment_dataset(dataset, augment)


def _select_target(dataset: Dataset, target: str | None) -> Dataset:
    if target is None:
        return dataset
    selected = dataset.with_target(target)
    if selected is None:
        names = [*(each.name for each in dataset.targets), *(each.name for each in dataset.fields)]
        raise DataError(
            "target", f"{dataset.name} has no target or field '{target}'; {suggest(target, names)}", Code.UNKNOWN_FIELD
        )
    return selected


def _check_stated_fact(key: str, stated: object, found: object, name: str) -> None:
    if stated is None or stated == found:
        return
    raise DataError(key, f"{key} is {stated}, but {name} has {'none' if found is None else found}", Code.MISSING_FACT)
