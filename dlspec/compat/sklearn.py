"""The data files of scikit-learn, without importing scikit-learn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def find_data_folder() -> Path | None:
    """Return the folder with the files of `sklearn.datasets`, or None if scikit-learn is not installed.

    If a later version of scikit-learn moves the files, opening one raises an OSError.
    """
    found = find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / "datasets" / "data"
