"""Encode rows of a table with what was fitted: the arrays of every field and target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.dataset import make_field_name
from dlspec.data.encoding.fields import FieldPlan
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.prepare.kinds.category import FittedCategory
from dlspec.data.prepare.kinds.grouped_number import FittedGroupedNumber
from dlspec.data.prepare.kinds.kind import IGNORED, Encoded, FittedColumn
from dlspec.errors import Code, DataError
from dlspec.limits import GIGABYTE, MAX_DATA_BYTES

Columns = Mapping[str, NDArray[Any]]
Rows = NDArray[np.int64] | range  # a range of consecutive rows is encoded without a copy of their cells
WEIGHT_SUFFIX = " weights"  # with a space, so that no field has this name


@dataclass
class EncodedRows:
    """Encoded rows, by field and target."""

    # Arrays, or a `LazyArray` of samples that are read batch by batch. With `NAME_lengths` and sample weights.
    fields: dict[str, Any] = field(default_factory=dict)
    targets: dict[str, Any] = field(default_factory=dict)
    problems: dict[int, list[str]] = field(default_factory=dict)  # by row of the table: why cells can't be read
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)  # (what, column): how often


def encode_rows(fitted: FittedTable, columns: Columns, rows: Rows, *, with_targets: bool = True) -> EncodedRows:
    """Encode some rows of a table.

    Args:
        fitted: what was fitted on the training rows
        columns: the cells of the whole table
        rows: the rows to encode
        with_targets: whether to encode the targets and sample weights too
    """
    encoded = EncodedRows()
    for plan in fitted.fields:
        _ENCODERS[plan.form](plan, fitted.inputs, columns, rows, encoded)
    if with_targets:
        weights = _read_weights(fitted.weight, columns, rows, encoded)
        for name, target in fitted.targets.items():
            _encode_target(name, target, _take_rows(columns[name], rows), rows, weights, encoded)
    return encoded


def apply_column(fitted: FittedColumn, name: str, columns: Columns, rows: Rows) -> Encoded:
    """Encode some rows of one column, by their groups if it was fitted to groups.

    Args:
        fitted: what was fitted
        name: the column
        columns: the cells of the whole table
        rows: the rows to encode
    """
    if isinstance(fitted, FittedGroupedNumber):
        return fitted.apply(_take_rows(columns[name], rows), _take_rows(columns[fitted.per], rows))
    return fitted.apply(_take_rows(columns[name], rows))


def _take_rows(column: NDArray[Any], rows: Rows) -> NDArray[Any]:
    return column[rows.start : rows.stop] if isinstance(rows, range) else column[rows]


def _note(encoded: EncodedRows, name: str, found: Encoded, rows: Rows) -> None:
    for position, reason in found.problems.items():
        encoded.problems.setdefault(int(rows[position]), []).append(f"{name}: {reason}")
    for what, count in found.notes.items():
        encoded.notes[what, name] += count


def _encode_features(
    plan: FieldPlan, fitted: Mapping[str, FittedColumn], columns: Columns, rows: Rows, encoded: EncodedRows
) -> None:
    """Put the features of all columns side by side."""
    width = sum(fitted[name].shape[0] for name in plan.columns)
    size = 4 * width * len(rows)
    if size > MAX_DATA_BYTES:
        found = f"{len(rows):,} rows of {width:,} features take {size / GIGABYTE:,.1f} GB"
        fix = "leave columns out with data.drop, or give categories fields of their own with data.fields"
        raise DataError(
            "columns", f"{found}; at most {MAX_DATA_BYTES // GIGABYTE} GB are allowed: {fix}", Code.TOO_LARGE
        )
    values, start = np.empty((len(rows), width), np.float32), 0
    for name in plan.columns:
        part = apply_column(fitted[name], name, columns, rows)
        end = start + fitted[name].shape[0]
        values[:, start:end] = part.values
        start = end
        _note(encoded, name, part, rows)
    encoded.fields[plan.name] = values


def _encode_tokens(
    plan: FieldPlan, fitted: Mapping[str, FittedColumn], columns: Columns, rows: Rows, encoded: EncodedRows
) -> None:
    """Make one token of each category; the columns of a field have a range of tokens each."""
    values, first = np.empty((len(rows), len(plan.columns)), np.int64), 0
    for position, name in enumerate(plan.columns):
        column = fitted[name]
        assert isinstance(column, FittedCategory)  # `plan_fields` chose this form
        found = column.encode_tokens(_take_rows(columns[name], rows))
        values[:, position] = found.values[:, 0] + first
        first += column.vocab_size
        _note(encoded, name, found, rows)
    encoded.fields[plan.name] = values


def _encode_own(
    plan: FieldPlan, fitted: Mapping[str, FittedColumn], columns: Columns, rows: Rows, encoded: EncodedRows
) -> None:
    """Encode the only column of a field."""
    (name,) = plan.columns
    found = apply_column(fitted[name], name, columns, rows)
    encoded.fields[plan.name] = found.values
    if found.lengths is not None:
        encoded.fields[f"{plan.name}_lengths"] = found.lengths
    _note(encoded, name, found, rows)


_ENCODERS = {"features": _encode_features, "tokens": _encode_tokens, "own": _encode_own}


def _encode_target(
    name: str, target: FittedColumn, cells: NDArray[Any], rows: Rows, weights: NDArray[np.float32] | None,
    encoded: EncodedRows,
) -> None:  # fmt: skip
    """Encode a target; rows whose target is ignored have the weight 0."""
    found = target.apply(cells)
    _note(encoded, name, found, rows)
    field_name, values = make_field_name(name), found.values
    if len(found.ignored) or getattr(target, "missing", "") == "ignore":
        weights = np.ones(len(rows), np.float32) if weights is None else weights.copy()
        weights[found.ignored] = 0
    if values.dtype == np.int64 and values.ndim == 1:
        values = np.where(values == IGNORED, 0, values)
    encoded.targets[field_name] = values
    if found.lengths is not None:
        encoded.fields[f"{field_name}_lengths"] = found.lengths
    if weights is not None:
        encoded.fields[f"{field_name}{WEIGHT_SUFFIX}"] = weights


def _read_weights(name: str, columns: Columns, rows: Rows, encoded: EncodedRows) -> NDArray[np.float32] | None:
    """Read the sample weights: numbers of at least 0."""
    from dlspec.data.prepare.kinds.cells import read_numbers

    if not name:
        return None
    cells = read_numbers(_take_rows(columns[name], rows))
    wrong = {**cells.wrong, **dict.fromkeys(np.flatnonzero(cells.missing).tolist(), "the weight is missing")}
    wrong |= dict.fromkeys(np.flatnonzero(cells.values < 0).tolist(), "a weight must be at least 0")
    _note(encoded, name, Encoded(cells.values, problems=wrong), rows)
    return np.nan_to_num(cells.values).astype(np.float32)
