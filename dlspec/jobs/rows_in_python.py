"""Rows given in Python: frames of pandas, polars and pyarrow, lists of rows, `(X, y)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dlspec.data.augment.augmentation_settings import read_augmentations
from dlspec.data.augment.dataset_augmentation import augment_dataset
from dlspec.data.dataset import Dataset
from dlspec.data.inspection.inspection import Inspection
from dlspec.data.inspection.table_inspection import inspect_table
from dlspec.data.sources.table_dataset import make_table_dataset
from dlspec.data.sources.table_rows import TableRows
from dlspec.data.sources.table_settings import TableSettings
from dlspec.data.tables.python_rows import TARGET_COLUMN, table_from_python
from dlspec.data.tables.read_options import ReadOptions
from dlspec.errors import Code, DataError, Problem, SpecError, suggest
from dlspec.language.problems import Problems, raise_problems
from dlspec.language.source_map import SourceMap
from dlspec.parts.section_reader import read_section

# Settings of files, which data in Python do not have.
_FILE_SETTINGS = frozenset({"path", "join", *ReadOptions.model_fields}) - {"decimal", "thousands", "bad_rows"}


def is_table_like(data: object) -> bool:
    """Whether data in Python are rows: a frame, a list of mappings, or a pair (X, y)."""
    if isinstance(data, tuple):
        return len(data) == 2
    if isinstance(data, Sequence) and not isinstance(data, str):
        return len(data) > 0 and isinstance(data[0], Mapping)
    return not isinstance(data, Mapping | Dataset | str) and hasattr(data, "columns")


def make_table_of_rows(data: Any, settings: Mapping[str, Any]) -> Dataset:
    """Make a data set of rows given in Python.

    Args:
        data: the rows
        settings: settings of `data` as for a table: `target`, `columns`, `validation`, ...

    Raises:
        SpecError: if a setting is wrong or does not fit the rows.
    """
    source = _read_settings(_choose_settings(data, settings))
    with _locate_data_errors():
        dataset = make_table_dataset(source, TableRows(table_from_python(data)), "table")
        dataset = augment_dataset(dataset, source.augment)
    return replace(dataset, origin={"type": "table", **source.model_dump(mode="json", exclude_defaults=True)})


def inspect_rows(data: Any, settings: Mapping[str, Any]) -> Inspection:
    """Inspect rows given in Python; the arguments and errors are those of `make_table_of_rows`."""
    source = _read_settings(_choose_settings(data, settings))
    with _locate_data_errors():
        return inspect_table(source, TableRows(table_from_python(data)), "table")


@contextmanager
def _locate_data_errors() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        key = "" if error.key == "data" else f".{error.key}"
        raise SpecError([Problem(error.finding.code, f"data{key}", str(error))]) from None


def _choose_settings(data: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that rows in Python can have; `(X, y)` names its target itself."""
    written = {key: value for key, value in settings.items() if not (key in _FILE_SETTINGS and value in (None, [], {}))}
    if isinstance(data, tuple) and written.get("target") is None:
        written["target"] = getattr(data[1], "name", None) or TARGET_COLUMN
    return written


def _read_settings(written: Mapping[str, Any]) -> TableSettings:
    allowed = [key for key in TableSettings.model_fields if key not in _FILE_SETTINGS]
    wrong = [key for key in written if key not in allowed]
    if wrong:
        raise SpecError([
            Problem(Code.UNKNOWN_SETTING, f"data.{key}", "not a setting of rows given in Python",
                    suggest(key, allowed) or "leave it out")
            for key in wrong
        ])  # fmt: skip
    problems = Problems()
    source = read_section(_PythonRows, dict(written), ("data",), problems)
    if source is not None:
        read_augmentations(source.augment, ("data", "augment"), problems)
    raise_problems(problems, SourceMap)
    assert source is not None  # otherwise a problem was raised
    return source


class _PythonRows(TableSettings):
    """The settings of rows that are given in Python."""

    def open(self) -> Dataset:
        raise DataError("", "rows given in Python can't be opened again; pass them as data", Code.MISSING_VALUE)
