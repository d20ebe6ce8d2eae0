"""What was fitted on the training rows of a table: every column, and how columns become fields. Saved as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.dataset import make_field_name
from dlspec.data.encoding.column_choice import ColumnChoice
from dlspec.data.encoding.fields import FieldForm, FieldPlan, plan_fields
from dlspec.data.encoding.stacked_columns import Stacks
from dlspec.data.prepare.kinds.cells import CellFormat
from dlspec.data.prepare.kinds.grouped_number import FittedGroupedNumber, fit_grouped_number
from dlspec.data.prepare.kinds.kind import ColumnKind, FittedColumn, fitted_from_json
from dlspec.data.prepare.kinds.number import Number
from dlspec.errors import Code, DataError

Columns = Mapping[str, NDArray[Any]]
SAVED_FORMAT = 1
FORMS: tuple[FieldForm, ...] = ("features", "tokens", "own")


@dataclass(frozen=True)
class FittedTable:
    """The fitted columns of a table. It encodes any rows in the same way as those of the run."""

    inputs: Mapping[str, FittedColumn]
    targets: Mapping[str, FittedColumn]
    fields: tuple[FieldPlan, ...]
    stacks: Stacks = field(default_factory=dict)  # the columns that others are made of
    id: str = ""  # the column that identifies a row in predictions
    weight: str = ""  # the column with each row's factor in loss and metrics

    @property
    def group_columns(self) -> tuple[str, ...]:
        """The columns that say which group a number belongs to: `per`."""
        groups = [each.per for each in self.inputs.values() if isinstance(each, FittedGroupedNumber)]
        return tuple(dict.fromkeys(groups))

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values, for checkpoints and prepare.json."""
        return {
            "format": SAVED_FORMAT,
            "fields": {plan.name: plan.to_json() for plan in self.fields},
            "columns": {name: column.to_json() for name, column in self.inputs.items()},
            "targets": {name: column.to_json() for name, column in self.targets.items()},
            "stacks": {name: list(members) for name, members in self.stacks.items()},
            "id": self.id,
            "weight": self.weight,
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedTable:
        """Rebuild from the result of `to_json`; DataError if that is damaged or of a newer version."""
        if saved.get("format") != SAVED_FORMAT:
            raise _make_saved_error(f"its format is {saved.get('format')!r}, expected {SAVED_FORMAT}")
        inputs, targets = (_columns_from_json(saved.get(key)) for key in ("columns", "targets"))
        fields = tuple(_plan_from_json(name, each, inputs) for name, each in _as_mapping(saved.get("fields")).items())
        names = [saved.get("id", ""), saved.get("weight", "")]
        if not all(isinstance(name, str) for name in names):
            raise _make_saved_error("id and weight must be names of columns")
        stacks = {str(name): _read_names(each) for name, each in _as_mapping(saved.get("stacks", {})).items()}
        return cls(inputs, targets, fields, stacks, *names)


def _columns_from_json(saved: object) -> dict[str, FittedColumn]:
    return {str(name): fitted_from_json(each) for name, each in _as_mapping(saved).items()}


def _plan_from_json(name: str, saved: object, inputs: Mapping[str, FittedColumn]) -> FieldPlan:
    plan = _as_mapping(saved)
    columns, form = plan.get("columns"), next((each for each in FORMS if each == plan.get("form")), None)
    if (
        not isinstance(columns, list)
        or not columns
        or not all(isinstance(each, str) and each in inputs for each in columns)
        or form is None
    ):
        raise _make_saved_error(f"the field '{name}' must have a form and columns that are fitted")
    return FieldPlan(str(name), tuple(columns), form)


def _read_names(saved: object) -> tuple[str, ...]:
    if not isinstance(saved, list) or not saved or not all(isinstance(name, str) for name in saved):
        raise _make_saved_error("stacks must be lists of columns")
    return tuple(saved)


def _as_mapping(saved: object) -> Mapping[str, Any]:
    if not isinstance(saved, Mapping):
        raise _make_saved_error("it must have mappings of columns, targets and fields")
    return saved


def _make_saved_error(why: str) -> DataError:
    return DataError("prepare", f"the saved preparation can't be used: {why}", Code.WRONG_VALUE)


def fit_table(
    columns: Columns,
    choice: ColumnChoice,
    training: NDArray[np.int64],
    *,
    file_rows: NDArray[np.int64],
    fields: Mapping[str, Sequence[str]],
    read: CellFormat,
    stacks: Stacks,
    id: str = "",
    weight: str = "",
) -> FittedTable:
    """Fit every input and target to the training rows.

    Args:
        columns: the cells of all rows: classes are facts of all rows, statistics of the training rows alone
        choice: the kinds of the columns
        training: the training rows
        file_rows: those whose files statistics may be taken from: all training rows, or a few for an outline
        fields: the setting `fields`
        read: how the file writes numbers
        stacks: the columns that others are made of
        id: the column that identifies a row
        weight: the column with each row's factor

    Returns:
        The fitted table.
    """

    def fit(kind: ColumnKind, name: str) -> FittedColumn:
        return fit_column(kind, name, columns, file_rows if kind.reads_files else training, read)

    inputs = {name: fit(kind, name) for name, kind in choice.inputs.items()}
    targets = {name: fit(kind, name) for name, kind in choice.targets.items()}
    plans = plan_fields(inputs, fields, [make_field_name(name) for name in targets])
    return FittedTable(inputs, targets, plans, stacks, id, weight)


def fit_column(
    kind: ColumnKind, name: str, columns: Columns, training: NDArray[np.int64], read: CellFormat
) -> FittedColumn:
    """Fit one column.

    Args:
        kind: its settings
        name: its name
        columns: the cells of all rows, by column
        training: the training rows
        read: how the file writes numbers
    """
    if isinstance(kind, Number) and kind.per is not None:
        return fit_grouped_number(kind, columns[name], columns[kind.per], training, read=read, name=name)
    return kind.fit(columns[name], training, read=read, name=name)


def check_columns(fitted: FittedTable, columns: Columns) -> None:
    """Raise DataError if a table lacks a column that was fitted."""
    needed = [member for name in (*fitted.inputs, *fitted.targets) for member in fitted.stacks.get(name, (name,))]
    needed += fitted.group_columns
    missing = [name for name in needed if name not in columns]
    if missing:
        found = f"no column '{missing[0]}', which the saved preparation needs"
        raise DataError("prepare", f"{found}; the table has {', '.join(list(columns)[:12])}", Code.UNKNOWN_FIELD)
