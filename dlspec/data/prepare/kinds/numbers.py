"""The kind `numbers`: a list of numbers in each row, as features, a sequence with lengths, or an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat
from dlspec.data.prepare.kinds.class_table import MISSING_TARGETS, MissingTarget
from dlspec.data.prepare.kinds.kind import (
    COLUMN_KINDS,
    TARGET_KINDS,
    ColumnKind,
    Encoded,
    FittedColumn,
    Role,
    Rows,
    register_kind,
    register_saved,
)
from dlspec.data.prepare.kinds.number_lists import Floats, NumberLists, count_steps, read_number_lists
from dlspec.data.prepare.kinds.numeric_cells import NumericCells
from dlspec.data.prepare.kinds.saved_values import SavedValues, make_saved_error
from dlspec.data.prepare.kinds.scales import LinearScale, fit_scale, round_to_float32, scale_from_json
from dlspec.errors import Code, DataError, format_value
from dlspec.layouts import Layout, format_shape, guess_layout

if TYPE_CHECKING:
    from torch import nn

Size = Annotated[int, Field(ge=1)]
LinearScaleName = Literal["standard", "minmax", "none"]
FILL = "fill"  # `missing` of inputs: a missing number becomes the mean
MAX_SIZE = 100_000_000  # numbers of one row


class NumbersKind(ColumnKind):
    """Settings that inputs and targets of several numbers share."""

    like: str | None = Field(None, min_length=1, description="several columns as one, such as 'pixel_*'")
    shape: list[Size] | None = Field(None, max_length=3, min_length=1, description="shape of a row, as in [1, 28, 28]")
    scale: LinearScaleName = Field("standard", description="standard, minmax or none; for each number or channel")
    divide: float | None = Field(None, gt=0, description="divide by this, such as 255 for pixels, in place of a scale")

    @model_validator(mode="after")
    def _check_divide(self) -> NumbersKind:
        if self.divide is not None and "scale" in self.model_fields_set:
            raise ValueError(f"divide replaces the scale: remove scale: {self.scale}, or divide")
        return self

    def fit_numbers(self, column: NDArray[Any], rows: Rows, read: CellFormat, name: str, missing: str) -> FittedNumbers:
        """Find the shape, and fit the scale, on the training rows.

        Args:
            column: the cells of all rows
            rows: the training rows
            read: how the file writes numbers
            name: the column's name, for messages
            missing: what happens to a row without numbers

        Returns:
            What was fitted.
        """
        lists = read_number_lists(column[rows], read)
        counts = lists.count_steps()
        known = lists.choose_rows(np.flatnonzero(counts))
        if not known.cells:
            raise DataError(name, f"the column '{name}' has no numbers in the training rows", Code.BAD_DATA)
        found_counts = set(counts[counts > 0].tolist())
        shape, has_lengths = (tuple(self.shape), False) if self.shape else _find_shape(name, known.cells, found_counts)
        identity = LinearScale(np.zeros(1), np.ones(1))
        fitted = FittedNumbers(read, shape, has_lengths, missing, np.zeros(1), identity)
        return self._fit_scale(fitted, fitted.read_cells(known), name)

    def _fit_scale(self, fitted: FittedNumbers, values: Floats, name: str) -> FittedNumbers:
        """Fit the scale of each number, or each channel, and the means that missing numbers become."""
        columns = fitted.flatten(values)
        is_missing = np.isnan(columns)
        columns = columns[~is_missing.all(axis=1)] if is_missing.any() else columns
        if not len(columns):
            expected = format_shape(fitted.shape)
            raise DataError(name, f"no training row of '{name}' has the shape {expected}", Code.WRONG_VALUE)
        with np.errstate(invalid="ignore"):
            means = np.nansum(columns, axis=0) / np.maximum(1, (~np.isnan(columns)).sum(axis=0))
        if self.divide is not None:
            return replace(fitted, fill=means, scale=LinearScale(np.zeros(1), np.full(1, self.divide)))
        scale = fit_scale(self.scale, np.where(np.isnan(columns), means, columns))
        assert isinstance(scale, LinearScale)
        return replace(fitted, fill=means, scale=scale)


def _find_shape(name: str, cells: Sequence[Floats | None], counts: set[int]) -> tuple[tuple[int, ...], bool]:
    """Return the shape of a row, and whether rows differ in length: then it is a sequence (T, C).

    Args:
        name: the column's name, for messages
        cells: the training rows
        counts: the numbers of steps that these rows have
    """
    shapes = {cell.shape[1:] for cell in cells if cell is not None}
    if len(shapes) > 1:
        found = " and ".join(sorted(format_shape(each) for each in shapes)[:3])
        raise DataError(name, f"the rows of '{name}' differ in shape: items of {found}", Code.BAD_DATA)
    (item,) = shapes
    if len(item) == 2:
        return (max(len(cell) for cell in cells if cell is not None), *item), False
    if len(counts) == 1:
        return (max(counts), *item), False
    return (max(counts), *(item or (1,))), True


@register_kind("numbers", COLUMN_KINDS)
class Numbers(NumbersKind):
    """A list of numbers in each row, or several columns of numbers as one array."""

    role: ClassVar[Role] = "field"

    @override
    def fit(self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = "") -> FittedNumbers:
        return self.fit_numbers(column, training, read, name, FILL)


@register_kind("numbers", TARGET_KINDS)
class NumbersTarget(NumbersKind):
    """Several numbers to predict for each row."""

    role: ClassVar[Role] = "target"

    missing: MissingTarget = Field("refuse", description="refuse a row without numbers, drop it, or ignore its loss")

    @override
    def fit(self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = "") -> FittedNumbers:
        return self.fit_numbers(column, training, read, name, self.missing)


@register_saved("numbers")
@dataclass(frozen=True)
class FittedNumbers(FittedColumn):
    """A fitted column of lists of numbers: features (W,), a sequence (T, C), or an image (C, H, W)."""

    read_format: CellFormat
    shape_of_row: tuple[int, ...]
    has_lengths: bool
    missing: str
    fill: Floats  # (W,) or (C,): what a missing number becomes
    scale: LinearScale  # of (W,), (C,) or (1,)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shape_of_row

    @property
    def layout(self) -> Layout:
        return guess_layout(self.shape)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.shape[0]))) if len(self.shape) == 1 else ()

    def flatten(self, values: NDArray[Any]) -> NDArray[Any]:
        """Move the numbers that share a scale to rows: (N, W), or (N times steps or pixels, C)."""
        if len(self.shape) == 1:
            return values.reshape(-1, self.shape[0])
        channels = self.shape[1] if len(self.shape) == 2 else self.shape[0]
        return (values if len(self.shape) == 2 else np.moveaxis(values, 1, -1)).reshape(-1, channels)

    def unflatten(self, columns: NDArray[Any]) -> NDArray[Any]:
        """Undo `flatten`."""
        if len(self.shape) < 3:
            return columns.reshape(-1, *self.shape)
        channels, *space = self.shape
        return np.ascontiguousarray(np.moveaxis(columns.reshape(-1, *space, channels), -1, 1))

    def read(self, column: NDArray[Any]) -> Floats:
        """Convert cells to numbers (N, *shape), with NaN for missing numbers and beyond a row's length."""
        return self.read_cells(read_number_lists(column, self.read_format))

    def read_cells(self, lists: NumberLists) -> Floats:
        """Convert cells that are arrays to numbers (N, *shape); NaN for one of another size."""
        if self._fits_matrix(lists.matrix):
            return np.asarray(lists.matrix).reshape(-1, *self.shape)
        values = np.full((len(lists.cells), *self.shape), np.nan)
        for row, cell in enumerate(lists.cells):
            if cell is not None and self.has_lengths and self._has_channels(cell):
                steps = min(count_steps(cell), self.shape[0])
                values[row, :steps] = cell[:steps].reshape(steps, -1)
            elif cell is not None and not self.has_lengths and self._fits(cell):
                values[row] = self._fill_tail(cell).reshape(self.shape)
        return values

    def _fits_matrix(self, matrix: Floats | None) -> bool:
        """Whether the column is an array whose rows have the fitted size."""
        return matrix is not None and not self.has_lengths and prod(matrix.shape[1:]) == prod(self.shape)

    def _has_channels(self, cell: Floats) -> bool:
        """Whether a cell's steps have as many numbers as those of the shape."""
        return (cell.shape[1:] or (1,)) == self.shape[1:]

    def _fits(self, cell: Floats) -> bool:
        """Whether a cell of fixed size has as many numbers as the shape; the tail of a flat one may be cut off NaN."""
        return cell.size == prod(self.shape) or (cell.ndim == 1 and count_steps(cell) <= prod(self.shape) < cell.size)

    def _fill_tail(self, cell: Floats) -> Floats:
        return cell.reshape(-1)[: prod(self.shape)]

    def apply(self, column: NDArray[Any]) -> Encoded:
        lists = read_number_lists(column, self.read_format)
        values, problems = round_to_float32(self._scale_rows(self.read_cells(lists)))
        encoded = Encoded(values, problems={**problems, **self._find_problems(lists)})
        if not self.has_lengths:
            return self._note(lists, encoded)
        counts = lists.count_steps()
        values[np.arange(self.shape[0]) >= np.minimum(counts, self.shape[0])[:, None]] = 0
        cut = int((counts > self.shape[0]).sum())
        return self._note(lists, replace(encoded, lengths=np.clip(counts, 1, self.shape[0])), cut)

    def _scale_rows(self, values: Floats) -> Floats:
        """Fill what is missing in numbers (N, *shape), and scale them."""
        shift, divisor, fill = (
            each.reshape(-1, 1, 1) if len(self.shape) == 3 else each
            for each in (self.scale.shift, self.scale.divisor, self.fill)
        )
        is_missing = np.isnan(values)
        filled = np.where(is_missing, fill, values) if is_missing.any() else values
        return LinearScale(shift, divisor).apply(filled)

    def _find_problems(self, lists: NumberLists) -> dict[int, str]:
        problems = dict(lists.wrong)
        if self._fits_matrix(lists.matrix):
            return problems
        for row, cell in enumerate(lists.cells):
            if cell is None:
                continue
            if self.has_lengths and not self._has_channels(cell):
                problems[row] = (
                    f"items of shape {format_shape(cell.shape[1:])}, expected {format_shape(self.shape[1:])}"
                )
            if not self.has_lengths and not self._fits(cell):
                problems[row] = f"{cell.size:,} numbers, expected {prod(self.shape):,}"
        return problems

    def _note(self, lists: NumberLists, encoded: Encoded, cut: int = 0) -> Encoded:
        gaps = np.flatnonzero(lists.missing)
        if self.missing == "refuse":
            problems = {**encoded.problems, **dict.fromkeys(gaps.tolist(), "the target is missing")}
            return replace(encoded, problems=problems)
        if self.missing != FILL:
            return replace(encoded, dropped=gaps) if self.missing == "drop" else replace(encoded, ignored=gaps)
        notes = {key: count for key, count in (("missing", len(gaps)), ("cut", cut)) if count}
        return replace(encoded, notes=notes)

    def invert(self, values: NDArray[Any]) -> Floats:
        """Convert scaled numbers (N, *shape) to their own unit, in double precision."""
        columns = self.flatten(np.asarray(values, np.float64))
        return np.asarray(self.unflatten(self.scale.invert(columns)))

    def module(self) -> nn.Module:
        from dlspec.data.prepare.kinds.modules import NumbersModule

        return NumbersModule(self.fill, self.scale, len(self.shape), self.has_lengths)

    def to_json(self) -> dict[str, Any]:
        cells = NumericCells(self.read_format).to_json()
        saved = {"kind": self.kind, "cells": cells, "shape": list(self.shape), "has_lengths": self.has_lengths}
        return {**saved, "missing": self.missing, "fill": self.fill.tolist(), "scale": self.scale.to_json()}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedNumbers:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, ("cells", "shape", "has_lengths", "missing", "fill", "scale"))
        shape, scale = _read_shape(values.values["shape"]), scale_from_json(values.values["scale"])
        width = shape[0] if len(shape) != 2 else shape[1]
        fill = np.array(values.get_numbers("fill"))
        has_lengths = values.get_flag("has_lengths")
        if not isinstance(scale, LinearScale) or scale.shift.shape not in ((1,), (width,)) or len(fill) != width:
            raise make_saved_error("scale and fill must be as long as a row has numbers or channels")
        if has_lengths and len(shape) != 2:
            raise make_saved_error("only sequences have lengths")
        missing = values.get_choice("missing", (FILL, *MISSING_TARGETS))
        read = NumericCells.from_json(values.values["cells"]).read
        return cls(read, shape, has_lengths, missing, fill, scale)


def _read_shape(saved: object) -> tuple[int, ...]:
    if not isinstance(saved, list) or not 1 <= len(saved) <= 3:
        raise make_saved_error("shape must be a list of one to three sizes")
    if not all(type(size) is int and size > 0 for size in saved) or prod(saved) > MAX_SIZE:
        raise make_saved_error(f"shape must be whole numbers above 0, got {format_value(saved)}")
    return tuple(saved)
