"""The columns that the rows of a run need: which they are, and those that are made of others. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.encoding.image_columns import convert_image_columns, list_fitted_images
from dlspec.data.encoding.stacked_columns import stack_columns
from dlspec.data.images.image_paths import list_braces
from dlspec.data.prepare.kinds.cells import list_cells
from dlspec.errors import Code, DataError, replace_control_characters, shorten_middle, suggest

Columns = Mapping[str, NDArray[Any]]


def format_reasons(reasons: Iterable[str]) -> str:
    """Join the reasons of a row; they contain cells, which may be long or have control characters."""
    return shorten_middle(replace_control_characters("; ".join(reasons)))


def list_input_columns(fitted: FittedTable) -> list[str]:
    """List the columns of a file that a network's inputs are made of."""
    named = {name: list_braces(pattern) for name, pattern in list_fitted_images(fitted).items() if pattern}
    columns = [member for name in fitted.inputs for member in fitted.stacks.get(name, named.get(name, (name,)))]
    return list(dict.fromkeys([*columns, *fitted.group_columns]))


def _start_in_working_folder(row: int) -> str:
    return ""


def complete_columns(
    fitted: FittedTable,
    columns: Columns,
    find_folder: Callable[[int], str] = _start_in_working_folder,
    *,
    with_targets: bool = False,
) -> Columns:
    """Add the columns that are made of several others, and those that are named after their field; convert images.

    Args:
        fitted: what the run fitted
        columns: the cells by column
        find_folder: returns the folder that the relative names of a row's images start from
        with_targets: whether the targets are needed too

    Raises:
        DataError: if a column is missing.
    """
    found = dict(columns)
    for plan in fitted.fields:
        if len(plan.columns) == 1 and plan.name in found:
            found.setdefault(plan.columns[0], found[plan.name])
    wanted = [*fitted.inputs, *(fitted.targets if with_targets else ())]
    patterns = {name: pattern for name, pattern in list_fitted_images(fitted).items() if name in wanted}
    found = convert_image_columns(found, patterns, find_folder, "")
    needed = {name: fitted.stacks.get(name, (name,)) for name in wanted if name not in found}
    members = [member for each in needed.values() for member in each]
    missing = [each for each in (*members, *fitted.group_columns) if each not in found]
    if missing:
        raise _make_missing_error(fitted, missing, columns)
    return {**found, **{name: _stack(found, members) for name, members in needed.items()}}


def _make_missing_error(fitted: FittedTable, missing: list[str], columns: Columns) -> DataError:
    more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
    found = f"no column '{missing[0]}'{more}, which the run was trained on"
    column = fitted.inputs.get(missing[0])
    if column is not None and column.kind == "array" and column.shape:
        shape = " x ".join(map(str, column.shape))
        found = f"{found}; it has {shape} numbers for each row, in an npz file or as a list in JSON lines"
    return DataError("", f"{found}; {suggest(missing[0], columns) or 'the rows have no columns'}", Code.UNKNOWN_FIELD)


def _stack(columns: Columns, members: tuple[str, ...]) -> NDArray[Any]:
    """Put columns side by side; as cells of text if some are numbers and others are not."""
    if len({columns[name].dtype.kind in "biuf" for name in members}) == 1:
        return stack_columns(columns, members)
    return np.array([list_cells(columns[name]) for name in members], object).T
