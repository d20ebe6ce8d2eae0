"""The inputs of single samples as a reader can judge them: texts, columns, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dlspec.data.dataset import Dataset, Field, Split, make_field_name
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.images.image_cells import ImageCell
from dlspec.data.lazy_array import read_pictures
from dlspec.data.prepare.decoding import make_decoder
from dlspec.data.prepare.kinds.plain_kinds import Standardized
from dlspec.data.tables.table import Table
from dlspec.inference.evaluation.sample_pictures import is_picture, make_picture
from dlspec.inference.rows.input_columns import list_input_columns

MAX_COLUMNS = 20  # of one row
MAX_TEXT = 1_000  # characters of a cell
MAX_LISTED = 20  # numbers of a list


@dataclass(frozen=True)
class InputDescriber:
    """Describes the inputs of samples: the cells of their rows, or what can be read back from the tensors."""

    data: Dataset
    split: Split
    table: Table | None = None  # the raw rows, one for each sample of the split
    fitted: FittedTable | None = None  # which columns the network sees, and how they were encoded

    def describe(self, position: int) -> dict[str, Any]:
        """Describe a sample: its row, its id and its inputs, as JSON values."""
        return {"row": self._find_row(position), "id": self._find_id(position), "input": self._describe_input(position)}

    def _find_row(self, position: int) -> int:
        """Return the number of the row in its source, as `predict` writes it; else its number in the split, from 1."""
        return position + 1 if self.split.rows is None else int(self.split.rows[position])

    def _find_id(self, position: int) -> str:
        name = "" if self.fitted is None else self.fitted.id
        if self.table is not None and name in self.table.columns:
            return _format_cell(self.table.columns[name][position])
        return "" if self.table is None else self.table.locate(position)

    def _describe_input(self, position: int) -> dict[str, str]:
        if self.table is None or self.fitted is None:
            return self._describe_tensors(position)
        names = [name for name in list_input_columns(self.fitted) if name in self.table.columns]
        cells = {name: self.table.columns[name][position] for name in names[:MAX_COLUMNS]}
        found = {name: _format_cell(cell) for name, cell in cells.items() if not isinstance(cell, np.ndarray)}
        arrays = [name for name, cell in cells.items() if isinstance(cell, np.ndarray)]
        found |= self._describe_images([name for name, cell in cells.items() if isinstance(cell, ImageCell)], position)
        return found | (self._describe_tensors(position) if arrays else {})

    def _describe_images(self, columns: Sequence[str], position: int) -> dict[str, str]:
        """Show images in files as the network gets them; those with transparency keep their names."""
        fields = {name: self.split.tensors.get(make_field_name(name)) for name in columns}
        shown = {name: read_pictures(each, slice(position, position + 1))[0].cpu()
                 for name, each in fields.items() if each is not None}  # fmt: skip
        return {name: make_picture(each) for name, each in shown.items() if is_picture(each.shape)}

    def _describe_tensors(self, position: int) -> dict[str, str]:
        found: dict[str, str] = {}
        for field in self.data.fields:
            if field.name in self.split.tensors and len(found) < MAX_COLUMNS:
                found |= self._describe_field(field, position)
        return found

    def _describe_field(self, field: Field, position: int) -> dict[str, str]:
        values = self.split.tensors[field.name][position].cpu()
        if field.layout == "tokens":
            length = self.split.tensors.get(field.lengths)
            tokens = values.tolist() if length is None else values[: int(length[position])].tolist()
            decoder = make_decoder(self.data.get_preprocessing(field.name))
            text = " ".join(map(str, tokens)) if decoder is None else decoder.decode(tokens)
            return {field.name: _cut(text)}
        if is_picture(values.shape):
            return {field.name: make_picture(values)}
        return self._describe_columns(field, values) or {field.name: _format_numbers(values)}

    def _describe_columns(self, field: Field, values: Tensor) -> dict[str, str]:
        """Describe the numbers of a field in their own unit by column; {} if its columns have no names."""
        fitted = None if self.fitted is None else self.fitted.inputs.get(field.name)
        names = () if self.fitted is None else self.fitted.stacks.get(field.name, ())
        if not isinstance(fitted, Standardized) or len(names) != values.numel():
            return {}
        numbers = fitted.invert(values.numpy()).tolist()
        return {name: f"{each:.4g}" for name, each in list(zip(names, numbers, strict=True))[:MAX_COLUMNS]}


def _format_cell(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, list | tuple):
        return _cut(" ".join("" if each is None else str(each) for each in cell))
    return _cut(f"{float(cell):.6g}" if isinstance(cell, np.floating | float) else str(cell))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _format_numbers(values: Tensor) -> str:
    numbers = values.flatten()[: MAX_LISTED + 1].tolist()
    more = ", …" if len(numbers) > MAX_LISTED else ""
    return ", ".join(f"{each:.4g}" for each in numbers[:MAX_LISTED]) + more
