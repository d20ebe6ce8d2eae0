"""Inspect a table without training: columns, kinds and why, splits, balance, and what may go wrong."""

from __future__ import annotations

from collections.abc import Iterator

from dlspec.data.dataset import Dataset
from dlspec.data.encoding.column_choice import ColumnChoice, choose_columns
from dlspec.data.encoding.stacked_columns import find_stacks
from dlspec.data.inspection.column_notices import find_exact_sum, find_rare_categories
from dlspec.data.inspection.column_summary import ColumnSummary, summarize_column
from dlspec.data.inspection.inspection import Inspection
from dlspec.data.inspection.model_suggestion import suggest_model
from dlspec.data.inspection.notices import find_equal_rows, find_missing_classes, find_telling_columns
from dlspec.data.prepare.kinds.cells import CellFormat
from dlspec.data.sources.table_dataset import add_stacks, make_column_settings, make_table_dataset
from dlspec.data.sources.table_rows import TableRows, choose_table_rows
from dlspec.data.sources.table_settings import TableSettings


def inspect_table(settings: TableSettings, loaded: TableRows, name: str) -> Inspection:
    """Inspect the rows of a source.

    Args:
        settings: the source's settings; without a target, only the columns are inspected
        loaded: the rows of its files, or rows given in Python
        name: name of the data set

    Raises:
        DataError: if the settings do not fit the table, or a cell can't be used.
    """
    rows = choose_table_rows(loaded, settings)
    names = list(rows.table.columns)
    stacks = find_stacks("columns", settings.columns, names) | find_stacks("target", settings.list_targets(), names)
    rows = add_stacks(rows, stacks)
    targets = {each: kind for each, kind in settings.list_targets().items() if each in rows.table.columns}
    choice = choose_columns(rows.table.columns, make_column_settings(settings, rows, targets, stacks))
    read = CellFormat(settings.decimal, settings.thousands)
    columns = tuple(_summarize_columns(rows, choice, settings, read))
    notices = list(find_equal_rows(rows.table.columns, list(choice.inputs), list(choice.targets)))
    kinds = {each: kind.name for each, kind in choice.inputs.items()}
    for target, kind in choice.targets.items():
        notices += find_telling_columns(rows.table.columns, kinds, target, kind.name, read)
        if kind.name == "value":
            notices += find_exact_sum(rows.table.columns, kinds, target, read)
    notices += find_rare_categories(rows.table.columns, kinds)
    if not settings.list_targets():
        notes = (*rows.notes, "no target is named: write data.target=COLUMN to see the splits and check the target")
        return Inspection(len(rows.table), columns, notes=notes, notices=tuple(notices))
    dataset = make_table_dataset(settings, loaded, name)
    return Inspection(
        len(rows.table), columns, count_splits(dataset), count_classes(dataset), dataset.notes,
        (*notices, *find_missing_classes(dataset)), suggest_model(dataset, settings.fields), dataset.resolved,
    )  # fmt: skip


def _summarize_columns(
    rows: TableRows, choice: ColumnChoice, settings: TableSettings, read: CellFormat
) -> Iterator[ColumnSummary]:
    for name, column in rows.table.columns.items():
        kind = choice.inputs.get(name) or choice.targets.get(name)
        role = "target" if name in choice.targets else "input" if kind else "left out"
        reason = choice.left_out.get(name) or choice.reasons.get(name, "as written")
        if role == "target" and name in choice.reasons:
            reason = f"inferred; otherwise {choice.reasons[name]}"
        yield summarize_column(name, column, kind=kind.name if kind else "", role=role, reason=reason, read=read)


def count_splits(dataset: Dataset) -> dict[str, int]:
    """Count the rows of each split."""
    splits = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {name: len(split) for name, split in splits.items()}


def count_classes(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Count the training rows of each class or label, for targets with one class or any labels a row."""
    counts: dict[str, dict[str, int]] = {}
    for target in dataset.targets:
        values = dataset.train.get_loss_target(target.name)
        if target.kind == "classes" and not target.shape:
            found = values[values >= 0].bincount(minlength=len(target.classes)).tolist()  # below 0: no class
            counts[target.name] = dict(zip(target.classes, found, strict=True))
        elif target.labels:
            counts[target.name] = dict(zip(target.labels, values.sum(0).long().tolist(), strict=True))
    return counts
