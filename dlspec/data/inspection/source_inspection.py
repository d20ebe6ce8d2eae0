"""Inspect any data source: tables column by column, other data field by field."""

from __future__ import annotations

from collections.abc import Iterator

from dlspec.data.dataset import Dataset
from dlspec.data.inspection.column_summary import ColumnSummary
from dlspec.data.inspection.inspection import Inspection
from dlspec.data.inspection.model_suggestion import suggest_model
from dlspec.data.inspection.notices import find_missing_classes
from dlspec.data.inspection.table_inspection import count_classes, count_splits, inspect_table
from dlspec.data.sources.file_rows import FileSource
from dlspec.data.sources.source import DataSource, open_data
from dlspec.data.sources.table_source import TableSource


def inspect_source(source: DataSource) -> Inspection:
    """Read a data source once and describe it, without training.

    Raises:
        DataError: if the data can't be read, or do not fit the settings.
    """
    if isinstance(source, TableSource):
        return inspect_table(source, source.read_rows(), source.source_name)
    if isinstance(source, FileSource):
        rows = source.read_rows()
        return inspect_table(source.choose_split(rows), rows, source.source_name)
    return inspect_dataset(open_data(source))


def inspect_dataset(dataset: Dataset) -> Inspection:
    """Describe data that have been opened, field by field."""
    splits = count_splits(dataset)
    return Inspection(
        sum(splits.values()), tuple(_summarize_fields(dataset)), splits, count_classes(dataset), dataset.notes,
        tuple(find_missing_classes(dataset)), suggest_model(dataset),
    )  # fmt: skip


def _summarize_fields(dataset: Dataset) -> Iterator[ColumnSummary]:
    for field in dataset.fields:
        padded = ", padded" if field.has_lengths else ""
        yield ColumnSummary(
            field.name, field.layout, "input", "", 0, field.vocab_size or 0, f"shape {list(field.shape)}{padded}"
        )
    for target in dataset.targets:
        shape = f"shape {list(target.shape)}" if target.shape else "one for each sample"
        yield ColumnSummary(target.name, target.kind, "target", "", 0, len(target.classes), shape)
