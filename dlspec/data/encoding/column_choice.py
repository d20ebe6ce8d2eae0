"""Choose what each column of a table is: an input of some kind, a target, or left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from dlspec.data.encoding.kind_settings import make_kind
from dlspec.data.encoding.name_patterns import (
    assign_by_name,
    is_pattern,
    make_unknown_column_error,
    match_names,
)
from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat
from dlspec.data.prepare.kinds.inference import InferredKind, infer_kind, infer_target_kind
from dlspec.data.prepare.kinds.kind import COLUMN_KINDS, TARGET_KINDS, ColumnKind
from dlspec.data.prepare.kinds.number import Number
from dlspec.data.prepare.kinds.setting_lines import format_columns_line
from dlspec.errors import Code, DataError

Columns = Mapping[str, NDArray[Any]]
WrittenKind = str | Mapping[str, Any] | None
MAX_LISTED = 20  # cells in a message


@dataclass(frozen=True)
class ColumnSettings:
    """What a spec says about the columns of a table."""

    target: Mapping[str, WrittenKind]  # by column: its kind, None to infer it
    columns: Mapping[str, WrittenKind] = field(default_factory=dict)  # by name or pattern: a kind, None leaves it out
    only: Sequence[str] = ()  # names and patterns of the only columns to use as inputs; () for all
    drop: Sequence[str] = ()
    reserved: Mapping[str, str] = field(default_factory=dict)  # columns with another use, and which
    needs_naming: bool = False  # whether only columns that `columns` names are inputs
    read: CellFormat = PLAIN
    skips_bad_rows: bool = False  # whether rows with cells that can't be read are left out
    locate: Callable[[int], str] = "row {}".format  # where a row was read, for messages


@dataclass(frozen=True)
class ColumnChoice:
    """The kinds of the columns, as written or inferred."""

    inputs: Mapping[str, ColumnKind]
    targets: Mapping[str, ColumnKind]
    reasons: Mapping[str, str]  # of inferred kinds: why; of inferred targets: the setting for another kind
    left_out: Mapping[str, str]  # why a column is neither input nor target, by column


def choose_columns(columns: Columns, settings: ColumnSettings) -> ColumnChoice:
    """Choose the kinds of inputs and targets.

    Raises:
        DataError: if the table lacks a column that the settings name, or no column is left as an input.
    """
    names = list(columns)
    written = assign_by_name("columns", settings.columns, names)
    targets, reasons = _choose_targets(columns, settings)
    candidates, left_out = _find_candidates(names, written, settings)
    inputs: dict[str, ColumnKind] = {}
    for name in candidates:
        kind = written.get(name)
        if kind is not None:
            inputs[name] = make_kind("columns", name, kind, COLUMN_KINDS)
            continue
        inferred = infer_kind(name, columns[name], settings.read)
        _check_refused_cells("columns", name, inferred, settings)
        if inferred.kind is None:
            left_out[name] = inferred.reason
        else:
            inputs[name], reasons[name] = inferred.kind, inferred.reason
    if not inputs:
        found = "; ".join(f"{name} is left out: {reason}" for name, reason in list(left_out.items())[:5])
        raise DataError("columns", f"no column is left as an input; {found}", Code.MISSING_VALUE)
    for name, chosen in inputs.items():
        _check_groups(name, chosen, columns, targets)
    return ColumnChoice(inputs, targets, reasons, left_out)


def _check_groups(name: str, kind: ColumnKind, columns: Columns, targets: Collection[str]) -> None:
    """Refuse a column of groups that is not there, the target, or has no groups."""
    per = kind.per if isinstance(kind, Number) else None
    if per is None:
        return
    key = f"columns.{name}.number.per"
    if per not in columns:
        raise make_unknown_column_error(key, per, columns)
    if per in targets:
        found = f"'{per}' is the target, which new rows do not have, so '{name}' can't be scaled by it"
        raise DataError(key, f"{found}; choose another column, or remove per", Code.CONFLICT)
    if per == name or columns[per].ndim > 1 or columns[per].dtype.kind == "O":
        found = f"'{per}' contains no groups" if per != name else f"'{name}' can't be its own group"
        raise DataError(key, f"{found}; name a column of names or numbers that several rows share", Code.WRONG_VALUE)


def _choose_targets(columns: Columns, settings: ColumnSettings) -> tuple[dict[str, ColumnKind], dict[str, str]]:
    targets: dict[str, ColumnKind] = {}
    reasons: dict[str, str] = {}
    for name, written in settings.target.items():
        if name not in columns:
            raise make_unknown_column_error("target", name, columns)
        if written is not None:
            targets[name] = make_kind("target", name, written, TARGET_KINDS)
            continue
        inferred = infer_target_kind(name, columns[name], settings.read)
        _check_refused_cells("target", name, inferred, settings)
        if inferred.kind is None:
            raise DataError("target", f"'{name}' can't be predicted: {inferred.reason}")
        targets[name], reasons[name] = inferred.kind, inferred.otherwise
    return targets, reasons


def _check_refused_cells(key: str, name: str, inferred: InferredKind, settings: ColumnSettings) -> None:
    """Raise DataError with the cells that do not fit the inferred kind, unless their rows are left out."""
    if not inferred.refused or (settings.skips_bad_rows and inferred.kind is not None):
        return
    lines = [f"{settings.locate(row)}: {reason}" for row, reason in list(inferred.refused.items())[:MAX_LISTED]]
    more = [f"and {len(inferred.refused) - MAX_LISTED:,} more"] if len(inferred.refused) > MAX_LISTED else []
    found = f"'{name}' is taken for {inferred.reason}, but not all of its cells are"
    if inferred.kind is None:
        found = f"'{name}': {inferred.reason}"
    raise DataError(key, f"{found}; {inferred.fix}".rstrip("; "), note="\n".join([*lines, *more]))


def _find_candidates(
    names: Sequence[str], written: Mapping[str, WrittenKind], settings: ColumnSettings
) -> tuple[list[str], dict[str, str]]:
    """List the columns that may be inputs, and why the others may not be.

    A column whose own name is under `columns` is an input whatever else it is used for; a pattern adds none.
    """
    only = set(match_names("only", settings.only, names)) if settings.only else set(names)
    dropped = set(match_names("drop", settings.drop, names))
    _check_conflicts(settings, only)
    left_out: dict[str, str] = {}
    for name in names:
        if name in settings.target:
            continue
        has_kind = written.get(name) is not None
        is_named = has_kind and name in settings.columns
        if name in dropped or (name in written and not has_kind):
            left_out[name] = "drop" if name in dropped else "null in columns"
        elif name not in only:
            left_out[name] = "not in only"
        elif name in settings.reserved and not is_named:
            left_out[name] = settings.reserved[name]
        elif settings.needs_naming and not has_kind:
            left_out[name] = "not named in columns"
    return [name for name in names if name not in left_out and name not in settings.target], left_out


def _check_conflicts(settings: ColumnSettings, only: Collection[str]) -> None:
    """Refuse settings that say two things about one column, or nothing."""
    kinds = {name: kind for name, kind in settings.columns.items() if kind is not None}
    for name in settings.target:
        if name in kinds:
            found = f"'{name}' is the target, so it can't be an input as well"
            fix = f"add {format_columns_line(name, 'null')}; the kind of a target is written under data.target"
            raise DataError("columns", f"{found}; {fix}", Code.CONFLICT)
        if name in settings.drop:
            found = f"'{name}' is the target, so it can't be left out"
            raise DataError("drop", f"{found}; remove it from drop, or name another target", Code.CONFLICT)
    for name in settings.drop:
        if name in kinds:
            found = f"'{name}' is left out by drop, but columns says what it is"
            raise DataError("drop", f"{found}; remove it from one of them", Code.CONFLICT)
        if name in settings.only:
            found = f"'{name}' is both in only and in drop"
            raise DataError("drop", f"{found}; remove it from one of them", Code.CONFLICT)
        if settings.only and not is_pattern(name) and name not in only:
            found = f"drop has no effect on '{name}', which is not in only"
            raise DataError("drop", f"{found}; remove it from drop", Code.UNUSED)
    for name, kind in settings.columns.items():
        if kind is None and name in settings.only:
            found = f"'{name}' is in only, but null in columns leaves it out"
            raise DataError("columns", f"{found}; remove it from one of them", Code.CONFLICT)
    for name in kinds:
        if settings.only and not is_pattern(name) and name not in only:
            found = f"columns says what '{name}' is, but it is not in only"
            raise DataError("columns", f"{found}; add it to only, or remove it from columns", Code.CONFLICT)
