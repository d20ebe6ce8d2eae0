"""Encode new rows as the samples that a network takes, with what the run fitted on its training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlspec.data.dataset import Split
from dlspec.data.encoding.encoded_rows import EncodedRows, encode_rows
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.encoding.image_columns import (
    convert_image_columns,
    find_undecodable_rows,
    list_fitted_images,
    load_images,
    make_folder_finder,
)
from dlspec.data.encoding.stacked_columns import stack_columns
from dlspec.data.images.image_paths import list_braces
from dlspec.data.lazy_array import Values, make_values, select_rows
from dlspec.data.prepare.kinds.cells import list_cells
from dlspec.errors import Code, DataError, replace_control_characters, shorten_middle, suggest
from dlspec.inference.rows.row_chunk import RowChunk

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class EncodedChunk:
    """The rows of a chunk that can be read, as samples."""

    split: Split
    kept: NDArray[np.int64]  # (M,) positions of the samples in the chunk
    problems: Mapping[int, str]  # why the other rows can't be read, by position
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)  # how often: (`unknown`, column), ...


def _format_reasons(reasons: Iterable[str]) -> str:
    """Join the reasons of a row; they contain cells, which may be long or have control characters."""
    return shorten_middle(replace_control_characters("; ".join(reasons)))


def list_input_columns(fitted: FittedTable) -> list[str]:
    """List the columns of a file that a network's inputs are made of."""
    named = {name: list_braces(pattern) for name, pattern in list_fitted_images(fitted).items() if pattern}
    return [member for name in fitted.inputs for member in fitted.stacks.get(name, named.get(name, (name,)))]


def encode_chunk(fitted: FittedTable, chunk: RowChunk, *, with_targets: bool = False) -> EncodedChunk:
    """Encode the rows of a chunk; those that can't be read are left out, each with a reason.

    Images are read into memory; with targets they are only tried, as all rows may be one chunk.

    Args:
        fitted: what the run fitted
        chunk: the rows
        with_targets: whether to encode the targets too, which must then be among the columns

    Raises:
        DataError: if a column is missing.
    """
    find_folder = make_folder_finder(chunk.files, chunk.file_of_row)
    columns = complete_columns(fitted, chunk.columns, find_folder, with_targets=with_targets)
    rows = np.arange(len(chunk))
    rows = rows[np.isin(rows, list(chunk.problems), invert=True)] if chunk.problems else rows
    taken = rows if chunk.problems else range(len(chunk))
    encoded = encode_rows(fitted, columns, taken, with_targets=with_targets)
    _read_images(encoded, rows, with_targets=with_targets)
    if not encoded.problems:
        return EncodedChunk(_make_split(encoded), rows, chunk.problems, encoded.notes)
    problems = {**chunk.problems, **{row: _format_reasons(reasons) for row, reasons in encoded.problems.items()}}
    is_kept = np.isin(rows, list(encoded.problems), invert=True)
    return EncodedChunk(_make_split(encoded, is_kept), rows[is_kept], dict(sorted(problems.items())), encoded.notes)


def _read_images(encoded: EncodedRows, rows: NDArray[np.int64], *, with_targets: bool) -> None:
    """Read lazy arrays into memory, or with targets try whether they can be read; note the rows that can't."""
    if with_targets:
        found = find_undecodable_rows({**encoded.fields, **encoded.targets}, rows)
    else:
        found = load_images(encoded.fields, rows)
    for row, reasons in found.items():
        encoded.problems.setdefault(row, []).extend(reasons)


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
    missing = [member for members in needed.values() for member in members if member not in found]
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


def _make_split(encoded: EncodedRows, is_kept: NDArray[np.bool_] | None = None) -> Split:
    def convert(arrays: Mapping[str, Any]) -> dict[str, Values]:
        made = {name: make_values(values) for name, values in arrays.items()}
        if is_kept is None:
            return made
        kept = torch.from_numpy(np.flatnonzero(is_kept))
        return {name: select_rows(values, kept) for name, values in made.items()}

    return Split(convert(encoded.fields), convert(encoded.targets))
