"""Data sets, from files to batches. The classes for a user's own data source are imported on first use."""

from importlib import import_module
from typing import Any

_SOURCE_NAMES = ("SOURCES", "DataSource", "SplitSource", "data_source", "open_data")


def __getattr__(name: str) -> Any:
    if name not in _SOURCE_NAMES:
        raise AttributeError(f"module 'dlspec.data' has no attribute '{name}'")
    return getattr(import_module("dlspec.data.sources"), name)
