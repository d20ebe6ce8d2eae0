"""Make a `Dataset` of the rows of a table: plan its columns, split, fit to the training rows, encode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlspec.data.dataset import Dataset, Split, Target, make_field_name
from dlspec.data.encoding.encoded_images import find_undecodable_rows
from dlspec.data.encoding.encoded_rows import WEIGHT_SUFFIX, EncodedRows, encode_rows
from dlspec.data.encoding.fields import make_field, make_target
from dlspec.data.encoding.fitted_table import FittedTable, fit_column, fit_table
from dlspec.data.encoding.parsed_numbers import parse_number_columns
from dlspec.data.encoding.table_notes import (
    describe_absent_classes,
    describe_counts,
    describe_splits,
    describe_table,
)
from dlspec.data.lazy_array import make_values
from dlspec.data.prepare.kinds.cells import find_missing, is_number
from dlspec.data.prepare.kinds.class_target import FittedClasses
from dlspec.data.prepare.kinds.kind import IGNORED, FittedColumn
from dlspec.data.prepare.kinds.setting_lines import format_columns_line
from dlspec.data.sources.cached_splits import cache_splits
from dlspec.data.sources.table_planning import PlannedTable, make_cell_format, plan_table
from dlspec.data.sources.table_record import describe_choice, hash_content, resolve_settings
from dlspec.data.sources.table_rows import TableRows, drop_rows
from dlspec.data.sources.table_settings import TableSettings
from dlspec.data.split_indices import IntArray, SplitIndices
from dlspec.data.splitting.table_split import SplitTable, TableSplit, split_table
from dlspec.data.tables.table import Table
from dlspec.errors import Code, DataError

OUTLINE_ROWS = 2  # of each split, where only shapes are of interest
MAX_LISTED = 20  # rows in a message


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
    return encode_plan(plan_table(settings, loaded), name)


def encode_plan(plan: PlannedTable, name: str) -> EncodedTable:
    """Split planned rows, fit their columns to the training rows, and encode them.

    Raises:
        DataError: if no target is named, or a cell can't be used.
    """
    _check_target(plan)
    settings = plan.settings
    plan = replace(plan, rows=drop_rows(plan.rows, _find_dropped_rows(plan)))
    split = _split(plan)
    numeric = _parse_numbers(plan)
    fitted = plan.saved or _fit(numeric, split.rows)
    parts, encoded, left_out = _encode_splits(numeric, fitted, split.rows)
    lengths_of = _match_target_lengths(fitted, encoded[0])
    fields = tuple(
        make_field(each, fitted.inputs, f"{each.name}_lengths" in encoded[0].fields) for each in fitted.fields
    )
    targets = tuple(
        _add_unscaled_setting(_make_target(each, target, encoded[0], lengths_of), plan, each)
        for each, target in fitted.targets.items()
    )
    _check_weights(plan, targets, encoded[0])
    notes = (
        *plan.rows.notes,
        *describe_table(plan.choice, fitted),
        describe_splits(("training", "validation", "test"), map(len, (parts.train, parts.validation, parts.test))),
        *split.notes,
        *left_out,
        *_find_absent_classes(plan, targets, encoded[0]),
        *describe_counts(_count_notes(encoded)),
    )
    if settings.bucket is not None and not any(each.has_lengths for each in fields):
        raise DataError("bucket", "no input has samples of different length; remove bucket", Code.UNUSED)
    numbers = plan.rows.number_rows()
    rows_of_split = (numbers[rows] for rows in (parts.train, parts.validation, parts.test))
    splits, cache_notes = _cache_splits(plan, list(map(_make_split, encoded, rows_of_split)), name)
    train, validation, test = splits
    dataset = Dataset(
        name, fields, targets, train, validation, test,
        preprocessing={**fitted.to_json(), **describe_choice(plan), "content": hash_content(plan)},
        reconstructed_field=plan.reconstructed, notes=(*notes, *cache_notes), resolved=resolve_settings(plan),
        buckets=settings.bucket is not None,
    )  # fmt: skip
    return EncodedTable(dataset, plan.rows.table, parts)


def _check_target(plan: PlannedTable) -> None:
    if not plan.targets and not plan.reconstructed:
        fix = f"write data.target=COLUMN; the columns are {', '.join(list(plan.rows.table.columns)[:40])}"
        raise DataError("target", f"no target is named; {fix}", Code.MISSING_VALUE)


def _check_weights(plan: PlannedTable, targets: Sequence[Target], train: EncodedRows) -> None:
    """Refuse weights with which no training row counts."""
    for target in targets:
        if target.weights and not plan.settings.is_outline and not train.fields[target.weights].any():
            found = f"no training row counts for '{target.name}': each has the weight 0 or an ignored target"
            key, fix = ("weight", "remove weight") if plan.settings.weight else ("target", "write missing: drop")
            raise DataError(key, f"{found}; correct the file, or {fix}", Code.BAD_DATA)


def _find_absent_classes(plan: PlannedTable, targets: Sequence[Target], train: EncodedRows) -> Iterator[str]:
    if not plan.settings.is_outline:
        for target in targets:
            yield from describe_absent_classes(target, train.targets[target.name])


def _find_dropped_rows(plan: PlannedTable) -> dict[str, IntArray]:
    """Find by column the rows that `missing: drop` leaves out."""
    columns = plan.rows.table.columns
    if plan.choice is None:
        dropping = [name for name, target in plan.targets.items() if getattr(target, "missing", "") == "drop"]
        return {name: np.flatnonzero(find_missing(columns[name])) for name in dropping}
    kinds = {**plan.choice.inputs, **plan.choice.targets}
    return {name: kind.find_rows_to_drop(columns[name]) for name, kind in kinds.items()}


def _split(plan: PlannedTable) -> TableSplit:
    settings, columns = plan.settings, plan.rows.table.columns
    table = SplitTable(columns, plan.inputs, _find_classes(plan), plan.rows.split_of_file, settings.id or "")
    return split_table(table, settings.make_split_rules(_find_folder(plan.rows)))


def _find_folder(rows: TableRows) -> str:
    """Return the folder of the first file, where relative files of conditions start."""
    from pathlib import Path

    return str(Path(rows.table.files[0]).parent) if rows.table.files else ""


def _find_classes(plan: PlannedTable) -> IntArray | None:
    """Return the class of each row, to stratify by: those of the first target with one class a row."""
    columns, every_row = plan.rows.table.columns, np.arange(len(plan.rows.table))
    for name, target in plan.targets.items():
        if not isinstance(target, FittedColumn) and target.name != "class":
            continue
        fitted = target
        if not isinstance(target, FittedColumn):
            fitted = fit_column(target, name, columns, every_row, make_cell_format(plan.settings))
        if isinstance(fitted, FittedClasses):
            classes = fitted.apply(columns[name]).values
            return np.where(classes == IGNORED, len(fitted.classes), classes)
    return None


def _parse_numbers(plan: PlannedTable) -> PlannedTable:
    """Return the plan with numbers in place of the text of plain numbers."""
    kinds = plan.choice.inputs if plan.choice is not None else plan.saved.inputs if plan.saved is not None else {}
    columns = parse_number_columns(plan.rows.table.columns, kinds, make_cell_format(plan.settings))
    return replace(plan, rows=replace(plan.rows, table=replace(plan.rows.table, columns=columns)))


def _fit(plan: PlannedTable, parts: SplitIndices) -> FittedTable:
    settings = plan.settings
    assert plan.choice is not None  # without saved columns
    few = parts.train[:OUTLINE_ROWS] if settings.is_outline else parts.train
    return fit_table(
        plan.rows.table.columns, plan.choice, parts.train, file_rows=few, fields=settings.fields,
        read=make_cell_format(settings), stacks=plan.stacks, id=settings.id or "", weight=settings.weight or "",
    )  # fmt: skip


def _encode_splits(
    plan: PlannedTable, fitted: FittedTable, parts: SplitIndices
) -> tuple[SplitIndices, tuple[EncodedRows, ...], list[str]]:
    """Encode each split; rows with cells that can't be read are refused, or left out with `bad_rows: skip`.

    Returns:
        The rows of each split, the encoded splits, and notes about what is left out.
    """
    columns, shown = plan.rows.table.columns, [parts.train, parts.validation, parts.test]
    if plan.settings.is_outline:
        shown = [rows[:OUTLINE_ROWS] for rows in shown]
    encoded = [encode_rows(fitted, columns, rows) for rows in shown]
    problems = {row: reasons for each in encoded for row, reasons in each.problems.items()}
    if plan.settings.bad_rows == "skip" and not plan.settings.is_outline:
        for each, rows in zip(encoded, shown, strict=True):
            problems |= find_undecodable_rows({**each.fields, **each.targets}, rows)
    if not problems:
        return parts, tuple(encoded), []
    if plan.settings.bad_rows == "refuse":
        raise _make_bad_rows_error(plan.rows, problems)
    bad = np.array(sorted(problems))
    kept = [np.setdiff1d(rows, bad, assume_unique=True) for rows in shown]
    if not len(kept[0]):
        raise _make_bad_rows_error(plan.rows, problems)
    again = [encode_rows(fitted, columns, rows) for rows in kept]
    note = f"left out {len(problems):,} row{'s' if len(problems) > 1 else ''} with cells that can't be read"
    return SplitIndices(*kept), tuple(again), [note, *(f"  {line}" for line in _list_bad_rows(plan.rows, problems))]


def _make_bad_rows_error(rows: TableRows, problems: Mapping[int, Sequence[str]]) -> DataError:
    """Make the error that lists the first rows with cells that can't be read."""
    first, *others = _list_bad_rows(rows, problems)
    found = f"{len(problems):,} rows have cells that can't be read" if len(problems) > 1 else "a cell can't be read"
    fix = "correct them, write the column's kind under data.columns, or leave such rows out: data.bad_rows=skip"
    return DataError("", f"{first} ({found}; {fix})", note="\n".join(others))


def _list_bad_rows(rows: TableRows, problems: Mapping[int, Sequence[str]]) -> list[str]:
    """List where the first rows with problems were read, and the reasons."""
    lines = [f"{rows.table.locate(row)}: {'; '.join(problems[row])}" for row in sorted(problems)[:MAX_LISTED]]
    return lines + (["..."] if len(problems) > MAX_LISTED else [])


def _make_split(encoded: EncodedRows, numbers: IntArray) -> Split:
    split = Split(
        {name: make_values(values) for name, values in encoded.fields.items()},
        {name: make_values(values) for name, values in encoded.targets.items()},
    )
    return replace(split, rows=numbers[: len(split)])  # an outline has the first rows alone


def _cache_splits(plan: PlannedTable, splits: Sequence[Split], name: str) -> tuple[Sequence[Split], tuple[str, ...]]:
    """Keep decoded images, but not for an outline, which has two rows."""
    path = getattr(plan.settings, "path", None)
    shown = path if isinstance(path, str) else name
    return (splits, ()) if plan.settings.is_outline else cache_splits(splits, plan.settings.cache, shown)


def _make_target(name: str, target: FittedColumn, train: EncodedRows, lengths_of: Mapping[str, str]) -> Target:
    key = f"{make_field_name(name)}{WEIGHT_SUFFIX}"
    return make_target(name, target, lengths_of.get(name, ""), key if key in train.fields else "")


def _add_unscaled_setting(target: Target, plan: PlannedTable, name: str) -> Target:
    """Add the argument that trains on a target's numbers as they are, for one target of numbers.

    Classes that were inferred from numbers have one too.
    """
    if plan.choice is None or len(plan.targets) > 1:
        return target
    kind = plan.choice.targets[name].name
    if kind == "class" and name in plan.choice.reasons and all(map(is_number, target.classes)):
        kind = "value"
    if kind not in ("value", "numbers"):
        return target
    return replace(target, unscaled_setting=format_columns_line(name, f"{{{kind}: {{scale: none}}}}", "target"))


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
