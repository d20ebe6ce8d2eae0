"""The kind `number` with `per: COLUMN`: each group of rows is filled and scaled by its own training rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat, NumberCells, list_cells
from dlspec.data.prepare.kinds.kind import Encoded, FittedColumn, Rows, register_saved
from dlspec.data.prepare.kinds.number import FittedNumber, Floats, Number
from dlspec.data.prepare.kinds.saved_values import SavedValues, make_saved_error
from dlspec.data.prepare.kinds.scales import single_scale_from_json
from dlspec.errors import Code, DataError

if TYPE_CHECKING:
    from torch import nn

MAX_GROUPS = 100_000  # with statistics of their own: they are saved with the run


def fit_grouped_number(
    kind: Number, column: NDArray[Any], groups: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str
) -> FittedGroupedNumber:
    """Fit a number to all training rows, and to those of each group with at least two different numbers.

    Args:
        kind: the settings, with `per`
        column: the cells of all rows
        groups: the group of each row
        training: the training rows
        read: how the file writes numbers
        name: the column's name, for messages

    Raises:
        DataError: if no group has two different numbers, or there are too many groups.
    """
    whole = kind.fit(column, training, read=read, name=name)
    found = whole.cells.read_column(column[training])
    fitted = dict(_fit_groups(kind, whole, found, groups[training]))
    if not fitted or len(fitted) > MAX_GROUPS:
        what = "no group" if not fitted else f"{len(fitted):,} groups, more than {MAX_GROUPS:,},"
        explanation = f"{what} of '{kind.per}' has two different numbers of '{name}' in the training rows"
        raise DataError(f"columns.{name}.number.per", f"{explanation}; choose another column, or remove per",
                        Code.BAD_DATA)  # fmt: skip
    return FittedGroupedNumber(whole, str(kind.per), fitted)


def _fit_groups(
    kind: Number, whole: FittedNumber, found: NumberCells, groups: NDArray[Any]
) -> Iterator[tuple[str, FittedNumber]]:
    clipped = whole.cells.clip(found.values)
    for group, rows in _list_rows_of_groups(groups):
        known = clipped[rows][~np.isnan(clipped[rows])]
        if group is not None and len(known) and known.min() < known.max():
            fill, scale = kind.fit_statistics(whole.cells, NumberCells(found.values[rows], found.missing[rows], {}))
            yield group, replace(whole, fill=fill, scale=scale)


def _list_rows_of_groups(groups: NDArray[Any]) -> Iterator[tuple[str | None, Rows]]:
    """Yield each group, None for rows without one, with its rows."""
    rows_of: dict[str | None, list[int]] = {}
    for row, group in enumerate(list_cells(groups)):
        rows_of.setdefault(group, []).append(row)
    for group, rows in rows_of.items():
        yield group, np.array(rows, np.int64)


@register_saved("grouped_number")
@dataclass(frozen=True)
class FittedGroupedNumber(FittedColumn):
    """A column of numbers, fitted to each group of rows.

    A row whose group is missing, was not in the training rows, or had no two different numbers there is encoded by the
    numbers of all training rows.
    """

    whole: FittedNumber  # fitted to all training rows
    per: str  # the column of the groups
    groups: Mapping[str, FittedNumber]  # these differ from `whole` in `fill` and `scale`

    @property
    def shape(self) -> tuple[int, ...]:
        return self.whole.shape

    @property
    def feature_names(self) -> tuple[str, ...]:
        return self.whole.feature_names

    def apply(self, column: NDArray[Any], groups: NDArray[Any] | None = None) -> Encoded:
        """Encode a column (N,) with the group of each row (N,)."""
        found = self.whole.cells.read_column(column)
        values = np.zeros((len(column), *self.shape), np.float32)
        problems: dict[int, str] = {}
        others = 0  # rows without a group of the training rows
        for group, rows in _list_rows_of_groups(self._check_groups(groups)):
            fitted = self.groups.get(group, self.whole) if group is not None else self.whole
            values[rows], wrong = fitted.compute(found.values[rows])
            problems |= {int(rows[position]): why for position, why in wrong.items()}
            others += len(rows) if fitted is self.whole else 0
        encoded = self.whole.describe(found, values, problems)
        return replace(encoded, notes={**encoded.notes, "ungrouped": others}) if others else encoded

    def read(self, column: NDArray[Any], groups: NDArray[Any] | None = None) -> Floats:
        """Convert cells to numbers and the index of their group (N, 2); the index 0 is that of other groups."""
        index = {group: number for number, group in enumerate(self.groups, start=1)}
        cells = list_cells(self._check_groups(groups))
        numbers = [0 if cell is None else index.get(cell, 0) for cell in cells]
        return np.stack([self.whole.read(column), np.array(numbers, np.float64)], axis=1)

    def _check_groups(self, groups: NDArray[Any] | None) -> NDArray[Any]:
        if groups is None:
            raise TypeError(f"the groups of '{self.per}' are needed")
        return groups

    def module(self) -> nn.Module:
        from dlspec.data.prepare.kinds.modules import GroupedNumberModule

        fitted = [self.whole, *self.groups.values()]
        fills = np.array([each.fill for each in fitted])
        return GroupedNumberModule(self.whole.cells, fills, self.whole.indicator, [each.scale for each in fitted])

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "whole": self.whole.to_json(),
            "per": self.per,
            "groups": list(self.groups),
            "fills": [each.fill for each in self.groups.values()],
            "scales": [each.scale.to_json() for each in self.groups.values()],
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedGroupedNumber:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, ("whole", "per", "groups", "fills", "scales"))
        whole_json, scales = values.values["whole"], values.values["scales"]
        if not isinstance(whole_json, Mapping) or whole_json.get("kind") != "number" or not isinstance(scales, list):
            raise make_saved_error("expected the number of all rows, and a list of scales")
        whole = FittedNumber.from_json(whole_json)
        groups, fills = values.get_texts("groups", MAX_GROUPS), values.get_numbers("fills", MAX_GROUPS)
        if not len(groups) == len(fills) == len(scales):
            raise make_saved_error("groups, fills and scales must be equally many")
        fitted = [replace(whole, fill=fill, scale=single_scale_from_json(scale))
                  for fill, scale in zip(fills, scales, strict=True)]  # fmt: skip
        if any(type(each.scale) is not type(whole.scale) for each in fitted):
            raise make_saved_error("the scales of all groups must be of one kind")
        return cls(whole, values.get_text("per"), dict(zip(groups, fitted, strict=True)))
