"""Data sources by name, and the data set that each opens. Importing this opens nothing and imports no PyTorch."""

from dlspec.data.sources import SOURCES, DataSource, SplitSource, data_source, open_data

__all__ = ["SOURCES", "DataSource", "SplitSource", "data_source", "open_data"]
