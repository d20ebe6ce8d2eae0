"""The target `value`: a number, trained on a scale, with results in its own unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat
from dlspec.data.prepare.kinds.class_table import MissingTarget, encode_missing_targets, read_missing_target
from dlspec.data.prepare.kinds.kind import (
    TARGET_KINDS,
    Encoded,
    FittedColumn,
    Role,
    Rows,
    register_kind,
    register_saved,
)
from dlspec.data.prepare.kinds.number import Floats, NumericKind
from dlspec.data.prepare.kinds.numeric_cells import NumericCells
from dlspec.data.prepare.kinds.saved_values import SavedValues
from dlspec.data.prepare.kinds.scales import (
    QuantileScale,
    Scale,
    extend_quantiles,
    fit_scale,
    round_to_float32,
    single_scale_from_json,
)
from dlspec.errors import DataError


@register_kind("value", TARGET_KINDS)
class ValueTarget(NumericKind):
    """A number to predict. Results are reported in its own unit, whatever the scale."""

    role: ClassVar[Role] = "target"

    missing: MissingTarget = Field("refuse", description="refuse a row without a number, drop it, or ignore its loss")

    @override
    def fit(self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = "") -> FittedValue:
        cells = self.make_cells(read)
        found = cells.read_column(column[training]).values
        known = cells.clip(found[~np.isnan(found)])
        if not len(known):
            raise DataError("target", f"the target '{name}' has no number in the training rows")
        if known.min() == known.max():
            raise DataError("target", f"every training row of the target '{name}' is {known[0]:g}; nothing to learn")
        scale = fit_scale(self.scale, known)
        scale = extend_quantiles(scale) if isinstance(scale, QuantileScale) else scale
        return FittedValue(cells, self.missing, scale)


@register_saved("value")
@dataclass(frozen=True)
class FittedValue(FittedColumn):
    """A fitted target of numbers (N,) float32; 0 where the cell is missing or wrong."""

    cells: NumericCells
    missing: MissingTarget
    scale: Scale

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    def apply(self, column: NDArray[Any]) -> Encoded:
        found = self.cells.read_column(column)
        known = ~np.isnan(found.values)
        scaled = np.zeros(len(known))
        clipped = self.cells.clip(found.values[known])
        scaled[known] = self.scale.apply(clipped)
        values, problems = round_to_float32(scaled)
        if isinstance(self.scale, QuantileScale):
            rows = np.flatnonzero(known)[~self.scale.covers(clipped)]
            problems |= dict.fromkeys(rows.tolist(), "too far from the training rows for quantiles: use scale: log")
        problems |= {row: self.cells.explain_wrong(cell) for row, cell in found.wrong.items()}
        marks = [None if gap else gap for gap in found.missing.tolist()]
        return encode_missing_targets(values, marks, self.missing, problems)

    def invert(self, values: NDArray[Any]) -> Floats:
        """Convert scaled numbers to their own unit, in double precision."""
        return self.scale.invert(np.asarray(values, np.float64))

    def to_json(self) -> dict[str, Any]:
        saved = {"kind": self.kind, "cells": self.cells.to_json(), "missing": self.missing}
        return {**saved, "scale": self.scale.to_json()}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedValue:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, ("cells", "missing", "scale"))
        cells, scale = NumericCells.from_json(values.values["cells"]), single_scale_from_json(values.values["scale"])
        return cls(cells, read_missing_target(values), scale)
