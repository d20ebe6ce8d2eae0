"""scikit-learn's own data files, found without importing scikit-learn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def find_data_folder() -> Path | None:
    """The folder with the files of `sklearn.datasets`, None if scikit-learn is not installed.

    Where a later version keeps them elsewhere, whoever opens one gets an OSError.
    """
    found = find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / "datasets" / "data"
