"""The samples to evaluate: a split of the run's own data, or all rows of new data, with their raw rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.dataset import Dataset, Split, make_field_name
from dlspec.data.lazy_array import read_rows
from dlspec.data.split_indices import SplitName
from dlspec.data.tables.table import Table
from dlspec.errors import UserError, format_value

FOLDER_COLUMN = "folder"  # of `by`: the folder that the file of a row is in, unless there is a column of this name


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


def find_group_cells(data: EvaluationData, description: Dataset, column: str) -> NDArray[Any]:
    """Return the value of each sample in a column of the raw rows, or in a target.

    Args:
        data: the samples
        description: the run's data set
        column: a column of the table, which may be left out of the inputs; a target; or `folder`, that of a row's file

    Raises:
        UserError: if the column is unknown.
    """
    if data.table is not None and column in data.table.columns:
        return data.table.columns[column]
    if data.table is not None and column == FOLDER_COLUMN and data.table.files:
        return _list_folders(data.table)
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


def _list_folders(table: Table) -> NDArray[Any]:
    folders = np.array([str(PurePath(each).parent) for each in table.files], object)
    cells: NDArray[Any] = folders[table.file_of_row]
    return cells


def _join(names: Sequence[str]) -> str:
    return ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
