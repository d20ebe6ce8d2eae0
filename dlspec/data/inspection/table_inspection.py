"""Inspect a table without training: columns, kinds and why, splits, balance, and what may go wrong."""

from __future__ import annotations

from collections.abc import Iterator

from dlspec.data.dataset import Dataset
from dlspec.data.inspection.column_notices import find_exact_sum, find_rare_categories
from dlspec.data.inspection.column_summary import ColumnSummary, summarize_column
from dlspec.data.inspection.inspection import Inspection
from dlspec.data.inspection.model_suggestion import suggest_model
from dlspec.data.inspection.notices import find_equal_rows, find_missing_classes, find_telling_columns
from dlspec.data.lazy_array import read_rows
from dlspec.data.sources.table_dataset import encode_plan
from dlspec.data.sources.table_planning import PlannedTable, make_cell_format, plan_table
from dlspec.data.sources.table_rows import TableRows
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
    plan = plan_table(settings, loaded)
    table, kinds = plan.rows.table, plan.kinds
    columns, inputs, targets = tuple(_summarize_columns(plan)), list(plan.input_kinds), list(plan.targets)
    notices = list(find_equal_rows(table.columns, inputs, targets))
    read = make_cell_format(settings)
    for target in targets:
        notices += find_telling_columns(table.columns, plan.input_kinds, target, kinds[target], read)
        if kinds[target] == "value":
            notices += find_exact_sum(table.columns, plan.input_kinds, target, read)
    notices += find_rare_categories(table.columns, plan.input_kinds)
    if not settings.list_targets() and plan.saved is None:
        note = "no target is named: write data.target=COLUMN to see the splits and check the target"
        return Inspection(len(table), columns, notes=(*plan.rows.notes, note), notices=tuple(notices))
    dataset = encode_plan(plan, name).dataset
    return Inspection(
        len(table), columns, count_splits(dataset), count_classes(dataset), dataset.notes,
        (*notices, *find_missing_classes(dataset)), suggest_model(dataset, settings.fields), dataset.resolved,
    )  # fmt: skip


def _summarize_columns(plan: PlannedTable) -> Iterator[ColumnSummary]:
    read = make_cell_format(plan.settings)
    for name, column in plan.rows.table.columns.items():
        kind = plan.kinds.get(name, "")
        role = "target" if name in plan.targets else "input" if kind else "left out"
        reason = plan.explain(name)
        yield summarize_column(name, column, kind=kind, role=role, reason=reason, read=read)


def count_splits(dataset: Dataset) -> dict[str, int]:
    """Count the rows of each split."""
    splits = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {name: len(split) for name, split in splits.items()}


def count_classes(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Count the training rows of each class or label, for targets with one class or any labels a row."""
    counts: dict[str, dict[str, int]] = {}
    for target in dataset.targets:
        if target.kind == "classes" and not target.shape:
            values = read_rows(dataset.train.get_loss_target(target.name))
            found = values[values >= 0].bincount(minlength=len(target.classes)).tolist()  # below 0: no class
            counts[target.name] = dict(zip(target.classes, found, strict=True))
        elif target.labels:
            values = read_rows(dataset.train.get_loss_target(target.name))
            counts[target.name] = dict(zip(target.labels, values.sum(0).long().tolist(), strict=True))
    return counts
