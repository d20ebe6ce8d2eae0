"""Encode new rows as the samples that a network takes, with what the run fitted on its training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlspec.data.dataset import Split
from dlspec.data.encoding.encoded_images import find_undecodable_rows, load_images
from dlspec.data.encoding.encoded_rows import EncodedRows, encode_rows
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.encoding.image_columns import make_folder_finder
from dlspec.data.lazy_array import Values, make_values, select_rows
from dlspec.inference.rows.input_columns import complete_columns, format_reasons
from dlspec.inference.rows.row_chunk import RowChunk


@dataclass(frozen=True)
class EncodedChunk:
    """The rows of a chunk that can be read, as samples."""

    split: Split
    kept: NDArray[np.int64]  # (M,) positions of the samples in the chunk
    problems: Mapping[int, str]  # why the other rows can't be read, by position
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)  # how often: (`unknown`, column), ...


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
    problems = {**chunk.problems, **{row: format_reasons(reasons) for row, reasons in encoded.problems.items()}}
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


def _make_split(encoded: EncodedRows, is_kept: NDArray[np.bool_] | None = None) -> Split:
    def convert(arrays: Mapping[str, Any]) -> dict[str, Values]:
        made = {name: make_values(values) for name, values in arrays.items()}
        if is_kept is None:
            return made
        kept = torch.from_numpy(np.flatnonzero(is_kept))
        return {name: select_rows(values, kept) for name, values in made.items()}

    return Split(convert(encoded.fields), convert(encoded.targets))
