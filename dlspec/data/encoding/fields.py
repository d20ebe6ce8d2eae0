"""Group encoded columns into the fields that a network takes, and describe targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dlspec.data.dataset import Field, Target, make_field_name
from dlspec.data.encoding.name_patterns import match_names
from dlspec.data.prepare.kinds.category import FittedCategory
from dlspec.data.prepare.kinds.kind import FittedColumn
from dlspec.data.prepare.kinds.scales import Scale
from dlspec.data.target_scale import TargetScale
from dlspec.errors import Code, DataError
from dlspec.formatting import format_argument

FEATURES = "features"  # the field of all numbers, dates and one-hot categories that no setting names
FieldForm = Literal["features", "tokens", "own"]


@dataclass(frozen=True)
class FieldPlan:
    """A field and the columns that it is made of."""

    name: str
    columns: tuple[str, ...]
    # features: the columns side by side; tokens: one token a column; own: the only column as its kind encodes it.
    form: FieldForm

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {"columns": list(self.columns), "form": self.form}


def plan_fields(
    fitted: Mapping[str, FittedColumn], written: Mapping[str, Sequence[str]], targets: Sequence[str]
) -> tuple[FieldPlan, ...]:
    """Group the inputs into fields: as written, else features side by side, and other kinds by themselves.

    Args:
        fitted: the inputs by column, in the order of the table
        written: the setting `fields`: names and patterns of columns by field
        targets: names of the targets, which no field may have

    Raises:
        DataError: if a column is in two fields, or a field's columns do not fit together.
    """
    plans, owner = [], dict[str, str]()
    for name, patterns in written.items():
        columns = tuple(match_names("fields", patterns, list(fitted)))
        for column in columns:
            if owner.setdefault(column, name) != name:
                found = f"'{column}' is in the fields '{owner[column]}' and '{name}'"
                raise DataError("fields", f"{found}; a column belongs to one field", Code.NAME_TAKEN)
        plans.append(_plan_written_field(name, columns, fitted))
    rest = [column for column in fitted if column not in owner]
    side_by_side = tuple(column for column in rest if is_feature(fitted[column]))
    if side_by_side:
        plans.append(FieldPlan(FEATURES, side_by_side, "features"))
    plans += [FieldPlan(make_field_name(each), (each,), "own") for each in rest if not is_feature(fitted[each])]
    _check_names(plans, targets)
    return tuple(plans)


def is_feature(column: FittedColumn) -> bool:
    """Whether a column can share a field with others: it has features, not steps or pixels."""
    return bool(column.feature_names) and len(column.shape) == 1


def _plan_written_field(name: str, columns: tuple[str, ...], fitted: Mapping[str, FittedColumn]) -> FieldPlan:
    if not name.isidentifier():
        found = f"'{name}' can't be a field's name: use letters, digits and _"
        raise DataError("fields", found, Code.INVALID_NAME)
    if all(isinstance(fitted[column], FittedCategory) for column in columns):
        return FieldPlan(name, columns, "tokens")
    if all(is_feature(fitted[column]) for column in columns):
        return FieldPlan(name, columns, "features")
    if len(columns) == 1:
        return FieldPlan(name, columns, "own")
    alone = next(column for column in columns if not is_feature(fitted[column]))
    found = f"'{alone}' ({fitted[alone].kind}) can't share the field '{name}' with other columns"
    raise DataError("fields", f"{found}; give it a field of its own", Code.CONFLICT)


def _check_names(plans: Sequence[FieldPlan], targets: Sequence[str]) -> None:
    taken = {name: f"the target '{name}'" for name in targets}
    for plan in plans:
        for name in (plan.name, f"{plan.name}_lengths"):
            if name in taken:
                found = f"the field '{plan.name}' and {taken[name]} have the same name"
                fix = f"name the field: {format_argument('data.fields', {'NAME': [plan.columns[0]]})}"
                raise DataError("fields", f"{found}; {fix}", Code.NAME_TAKEN)
        taken[plan.name] = f"the field of {', '.join(plan.columns[:3])}"


def make_field(plan: FieldPlan, fitted: Mapping[str, FittedColumn], has_lengths: bool) -> Field:
    """Describe a field as the network sees it.

    Args:
        plan: the field's columns and form
        fitted: the inputs by column
        has_lengths: whether its samples differ in length
    """
    columns = [fitted[name] for name in plan.columns]
    if plan.form == "features":
        return Field(plan.name, (sum(each.shape[0] for each in columns),), "features")
    if plan.form == "tokens":
        return Field(plan.name, (len(columns),), "tokens", sum(each.vocab_size or 0 for each in columns))
    (column,) = columns
    return Field(plan.name, column.shape, column.layout, column.vocab_size, has_lengths)


def make_target(name: str, fitted: FittedColumn, lengths: str = "", weights: str = "") -> Target:
    """Describe a target.

    Args:
        name: name of the target
        fitted: the fitted target column
        lengths: the field whose lengths the target has, '' for none
        weights: key of the sample weights in the splits, '' for none
    """
    target_name = make_field_name(name)
    labels = tuple(getattr(fitted, "labels", ()))
    if labels:
        return Target(target_name, "numbers", fitted.shape, labels=labels, weights=weights)
    classes = tuple(getattr(fitted, "classes", ()))
    if classes:
        own, has_ignored = target_name if fitted.vocab_size is not None else "", getattr(fitted, "has_ignored", False)
        return Target(target_name, "classes", fitted.shape, classes, next_of=own, lengths=lengths, weights=weights,
                      has_ignored=has_ignored)  # fmt: skip
    fitted_scale = getattr(fitted, "scale", None)
    scale = TargetScale.from_scale(fitted_scale) if isinstance(fitted_scale, Scale) else None
    return Target(target_name, "numbers", fitted.shape, scale=scale, lengths=lengths, weights=weights)
