"""Cells of rows as an exported file takes them. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.kinds.cells import list_cells
from dlspec.data.prepare.kinds.kind import SAVED_KINDS, FittedColumn
from dlspec.errors import DataError, UserError, format_value
from dlspec.inference.onnx_files.model_reading import ExportedFile

Columns = Mapping[str, NDArray[Any]]
# The files of kinds that need no torch; images need it to be decoded.
_KIND_FILES = ("array_column", "category", "date", "grouped_number", "number", "numbers", "plain_kinds", "text")
_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
}
STRINGS, LENGTHS, GROUP = "tensor(string)", "_lengths", ".group"


def read_fitted_columns(file: ExportedFile) -> dict[str, FittedColumn]:
    """Rebuild what was fitted to the columns that the file takes.

    Raises:
        UserError: if a column is of a kind that dlspec can't read without torch, or is damaged.
    """
    for each in _KIND_FILES:
        import_module(f"dlspec.data.prepare.kinds.{each}")
    saved = file.preparation.get("columns")
    found: dict[str, FittedColumn] = {}
    for name, column in saved.items() if isinstance(saved, Mapping) else ():
        kind = column.get("kind") if isinstance(column, Mapping) else None
        if not isinstance(kind, str) or kind not in SAVED_KINDS:
            raise UserError(f"'{name}' is of the kind {format_value(kind)}, which file= can't read; predict with run=")
        try:
            found[str(name)] = SAVED_KINDS[kind](column)
        except (DataError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"the preparation of '{name}' is damaged: {error}; export the run again") from None
    return found


class RowInputs:
    """Converts the cells of rows to the inputs of an exported file.

    Args:
        file: the file
    """

    def __init__(self, file: ExportedFile) -> None:
        self.columns = read_fitted_columns(file)
        self.types = {each.name: each.type for each in file.session.get_inputs()}

    @property
    def needed(self) -> list[str]:
        """The columns that rows need."""
        return list(dict.fromkeys(self._find_column(name) for name in self.types))

    def _find_column(self, name: str) -> str:
        for ending in ("", LENGTHS, GROUP):
            column = name.removesuffix(ending) if ending else name
            if column in self.columns or (not ending and self.types[name] == STRINGS):
                return column
        raise UserError(f"the file takes '{name}', which its preparation does not describe; predict with run=")

    def convert(self, cells: Columns) -> tuple[dict[str, NDArray[Any]], dict[int, str]]:
        """Convert cells, and return the reasons why rows can't be read, by position."""
        found: dict[str, NDArray[Any]] = {}
        problems: dict[int, str] = {}
        for name, kind in self.types.items():
            column = self._find_column(name)
            fitted = self.columns.get(column)
            if fitted is not None and not name.endswith(LENGTHS):
                problems |= _find_problems(column, fitted, cells)
            if kind == STRINGS:
                found[name] = np.array([cell or "" for cell in list_cells(cells[column])], object)
            elif kind in _TYPES and fitted is not None:
                found[name] = _read_numbers(name, fitted, cells[column]).astype(_TYPES[kind])
            else:
                raise UserError(f"the file takes '{name}' as {kind}, which file= can't read; predict with run=")
        return found, problems


def _find_problems(name: str, fitted: FittedColumn, cells: Columns) -> dict[int, str]:
    per = getattr(fitted, "per", None)
    encoded = fitted.apply(cells[name], cells[per]) if per else fitted.apply(cells[name])  # type: ignore[call-arg]
    return {row: f"{name}: {reason}" for row, reason in encoded.problems.items()}


def _read_numbers(name: str, fitted: FittedColumn, column: NDArray[Any]) -> NDArray[Any]:
    """Read what a file takes for a column: its own numbers, or tokens and their lengths."""
    if fitted.kind == "array" and fitted.vocab_size is None:
        return np.asarray(fitted.apply(column).values) * getattr(fitted, "divisor", 1.0)
    if fitted.vocab_size is not None and fitted.kind != "category":
        encoded = fitted.apply(column)
        return np.asarray(encoded.lengths if name.endswith(LENGTHS) else encoded.values)
    whole = getattr(fitted, "whole", fitted)
    return np.asarray(whole.read(column))
