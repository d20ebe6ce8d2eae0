"""Data sources by name. Importing this opens no data and does not import PyTorch."""

from dlspec.data.sources import (
    file_rows,
    image_folder,
    images,
    labelled_text,
    random,
    running_text,
    segments,
    sklearn_datasets,
    table_source,
)
from dlspec.data.sources.source import SOURCES, DataSource, SplitSource, data_source, open_data

__all__ = [
    "SOURCES", "DataSource", "SplitSource", "data_source", "file_rows", "image_folder", "images", "labelled_text",
    "open_data", "random", "running_text", "segments", "sklearn_datasets", "table_source",
]  # fmt: skip
