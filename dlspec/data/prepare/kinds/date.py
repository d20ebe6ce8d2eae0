"""The kind `date`: its year as a scaled number, and month, day, weekday and hour each as a point on a circle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from typing_extensions import override

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat
from dlspec.data.prepare.kinds.date_cells import DATE_PARTS, DateCells, DatePart, read_dates
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
from dlspec.data.prepare.kinds.saved_values import SavedValues, make_saved_error
from dlspec.data.prepare.kinds.scales import fit_standard
from dlspec.data.prepare.kinds.setting_lines import format_columns_line, format_drop_line
from dlspec.errors import Code, DataError, format_value

if TYPE_CHECKING:
    from torch import nn

MAX_FORMAT = 100  # characters
# The first value of each part on a circle, and after how many values it starts again.
CIRCLES: Mapping[str, tuple[int, int]] = {"month": (1, 12), "day": (1, 31), "weekday": (0, 7), "hour": (0, 24)}


@register_kind("date", COLUMN_KINDS)
class Date(ColumnKind):
    """A date or a moment, as features."""

    role: ClassVar[Role] = "features"

    format: str | None = Field(
        None, max_length=MAX_FORMAT, description="how dates are written, such as '%d.%m.%Y'; null: as 2024-12-31"
    )
    parts: tuple[DatePart, ...] | None = Field(
        None,
        min_length=1,
        strict=False,
        description="which parts are features; null: all, without the hour if training rows have no times",
    )

    @field_validator("format")
    @classmethod
    def _check_format(cls, form: str | None) -> str | None:
        if form is not None and not is_date_format(form):
            raise ValueError(f"expected a date format such as '%d.%m.%Y %H:%M', got {format_value(form)}")
        return form

    @field_validator("parts")
    @classmethod
    def _check_parts(cls, parts: tuple[DatePart, ...] | None) -> tuple[DatePart, ...] | None:
        if parts is not None and len(set(parts)) < len(parts):
            raise ValueError("parts lists a part twice")
        return parts

    @override
    def fit(self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = "") -> FittedDate:
        found = read_dates(column[training], DATE_PARTS, self.format)
        known = found.parts[~np.isnan(found.parts[:, 0])]
        if not len(known):
            form = format_columns_line(name, '{date: {format: "%d.%m.%Y"}}')
            fix = f"write the format of its dates, such as {form}, or {format_drop_line(name)}"
            raise DataError(name, f"the column '{name}' has no date in the training rows; {fix}", Code.BAD_DATA)
        scale = fit_standard(known[:, DATE_PARTS.index("year")])
        has_times = known[:, DATE_PARTS.index("hour")].any()
        if "hour" in (self.parts or ()) and not has_times:
            why = f"no training row of '{name}' has a time, so the hour is always 0"
            raise DataError(name, f"{why}; remove hour from its parts", Code.UNUSED)
        parts = self.parts or tuple(part for part in DATE_PARTS if part != "hour" or has_times)
        return FittedDate(self.format, parts, float(scale.shift), float(scale.divisor), bool(found.missing.any()))


def is_date_format(form: str) -> bool:
    """Whether `strptime` reads back what this format writes, with at least the year, month or day."""
    date = datetime(2003, 2, 27, 13, 45)
    try:
        read = datetime.strptime(date.strftime(form), form)
    except ValueError:
        return False
    return (read.year, read.month, read.day) != (1900, 1, 1)


@register_saved("date")
@dataclass(frozen=True)
class FittedDate(FittedColumn):
    """A fitted column of dates. A missing date is 0 in all parts: the mean year, and the middle of each circle."""

    format: str | None
    parts: tuple[DatePart, ...]
    mean_year: float
    year_deviation: float
    indicator: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.feature_names),)

    @property
    def feature_names(self) -> tuple[str, ...]:
        names = [[part] if part not in CIRCLES else [f"{part} sin", f"{part} cos"] for part in self.parts]
        return (*(name for each in names for name in each), *["missing"] * self.indicator)

    def read(self, column: NDArray[Any]) -> NDArray[np.float64]:
        """Convert cells to the parts of their dates (N, P), NaN where a cell is missing."""
        return self._read(column).parts

    def _read(self, column: NDArray[Any]) -> DateCells:
        return read_dates(column, self.parts, self.format)

    def apply(self, column: NDArray[Any]) -> Encoded:
        found = self._read(column)
        features = [
            each for number, part in enumerate(self.parts) for each in self._scale(part, found.parts[:, number])
        ]
        features = [np.nan_to_num(each) for each in features] + [
            np.isnan(found.parts[:, 0]).astype(float)
        ] * self.indicator
        expected = "a date such as 2024-12-31" if self.format is None else f"a date in the format {self.format}"
        problems = {row: f"'{cell}' is not {expected}" for row, cell in found.wrong.items()}
        gaps = 0 if self.indicator else int(found.missing.sum())
        values = np.stack(features, axis=1).astype(np.float32)
        return Encoded(values, problems=problems, notes={"missing": gaps} if gaps else {})

    def _scale(self, part: DatePart, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        if part not in CIRCLES:
            return [(values - self.mean_year) / self.year_deviation]
        first, period = CIRCLES[part]
        angle = (values - first) * (2 * np.pi / period)
        return [np.sin(angle), np.cos(angle)]

    def module(self) -> nn.Module:
        from dlspec.data.prepare.kinds.modules import DateModule

        circles = [CIRCLES.get(part) for part in self.parts]
        return DateModule(circles, (self.mean_year, self.year_deviation), self.indicator)

    def to_json(self) -> dict[str, Any]:
        year = {"mean_year": self.mean_year, "year_deviation": self.year_deviation}
        saved = {"kind": self.kind, "format": self.format, "parts": list(self.parts)}
        return {**saved, **year, "indicator": self.indicator}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedDate:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, ("format", "parts", "mean_year", "year_deviation", "indicator"))
        form = None if values.values["format"] is None else values.get_text("format", MAX_FORMAT)
        if form is not None and not is_date_format(form):
            raise make_saved_error("format must be a date format")
        names, deviation = values.get_texts("parts", len(DATE_PARTS)), values.get_number("year_deviation")
        parts = tuple(part for name in names for part in DATE_PARTS if part == name)
        if not parts or len(parts) != len(names) or deviation <= 0:
            raise make_saved_error("parts must be parts of a date, and year_deviation above 0")
        return cls(form, parts, values.get_number("mean_year"), deviation, values.get_flag("indicator"))
