"""Cells of rows as an exported file takes them. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.encoding.encoded_rows import EncodedRows, encode_rows
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.encoding.image_columns import make_folder_finder
from dlspec.data.images.image_cells import ImageCell, map_in_threads
from dlspec.data.images.image_decoding import decode_image
from dlspec.data.prepare.kinds.array_column import FittedArray
from dlspec.data.prepare.kinds.cells import list_cells
from dlspec.data.prepare.kinds.grouped_number import FittedGroupedNumber
from dlspec.data.prepare.kinds.image import FittedImage
from dlspec.data.prepare.kinds.image_settings import as_image_cells, find_image_problems
from dlspec.data.prepare.kinds.kind import FittedColumn
from dlspec.errors import DataError, UserError
from dlspec.inference.onnx_files.file_description import RUN_FIX
from dlspec.inference.rows.input_columns import complete_columns, format_reasons
from dlspec.inference.rows.row_chunk import RowChunk

Cells = Mapping[str, NDArray[Any]]
STRINGS, LENGTHS, GROUP = "tensor(string)", "_lengths", ".group"
_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
}


@dataclass(frozen=True)
class EncodedInputs:
    """The rows of a chunk that can be read, as an exported file takes them."""

    inputs: Mapping[str, NDArray[Any]]  # by input: (M, ...); images are (M,) arrays (height, width, channels) each
    lengths: Mapping[str, NDArray[np.int64]]  # (M,) steps of each row, by field
    kept: NDArray[np.int64]  # (M,) their positions in the chunk
    problems: Mapping[int, str]  # why the other rows can't be read, by position
    notes: Counter[tuple[str, str]]  # how often: (`unknown`, column), ...


class RowInputs:
    """Encodes rows for an exported file.

    Args:
        fitted: the preparation of the file
        inputs: its inputs, as onnxruntime describes them
    """

    def __init__(self, fitted: FittedTable, inputs: Sequence[Any]) -> None:
        self.fitted, self.inputs = fitted, list(inputs)
        # Images are decoded here, as their kind needs torch to resize them. The file resizes them itself.
        self._images = {name: each for name, each in fitted.inputs.items() if isinstance(each, FittedImage)}
        others = tuple(each for each in fitted.fields if each.columns[0] not in self._images)
        self._others = replace(fitted, fields=others)
        self.images = [each.name for each in self.inputs if each.name in self._images]
        self._columns = {each.name: self._find_column(each.name, each.type) for each in self.inputs}

    def _find_column(self, name: str, kind: str) -> str:
        """Return the column that an input is made of; UserError if the file can't be used without its run."""
        if kind != STRINGS and kind not in _TYPES:
            raise UserError(f"the file takes '{name}' as {kind}, which file= can't read; {RUN_FIX}")
        if kind == STRINGS and name in self.fitted.group_columns:
            return name
        for ending in ("", LENGTHS, GROUP):
            if (column := name.removesuffix(ending)) in self.fitted.inputs:
                return column
        found = f"the file takes '{name}', which its preparation does not describe"
        raise UserError(f"{found}; export the run with its preparation, or {RUN_FIX}")

    def encode(self, chunk: RowChunk) -> EncodedInputs:
        """Encode the rows of a chunk; those that can't be read are left out, each with a reason.

        Raises:
            DataError: if a column is missing.
        """
        columns = complete_columns(self.fitted, chunk.columns, make_folder_finder(chunk.files, chunk.file_of_row))
        rows = np.arange(len(chunk))
        rows = rows[np.isin(rows, list(chunk.problems), invert=True)] if chunk.problems else rows
        encoded = encode_rows(self._others, columns, rows, with_targets=False)
        images = {name: _decode_images(name, each, columns, rows, encoded) for name, each in self._images.items()}
        is_kept = np.isin(rows, list(encoded.problems), invert=True)
        kept = rows[is_kept]
        cells = {name: column[kept] for name, column in columns.items()}
        arrays = {name: each[is_kept] for name, each in {**encoded.fields, **images}.items()}
        problems = {**chunk.problems, **{row: format_reasons(each) for row, each in encoded.problems.items()}}
        lengths = {name.removesuffix(LENGTHS): each for name, each in arrays.items() if name.endswith(LENGTHS)}
        inputs = {each.name: self._read_input(each.name, each.type, cells, arrays) for each in self.inputs}
        return EncodedInputs(inputs, lengths, kept, dict(sorted(problems.items())), encoded.notes)

    def _read_input(self, name: str, kind: str, cells: Cells, arrays: Cells) -> NDArray[Any]:
        """Read one input of the file from cells, or from what was encoded already."""
        column = self._columns[name]
        if kind == STRINGS:
            return np.array([cell or "" for cell in list_cells(cells[column])], object)
        fitted = self.fitted.inputs[column]
        if isinstance(fitted, FittedImage):
            return arrays[column]
        values = self._read_numbers(name, fitted, cells, arrays)
        return np.asarray(values.astype(_TYPES[kind]))

    def _read_numbers(self, name: str, fitted: FittedColumn, cells: Cells, arrays: Cells) -> NDArray[Any]:
        """Read what a file takes for a column: its own numbers or ids, or tokens and their lengths."""
        column = self._columns[name]
        field = next((each.name for each in self.fitted.fields if each.columns == (column,)), column)
        if name == f"{column}{LENGTHS}":
            return arrays[f"{field}{LENGTHS}"]
        if isinstance(fitted, FittedArray) and fitted.vocab_size is None:
            return arrays[field] * np.float32(fitted.divisor)
        if fitted.vocab_size is not None and fitted.kind != "category":
            return arrays[field]
        if isinstance(fitted, FittedGroupedNumber):
            return fitted.read(cells[column], cells[fitted.per])[:, 0]
        return fitted.read(cells[column])


def _decode_images(
    name: str, fitted: FittedImage, columns: Cells, rows: NDArray[np.int64], encoded: EncodedRows
) -> NDArray[Any]:
    """Decode a column of images, in threads: (N,) arrays (height, width, channels); None where that is a problem.

    Args:
        name: the column
        fitted: how its images are read
        columns: the cells of all rows
        rows: the rows to read
        encoded: where problems are added
    """
    cells = as_image_cells(columns[name][rows])
    wrong = find_image_problems(list(cells))

    def decode(at: int) -> NDArray[Any] | str:
        cell: ImageCell = cells[at]
        try:
            return np.ascontiguousarray(decode_image(cell.read(), fitted.mode, fitted.bits).transpose(1, 2, 0))
        except DataError as error:
            return error.finding.found

    readable = [at for at in range(len(cells)) if at not in wrong]
    images = np.full(len(cells), None, object)
    for at, found in zip(readable, map_in_threads(decode, readable), strict=True):
        if isinstance(found, str):
            wrong = {**wrong, at: found}
        else:
            images[at] = found
    for at, reason in wrong.items():
        encoded.problems.setdefault(int(rows[at]), []).append(f"{name}: {reason}")
    return images
