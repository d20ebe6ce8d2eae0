"""Read what a run has fitted, for `data.prepare`."""

from __future__ import annotations

from pathlib import Path

from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.files.paths import expand_home
from dlspec.errors import Code, DataError
from dlspec.runs.file_names import PREPARE_FILE
from dlspec.runs.io import read_json_object

MAX_PREPARE_BYTES = 2**28  # of prepare.json: vocabularies of a million words take 20 MB


def read_saved_preparation(run: str) -> FittedTable:
    """Read what a run has fitted.

    Args:
        run: the run's folder

    Raises:
        DataError: if the folder has no such file, or it is damaged.
    """
    path = Path(expand_home(run)) / PREPARE_FILE
    saved = read_json_object(path, MAX_PREPARE_BYTES)
    if saved is None:
        found = f"no {PREPARE_FILE} in '{run}'" if not path.is_file() else f"'{path}' is damaged"
        raise DataError("prepare", f"{found}; name the folder of a run that was trained on rows", Code.NO_RUN)
    if "columns" not in saved:
        raise DataError("prepare", f"the run in '{run}' was not trained on rows of columns", Code.WRONG_VALUE)
    return FittedTable.from_json(saved)
