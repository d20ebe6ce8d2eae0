"""The samples to evaluate: a split of the run's own data, or all rows of new data, with their raw rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dlspec.data.dataset import Dataset, Split, make_field_name
from dlspec.data.lazy_array import read_rows
from dlspec.data.sources.source import DataSource, open_data
from dlspec.data.sources.table_dataset import EncodedTable
from dlspec.data.sources.table_settings import TableSettings
from dlspec.data.split_indices import SPLITS, SplitIndices, SplitName
from dlspec.data.tables.table import Table
from dlspec.errors import UserError, format_value
from dlspec.inference.loading.loaded_run import LoadedRun
from dlspec.limits import allow_deep_recursion
from dlspec.training.runtime.randomness import preserve_generators


@dataclass(frozen=True)
class EvaluationData:
    """Samples to evaluate, and where they come from."""

    split: Split
    name: SplitName | None  # the split of the run's own data; None for new data
    path: str | None = None  # the new file; None for the run's own data and rows in Python
    table: Table | None = None  # the raw rows, one for each sample; None for data that are not a table
    left_out: int = 0  # rows that can't be evaluated
    reasons: tuple[str, ...] = ()  # why the first of them can't be
    notes: tuple[str, ...] = ()  # lines for the user


@dataclass(frozen=True)
class OpenedData:
    """The run's own data, read again."""

    dataset: Dataset
    table: Table | None = None  # all raw rows
    parts: SplitIndices | None = None  # rows of the table in each split

    def select(self, name: SplitName, description: Dataset) -> EvaluationData:
        """Select a split.

        Args:
            name: the split
            description: the data as the run has them: a field of tokens may be its own target

        Raises:
            UserError: if the split is unknown or empty.
        """
        if name not in SPLITS:
            raise UserError(f"unknown split {format_value(name)}; choose {', '.join(SPLITS)}")
        split = align_split(getattr(self.dataset, name), description)
        if not len(split):
            others = [each for each in SPLITS if len(getattr(self.dataset, each))]
            raise UserError(
                f"the run's data have no {name} rows; choose {' or '.join(f'split={each}' for each in others)}"
            )
        table = None if self.table is None or self.parts is None else self.table.take(getattr(self.parts, name))
        return EvaluationData(split, name, table=table)


class _TableReader(Protocol):
    """A source of rows that keeps them."""

    def open_table(self) -> EncodedTable: ...


def open_own_data(run: LoadedRun, changes: Mapping[str, Any] | None = None) -> OpenedData:
    """Read the run's own data as training did.

    Args:
        run: the run
        changes: settings of `data` that differ from the run's, such as `path`

    Raises:
        SpecError: if the data can't be read, or a setting is wrong.
        UserError: if they were given in Python, and are not given again.
    """
    if run.has_samples and run.preparing.data is not None:  # given in Python again
        return OpenedData(run.data)
    _refuse_arrays(run)
    found: list[EncodedTable] = []

    def open_source(source: DataSource) -> Dataset:
        if not isinstance(source, TableSettings) or not hasattr(source, "open_table"):
            return open_data(source)
        reader: _TableReader = source
        found.append(reader.open_table())
        return found[0].dataset

    tree = dict(run.preparing.tree)
    tree["data"] = {**tree["data"], **(changes or {})}
    with preserve_generators(), allow_deep_recursion():
        dataset = replace(run.preparing, tree=tree, open_source=open_source).open().data
    return OpenedData(dataset, found[0].table, found[0].parts) if found else OpenedData(dataset)


def _refuse_arrays(run: LoadedRun) -> None:
    """Refuse to open data that were given in Python: the folder does not contain them."""
    section = run.preparing.tree.get("data")
    is_given = isinstance(section, Mapping) and (
        section.get("type") == "arrays" or (section.get("type") == "table" and section.get("path") is None)
    )
    if is_given and run.preparing.data is None:
        fix = "evaluate a file, data.path=FILE, or in Python pass the rows: dlspec.predictor(FOLDER).evaluate((X, y))"
        raise UserError(f"the run's data were given in Python, so its splits can't be read again; {fix}")


def align_split(split: Split, description: Dataset) -> Split:
    """Return a split whose targets are those of the run: a field of tokens may be its own target."""
    names = [each.name for each in description.targets]
    tensors = {name: each for name, each in split.tensors.items() if name not in names}
    return Split(tensors, {name: split.get_loss_target(name) for name in names})


def find_group_cells(data: EvaluationData, description: Dataset, column: str) -> NDArray[Any]:
    """Return the value of each sample in a column of the raw rows, or in a target.

    Args:
        data: the samples
        description: the run's data set
        column: a column of the table, which may be left out of the inputs; or a target

    Raises:
        UserError: if the column is unknown.
    """
    if data.table is not None and column in data.table.columns:
        return data.table.columns[column]
    targets = [each for each in description.targets if each.kind == "classes" and not each.shape]
    for target in targets:
        if make_field_name(column) == target.name:
            classes: NDArray[Any] = np.array(target.classes, object)
            cells: NDArray[Any] = classes[read_rows(data.split.targets[target.name]).cpu().numpy()]
            return cells
    names = [each.name for each in targets] if data.table is None else list(data.table.columns)
    found = f"unknown column {format_value(column)} to divide the results by"
    if not names:
        raise UserError(f"{found}; the run's data are not a table, so leave by out")
    raise UserError(f"{found}; choose one of {_join(names)}")


def _join(names: Sequence[str]) -> str:
    return ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
