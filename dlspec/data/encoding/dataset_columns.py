"""How rows of columns become the fields of any data set: also of one that was not read from a table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from dlspec.data.dataset import Dataset, Field, Target
from dlspec.data.encoding.fields import FieldPlan
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.prepare.kinds.array_column import FittedArray, find_range
from dlspec.data.prepare.kinds.class_table import ClassTable
from dlspec.data.prepare.kinds.class_target import FittedClasses
from dlspec.data.prepare.kinds.kind import FittedColumn, fitted_from_json
from dlspec.data.prepare.kinds.plain_kinds import Divided, Standardized
from dlspec.data.prepare.kinds.scales import LinearScale
from dlspec.errors import DataError
from dlspec.layouts import guess_layout


def make_fitted_table(data: Dataset) -> FittedTable | None:
    """Make what encodes new rows as the samples of a data set were encoded.

    A field is a column of its name, or the columns that `Dataset.column_names` lists. Data without a preparation of
    their own are arrays, which are used as they are.

    Returns:
        The table; None for a source of the user's own whose preparation dlspec does not know.

    Raises:
        DataError: if a saved table is damaged.
    """
    if isinstance(data.preprocessing.get("columns"), Mapping):
        return FittedTable.from_json(data.preprocessing)
    try:
        names = {each.name: data.column_names.get(each.name, (each.name,)) for each in data.fields}
        columns = {_name_column(each, names): _fit_field(each, data) for each in data.fields}
        targets = {each.name: _fit_target(each, data) for each in data.targets if not _is_next_of_field(each)}
    except DataError:
        return None
    plans = tuple(FieldPlan(each.name, (_name_column(each, names),), "own") for each in data.fields)
    return FittedTable(columns, targets, plans, {name: each for name, each in names.items() if len(each) > 1})


def _name_column(field: Field, names: Mapping[str, tuple[str, ...]]) -> str:
    """Return the column of a field: the field's own name for one that several columns are put together for."""
    columns = names[field.name]
    return columns[0] if len(columns) == 1 else field.name


def _is_next_of_field(target: Target) -> bool:
    """Whether the target is made of a field's tokens, so that no column contains it."""
    return target.next_of not in ("", target.name)


def _fit_field(field: Field, data: Dataset) -> FittedColumn:
    saved = data.preprocessing.get(field.name)
    fitted = None if saved is None else fitted_from_json(saved)
    if fitted is None or isinstance(fitted, Divided):
        divisor = 1.0 if fitted is None else fitted.by
        bounds = None
        values = data.train.tensors.get(field.name)
        if field.vocab_size is None and not data.is_described and isinstance(values, Tensor):
            bounds = find_range(values.numpy())
        bounds = None if bounds is None else (bounds[0] * divisor, bounds[1] * divisor)
        return FittedArray(field.shape, field.layout, field.vocab_size, field.has_lengths, divisor, bounds)
    if fitted.shape != field.shape:
        raise DataError(field.name, f"the field '{field.name}' has another shape than its preparation")
    return fitted


def _fit_target(target: Target, data: Dataset) -> FittedColumn:
    saved = data.preprocessing.get(target.name)
    if saved is not None:
        return fitted_from_json(saved)
    if target.kind == "classes" and not target.shape:
        return FittedClasses(ClassTable(target.classes, None), "refuse")
    linear = None if target.scale is None or target.shape else target.scale.mean_and_deviation
    if linear is not None:
        return Standardized(LinearScale(np.array(linear[0]), np.array(linear[1])))
    classes = len(target.classes) if target.kind == "classes" else None
    layout = "tokens" if len(target.shape) == 1 and classes else guess_layout(target.shape)
    has_lengths = bool(target.lengths) and f"{target.lengths}_lengths" in data.train.tensors
    return FittedArray(target.shape, layout, classes, has_lengths)
