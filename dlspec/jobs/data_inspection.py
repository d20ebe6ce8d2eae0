"""Inspect the data of a spec without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlspec.data.inspection.inspection import Inspection
from dlspec.data.inspection.source_inspection import inspect_dataset, inspect_source
from dlspec.jobs.python_spec import DataInput, is_python_data, load_data_or_section, prepare_spec
from dlspec.jobs.rows_in_python import inspect_rows, is_table_like
from dlspec.jobs.run_preparation import Preparation
from dlspec.jobs.spec import Spec


def inspect_data(preparation: Preparation) -> tuple[Spec, Inspection]:
    """Read the data of a spec once, and describe them.

    Raises:
        SpecError: if the spec is wrong, or the data can't be read or do not fit its settings.
    """
    spec = preparation.read()
    with preparation.locate_data_errors():
        return spec, inspect_source(spec.data)


def inspect_python_data(data: DataInput | Path, settings: Mapping[str, Any]) -> Inspection:
    """Inspect data given in Python: rows, arrays, a file, the name of a data set, or its settings.

    Args:
        data: the data
        settings: settings of `data`, such as `target`

    Raises:
        SpecError: if a setting is wrong, or the data do not fit it.
    """
    if is_table_like(data):
        return inspect_rows(data, settings)
    if isinstance(data, Path) or (isinstance(data, str) and ("/" in data or Path(data).is_file())):
        data = {"type": "table", "path": str(data)}
    if is_python_data(data):
        dataset, _ = load_data_or_section(data, settings)
        assert dataset is not None  # such data are opened there
        return inspect_dataset(dataset)
    section = {**(data if isinstance(data, Mapping) else {"type": data}), **settings}
    return inspect_data(prepare_spec({"data": section if settings or isinstance(data, Mapping) else data}, None))[1]


def write_data_settings(spec: Spec, inspection: Inspection) -> dict[str, Any]:
    """Return the settings of `data` as a config file has them: as written, with the inferred kinds."""
    written = spec.data.model_dump(mode="json", exclude_defaults=True)
    return {"type": spec.data.source_name, **written, **inspection.resolved}
