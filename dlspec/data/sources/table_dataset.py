"""Make a `Dataset` of the rows of a table: choose kinds, split, fit to the training rows, encode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from dlspec.data.dataset import Dataset, Split, Target, make_field_name
from dlspec.data.encoding.column_choice import ColumnChoice, ColumnSettings, choose_columns
from dlspec.data.encoding.encoded_rows import WEIGHT_SUFFIX, EncodedRows, encode_rows
from dlspec.data.encoding.fields import make_field, make_target
from dlspec.data.encoding.fitted_table import FittedTable, check_columns, fit_column, fit_table
from dlspec.data.encoding.kind_settings import write_kind
from dlspec.data.encoding.name_patterns import make_unknown_column_error
from dlspec.data.encoding.parsed_numbers import parse_number_columns
from dlspec.data.encoding.stacked_columns import Stacks, find_stacks, name_stacked_labels, stack_columns
from dlspec.data.encoding.table_notes import (
    describe_absent_classes,
    describe_counts,
    describe_splits,
    describe_table,
)
from dlspec.data.prepare.kinds.cells import CellFormat, find_missing
from dlspec.data.prepare.kinds.class_target import FittedClasses
from dlspec.data.prepare.kinds.kind import IGNORED, FittedColumn
from dlspec.data.prepare.kinds.setting_lines import format_columns_line
from dlspec.data.sources.saved_preparation import read_saved_preparation
from dlspec.data.sources.table_rows import TableRows, choose_table_rows, drop_rows
from dlspec.data.sources.table_settings import TableSettings
from dlspec.data.split_indices import IntArray, SplitIndices
from dlspec.data.splitting.row_numbers import hash_rows
from dlspec.data.splitting.table_split import SplitTable, TableSplit, split_table
from dlspec.data.tables.table import Table
from dlspec.errors import Code, DataError

OUTLINE_ROWS = 2  # of each split, where only shapes are of interest
MAX_WRITTEN_COLUMNS = 200  # inferred kinds of more columns are not written into spec.yaml
MAX_LISTED = 20  # rows in a message
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class EncodedTable:
    """A data set with the rows that it was made of."""

    dataset: Dataset
    table: Table  # the raw rows, with the columns that are left out
    parts: SplitIndices  # which of these rows each split has, in the order of its samples


def make_table_dataset(settings: TableSettings, loaded: TableRows, name: str) -> Dataset:
    """Make the data set of a source of rows.

    Args:
        settings: the source's settings
        loaded: the rows of its files, or rows given in Python
        name: name of the data set

    Raises:
        DataError: if the settings do not fit the table, or a cell can't be used.
    """
    return encode_table(settings, loaded, name).dataset


def encode_table(settings: TableSettings, loaded: TableRows, name: str) -> EncodedTable:
    """Make the data set of a source of rows, and keep the rows.

    Args:
        settings: the source's settings
        loaded: the rows of its files, or rows given in Python
        name: name of the data set

    Raises:
        DataError: if the settings do not fit the table, or a cell can't be used.
    """
    rows = choose_table_rows(loaded, settings)
    if settings.prepare is not None:
        saved = read_saved_preparation(settings.prepare)
        check_columns(saved, rows.table.columns)
        rows = add_stacks(rows, saved.stacks)
        return _encode(_PlannedTable(rows, settings, None, saved, saved.stacks), name, "")
    names, targets = list(rows.table.columns), settings.list_targets()
    stacks = find_stacks("columns", settings.columns, names) | find_stacks("target", targets, names)
    rows = add_stacks(rows, stacks)
    targets, reconstructed = _find_targets(settings, rows)
    choice = choose_columns(rows.table.columns, make_column_settings(settings, rows, targets, stacks))
    return _encode(_PlannedTable(rows, settings, choice, None, stacks), name, reconstructed)


def add_stacks(rows: TableRows, stacks: Stacks) -> TableRows:
    """Add the columns that are made of several others."""
    table = rows.table
    for name, members in stacks.items():
        table = table.with_column(name, stack_columns(table.columns, members))
    return replace(rows, table=table)


@dataclass(frozen=True)
class _PlannedTable:
    """Rows with either the kinds of their columns, to be fitted, or what an earlier run has fitted."""

    rows: TableRows
    settings: TableSettings
    choice: ColumnChoice | None
    saved: FittedTable | None
    stacks: Stacks

    @property
    def targets(self) -> Mapping[str, Any]:
        """The kinds of the targets, or what was fitted to them."""
        if self.choice is not None:
            return self.choice.targets
        assert self.saved is not None  # one of the two is given
        return self.saved.targets

    @property
    def inputs(self) -> Sequence[str]:
        """The columns of the file that the network sees."""
        names = self.choice.inputs if self.choice is not None else self.saved.inputs if self.saved is not None else ()
        return [member for name in names for member in self.stacks.get(name, (name,))]


def _find_targets(settings: TableSettings, rows: TableRows) -> tuple[dict[str, Any], str]:
    """Return the target columns with their kinds as written, and the name of a field to reconstruct, '' for none."""
    targets, columns = settings.list_targets(), rows.table.columns
    if not targets:
        fix = f"write data.target=COLUMN; the columns are {', '.join(list(columns)[:40])}"
        raise DataError("target", f"no target is named; {fix}", Code.MISSING_VALUE)
    if isinstance(settings.target, str) and settings.target not in columns:
        fields = {"features", *settings.fields, *map(make_field_name, settings.columns)}
        if settings.target not in fields:
            raise make_unknown_column_error("target", settings.target, columns)
        return {}, settings.target
    return targets, ""


def make_column_settings(
    settings: TableSettings, rows: TableRows, targets: Mapping[str, Any], stacks: Stacks
) -> ColumnSettings:
    """Collect what the settings say about the columns of a table.

    Args:
        settings: the source's settings
        rows: the rows, with the columns that are made of several others
        targets: the targets by column, each with its kind as written, None to infer it
        stacks: the columns that are made of several others, each with the names of these
    """
    uses = [(settings.id, "id"), (settings.weight, "weight"), (settings.split, "split"), (settings.folds, "folds"),
            *((name, "group") for name in settings.list_groups())]  # fmt: skip
    reserved = {str(name): use for name, use in uses if name is not None}
    for key in ("id", "weight"):
        name = getattr(settings, key)
        if name is not None and name not in rows.table.columns:
            raise make_unknown_column_error(key, name, rows.table.columns)
    reserved |= {member: f"in {name}" for name, members in stacks.items() for member in members}
    own = {} if settings.time != "row" else {"row": "time"}
    return ColumnSettings(
        name_stacked_labels(targets, stacks), settings.columns, settings.only, settings.drop, reserved | own,
        rows.needs_naming, _make_cell_format(settings), settings.bad_rows == "skip", rows.table.locate,
    )  # fmt: skip


def _make_cell_format(settings: TableSettings) -> CellFormat:
    return CellFormat(settings.decimal, settings.thousands)


# ---- from planned columns to a data set ------------------------------------------------------------------------------


def _encode(plan: _PlannedTable, name: str, reconstructed: str) -> EncodedTable:
    settings = plan.settings
    plan = replace(plan, rows=drop_rows(plan.rows, _find_dropped_rows(plan)))
    split = _split(plan)
    numeric = _parse_numbers(plan)
    fitted = plan.saved or _fit(numeric, split.rows)
    parts, encoded = _encode_splits(numeric, fitted, split.rows)
    lengths_of = _match_target_lengths(fitted, encoded[0])
    fields = tuple(
        make_field(each, fitted.inputs, f"{each.name}_lengths" in encoded[0].fields) for each in fitted.fields
    )
    targets = tuple(
        replace(_make_target(each, target, encoded[0], lengths_of), unscaled_setting=_find_unscaled_setting(plan, each))
        for each, target in fitted.targets.items()
    )
    notes = (
        *plan.rows.notes,
        *describe_table(plan.choice, fitted),
        describe_splits(("training", "validation", "test"), map(len, (parts.train, parts.validation, parts.test))),
        *split.notes,
        *_find_absent_classes(plan, targets, encoded[0]),
        *describe_counts(_count_notes(encoded)),
    )
    if settings.bucket is not None and not any(each.has_lengths for each in fields):
        raise DataError("bucket", "no input has samples of different length; remove bucket", Code.UNUSED)
    train, validation, test = map(_make_split, encoded)
    dataset = Dataset(
        name, fields, targets, train, validation, test,
        preprocessing={**fitted.to_json(), **_describe_choice(plan), "content": _hash_content(plan)},
        reconstructed_field=reconstructed, notes=notes, resolved=_resolve_settings(plan),
        buckets=settings.bucket is not None,
    )  # fmt: skip
    return EncodedTable(dataset, plan.rows.table, parts)


def _find_absent_classes(plan: _PlannedTable, targets: Sequence[Target], train: EncodedRows) -> Iterator[str]:
    if not plan.settings.is_outline:
        for target in targets:
            yield from describe_absent_classes(target, train.targets[target.name])


def _find_dropped_rows(plan: _PlannedTable) -> dict[str, IntArray]:
    """Find by column the rows that `missing: drop` leaves out."""
    columns = plan.rows.table.columns
    if plan.choice is None:
        dropping = [name for name, target in plan.targets.items() if getattr(target, "missing", "") == "drop"]
        return {name: np.flatnonzero(find_missing(columns[name])) for name in dropping}
    kinds = {**plan.choice.inputs, **plan.choice.targets}
    return {name: kind.find_rows_to_drop(columns[name]) for name, kind in kinds.items()}


def _split(plan: _PlannedTable) -> TableSplit:
    settings, columns = plan.settings, plan.rows.table.columns
    table = SplitTable(columns, plan.inputs, _find_classes(plan), plan.rows.split_of_file, settings.id or "")
    return split_table(table, settings.make_split_rules(_find_folder(plan.rows)))


def _find_folder(rows: TableRows) -> str:
    """Return the folder of the first file, where relative files of conditions start."""
    from pathlib import Path

    return str(Path(rows.table.files[0]).parent) if rows.table.files else ""


def _find_classes(plan: _PlannedTable) -> IntArray | None:
    """Return the class of each row, to stratify by: those of the first target with one class a row."""
    columns, every_row = plan.rows.table.columns, np.arange(len(plan.rows.table))
    for name, target in plan.targets.items():
        if not isinstance(target, FittedColumn) and target.name != "class":
            continue
        fitted = target
        if not isinstance(target, FittedColumn):
            fitted = fit_column(target, name, columns, every_row, _make_cell_format(plan.settings))
        if isinstance(fitted, FittedClasses):
            classes = fitted.apply(columns[name]).values
            return np.where(classes == IGNORED, len(fitted.classes), classes)
    return None


def _parse_numbers(plan: _PlannedTable) -> _PlannedTable:
    """Return the plan with numbers in place of the text of plain numbers."""
    kinds = plan.choice.inputs if plan.choice is not None else plan.saved.inputs if plan.saved is not None else {}
    columns = parse_number_columns(plan.rows.table.columns, kinds, _make_cell_format(plan.settings))
    return replace(plan, rows=replace(plan.rows, table=replace(plan.rows.table, columns=columns)))


def _fit(plan: _PlannedTable, parts: SplitIndices) -> FittedTable:
    settings = plan.settings
    assert plan.choice is not None  # without saved columns
    return fit_table(
        plan.rows.table.columns, plan.choice, parts.train, fields=settings.fields,
        read=_make_cell_format(settings), stacks=plan.stacks, id=settings.id or "", weight=settings.weight or "",
    )  # fmt: skip


def _encode_splits(
    plan: _PlannedTable, fitted: FittedTable, parts: SplitIndices
) -> tuple[SplitIndices, tuple[EncodedRows, ...]]:
    """Encode each split; rows with cells that can't be read are refused, or left out with `bad_rows: skip`."""
    columns, shown = plan.rows.table.columns, [parts.train, parts.validation, parts.test]
    if plan.settings.is_outline:
        shown = [rows[:OUTLINE_ROWS] for rows in shown]
    encoded = [encode_rows(fitted, columns, rows) for rows in shown]
    problems = {row: reasons for each in encoded for row, reasons in each.problems.items()}
    if not problems:
        return parts, tuple(encoded)
    if plan.settings.bad_rows == "refuse":
        raise _make_bad_rows_error(plan.rows, problems)
    bad = np.array(sorted(problems))
    kept = [np.setdiff1d(rows, bad, assume_unique=True) for rows in shown]
    if not len(kept[0]):
        raise _make_bad_rows_error(plan.rows, problems)
    again = [encode_rows(fitted, columns, rows) for rows in kept]
    return SplitIndices(*kept), tuple(again)


def _make_bad_rows_error(rows: TableRows, problems: Mapping[int, Sequence[str]]) -> DataError:
    """Make the error that lists the first rows with cells that can't be read."""
    lines = [f"{rows.table.locate(row)}: {'; '.join(problems[row])}" for row in sorted(problems)[: MAX_LISTED + 1]]
    first, *others = lines[:MAX_LISTED]
    more = ["..."] if len(lines) > MAX_LISTED else []
    found = f"{len(problems):,} rows have cells that can't be read" if len(problems) > 1 else "a cell can't be read"
    fix = "correct them, write the column's kind under data.columns, or leave such rows out: data.bad_rows=skip"
    return DataError("", f"{first} ({found}; {fix})", note="\n".join([*others, *more]))


def _make_split(encoded: EncodedRows) -> Split:
    return Split(
        {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in encoded.fields.items()},
        {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in encoded.targets.items()},
    )


def _make_target(name: str, target: FittedColumn, train: EncodedRows, lengths_of: Mapping[str, str]) -> Target:
    key = f"{make_field_name(name)}{WEIGHT_SUFFIX}"
    return make_target(name, target, lengths_of.get(name, ""), key if key in train.fields else "")


def _find_unscaled_setting(plan: _PlannedTable, name: str) -> str:
    """Return the argument that trains on a number as it is; "" where that would change other targets, or nothing."""
    if plan.saved is not None or len(plan.targets) > 1 or plan.targets[name].name != "value":
        return ""
    return format_columns_line(name, "{value: {scale: none}}", "target")


def _match_target_lengths(fitted: FittedTable, train: EncodedRows) -> dict[str, str]:
    """Find for each target with steps the field whose samples have the same lengths, or itself."""
    found: dict[str, str] = {}
    for name in fitted.targets:
        own = f"{make_field_name(name)}_lengths"
        if own not in train.fields:
            continue
        candidates = [plan.name for plan in fitted.fields if f"{plan.name}_lengths" in train.fields]
        equal = [each for each in candidates
                 if np.array_equal(train.fields[f"{each}_lengths"], train.fields[own])]  # fmt: skip
        found[name] = equal[0] if equal else make_field_name(name)
    return found


def _count_notes(encoded: Sequence[EncodedRows]) -> dict[str, Counter[tuple[str, str]]]:
    return {split: each.notes for split, each in zip(("training", "validation", "test"), encoded, strict=True)}


# ---- what is saved ---------------------------------------------------------------------------------------------------


def _describe_choice(plan: _PlannedTable) -> dict[str, Any]:
    if plan.choice is None:
        return {"prepared_by": plan.settings.prepare}
    return {"inferred": dict(plan.choice.reasons), "left_out": dict(plan.choice.left_out)}


def _hash_content(plan: _PlannedTable) -> str:
    """Hash the cells of all rows that the run uses, in their order."""
    columns = plan.rows.table.columns
    targets = [member for name in plan.targets for member in plan.stacks.get(name, (name,))]
    used = [*plan.inputs, *targets, *([plan.settings.weight] if plan.settings.weight else [])]
    return blake2b(hash_rows(columns, used).tobytes(), digest_size=16).hexdigest()


def _name_stacks(plan: _PlannedTable) -> set[str]:
    return {f"in {name}" for name in plan.stacks}


def _resolve_settings(plan: _PlannedTable) -> dict[str, Any]:
    """Return the settings to save in the run's spec in place of the written ones: with the inferred kinds."""
    choice, settings = plan.choice, plan.settings
    if choice is None or len(choice.inputs) + len(choice.left_out) > MAX_WRITTEN_COLUMNS:
        return {}
    inferred = {name: write_kind(kind) for name, kind in choice.inputs.items() if name in choice.reasons}
    uses = {"drop", "null in columns", "not in only", "not named in columns", "id", "weight", "split", "folds", "group",
            "time"}  # fmt: skip
    left_out = {name: None for name, reason in choice.left_out.items() if reason not in uses | _name_stacks(plan)}
    found: dict[str, Any] = {"columns": {**settings.columns, **inferred, **left_out}}
    if choice.targets:
        found["target"] = {name: write_kind(kind) for name, kind in choice.targets.items()}
    return found
