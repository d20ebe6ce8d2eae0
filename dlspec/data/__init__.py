"""What a data source of one's own is made of, imported when it is asked for: `from dlspec.data import SplitSource`."""

from importlib import import_module
from typing import Any

_SOURCE_NAMES = ("SOURCES", "DataSource", "SplitSource", "data_source", "open_data")


def __getattr__(name: str) -> Any:
    if name not in _SOURCE_NAMES:
        raise AttributeError(f"module 'dlspec.data' has no attribute '{name}'")
    return getattr(import_module("dlspec.data.sources"), name)
