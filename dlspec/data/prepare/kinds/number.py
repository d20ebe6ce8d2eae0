"""The kind `number`: missing cells filled, an indicator of gaps, scaled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from typing_extensions import override

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat, NumberCells
from dlspec.data.prepare.kinds.kind import (
    COLUMN_KINDS,
    ColumnKind,
    Encoded,
    FittedColumn,
    Role,
    Rows,
    register_kind,
    register_saved,
)
from dlspec.data.prepare.kinds.numeric_cells import NumericCells
from dlspec.data.prepare.kinds.saved_values import SavedValues
from dlspec.data.prepare.kinds.scales import Scale, ScaleName, fit_scale, round_to_float32, single_scale_from_json
from dlspec.data.prepare.kinds.setting_lines import format_drop_line
from dlspec.data.prepare.kinds.settings import CellText, Clip, check_clip
from dlspec.errors import Code, DataError

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float64]
Missing = Literal["median", "mean", "zero", "drop", "refuse"]
MISSING: tuple[Missing, ...] = ("median", "mean", "zero", "drop", "refuse")
FILLS: tuple[Missing, ...] = ("median", "mean", "zero")


class NumericKind(ColumnKind):
    """Settings that inputs and targets of numbers share."""

    scale: ScaleName = Field("standard", description="standard, quantile, log, minmax or none; fitted on training rows")
    clip: Clip = None
    values: list[CellText] | None = Field(None, description="an order of words, such as [low, mid, high]: 0, 1, 2")
    strip: str = Field("", max_length=100, description="characters to remove around numbers, such as $%")

    @field_validator("clip")
    @classmethod
    def _check_clip(cls, clip: tuple[float | None, float | None] | None) -> tuple[float | None, float | None] | None:
        check_clip(clip)
        return clip

    @model_validator(mode="after")
    def _check_values(self) -> NumericKind:
        if self.values is not None and len(set(self.values)) != len(self.values):
            raise ValueError("values must differ from each other")
        if self.values is not None and len(self.values) < 2:
            raise ValueError("values must list at least two words, from low to high")
        if self.values is not None and self.strip:
            raise ValueError("strip has no effect on values: remove one of them")
        return self

    def make_cells(self, read: CellFormat) -> NumericCells:
        """Make the reader of this kind's cells."""
        low, high = self.clip or (None, None)
        return NumericCells(read, self.strip, tuple(self.values or ()), low, high)


@register_kind("number", COLUMN_KINDS)
class Number(NumericKind):
    """A number: missing cells filled, an indicator where training had gaps, scaled."""

    role: ClassVar[Role] = "features"

    missing: Missing = Field("median", description="what a missing cell becomes, or drop or refuse its row")
    per: str | None = Field(
        None, min_length=1, description="a column of groups: a row is filled and scaled by the numbers of its group"
    )

    @field_validator("per")
    @classmethod
    def _normalize_per(cls, per: str | None) -> str | None:
        return None if per is None else normalize("NFC", per)

    @model_validator(mode="after")
    def _check_per(self) -> Number:
        if self.per is not None and self.scale == "none":
            raise ValueError("per has no effect with scale: none; remove one of them")
        return self

    @override
    def fit(self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = "") -> FittedNumber:
        cells = self.make_cells(read)
        found = cells.read_column(column[training])
        if np.isnan(found.values).all():
            raise make_empty_error(name)
        indicator = self.missing in FILLS and bool(found.missing.any())
        return FittedNumber(cells, self.missing, *self.fit_statistics(cells, found), indicator)

    def fit_statistics(self, cells: NumericCells, found: NumberCells) -> tuple[float, Scale]:
        """Fit what a missing cell becomes, and the scale, to cells of which at least one is a number."""
        fill = choose_fill(self.missing, cells.clip(found.values[~np.isnan(found.values)]))
        filled = np.where(np.isnan(found.values), fill, cells.clip(found.values))
        return fill, fit_scale(self.scale, filled[found_rows(found)])


def make_empty_error(name: str) -> DataError:
    """Make the error for a column without a number in the training rows."""
    found = f"the column '{name}' has no number in the training rows"
    return DataError(name, f"{found}; leave it out: {format_drop_line(name)}", Code.BAD_DATA)


def choose_fill(missing: Missing, known: Floats) -> float:
    """Return the number that a missing cell becomes; a median where no cell may be missing."""
    if missing == "zero":
        return 0.0
    return float(known.mean() if missing == "mean" else np.median(known))


def found_rows(found: NumberCells) -> NDArray[np.bool_]:
    """Return the rows whose cells are numbers or missing: wrong cells take no part in statistics."""
    return ~np.isnan(found.values) | found.missing


@register_saved("number")
@dataclass(frozen=True)
class FittedNumber(FittedColumn):
    """A fitted column of numbers: features (1,), or (2,) with an indicator of missing cells."""

    cells: NumericCells
    missing: Missing
    fill: float
    scale: Scale
    indicator: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return (1 + self.indicator,)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return ("value", "missing")[: 1 + self.indicator]

    def read(self, column: NDArray[Any]) -> Floats:
        return self.cells.read_column(column).values

    def apply(self, column: NDArray[Any]) -> Encoded:
        found = self.cells.read_column(column)
        return self.describe(found, *self.compute(found.values))

    def describe(self, found: NumberCells, values: NDArray[np.float32], problems: dict[int, str]) -> Encoded:
        """Add to the features which cells are wrong, and which are missing.

        Args:
            found: the cells
            values: their features
            problems: why a number can't be scaled, by row
        """
        problems |= {row: self.cells.explain_wrong(cell) for row, cell in found.wrong.items()}
        gaps = np.flatnonzero(found.missing)
        if self.missing == "refuse":
            problems |= dict.fromkeys(gaps.tolist(), "the cell is missing")
        if self.missing == "drop":
            return Encoded(values, problems=problems, dropped=gaps)
        notes = {"missing": len(gaps)} if len(gaps) and not self.indicator and self.missing in FILLS else {}
        return Encoded(values, problems=problems, notes=notes)

    def compute(self, values: Floats) -> tuple[NDArray[np.float32], dict[int, str]]:
        """Make features of numbers, NaN for missing ones; and by row why a number can't be scaled."""
        missing = np.isnan(values)
        filled = np.where(missing, self.fill, self.cells.clip(values))
        scaled, problems = round_to_float32(self.scale.apply(filled))
        columns = [scaled, missing.astype(np.float32)] if self.indicator else [scaled]
        return np.stack(columns, axis=1), problems

    def module(self) -> nn.Module:
        from dlspec.data.prepare.kinds.modules import NumberModule

        return NumberModule(self.cells, self.fill, self.indicator, self.scale)

    def to_json(self) -> dict[str, Any]:
        saved = {"kind": self.kind, "cells": self.cells.to_json(), "missing": self.missing, "fill": self.fill}
        return {**saved, "indicator": self.indicator, "scale": self.scale.to_json()}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedNumber:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, ("cells", "missing", "fill", "indicator", "scale"))
        cells = NumericCells.from_json(values.values["cells"])
        scale = single_scale_from_json(values.values["scale"])
        missing = next(each for each in MISSING if each == values.get_choice("missing", MISSING))
        return cls(cells, missing, values.get_number("fill"), scale, values.get_flag("indicator"))
