"""`type: table`: files of rows with named columns, such as CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from dlspec.data.sources.source import data_source
from dlspec.data.sources.table_settings import TableSettings, list_paths
from dlspec.data.tables.read_options import ReadOptions
from dlspec.errors import Code, DataError

if TYPE_CHECKING:
    from dlspec.data.dataset import Dataset
    from dlspec.data.sources.table_dataset import EncodedTable
    from dlspec.data.sources.table_rows import TableRows


class JoinedTable(ReadOptions):
    """Another table, whose columns are added by the columns of the same name."""

    path: str | list[str] = Field(description="the file, a list of files, or a pattern")


@data_source("table")
class TableSource(TableSettings):
    """Rows of named columns from CSV, TSV, JSON lines, Parquet and other files.

    The kinds of columns are inferred from their cells, and shown. Everything that is fitted, such as means and
    categories, comes from the training rows alone.
    """

    path: str | list[str] | None = Field(None, description="the file, a list of files, or a pattern such as data/*.csv")
    join: list[JoinedTable] = Field([], description="other tables with exactly one row for each row: [{path: FILE}]")

    def open(self) -> Dataset:
        return self.open_table().dataset

    def open_table(self) -> EncodedTable:
        """Read, split and encode the data, and keep the raw rows."""
        from dlspec.data.sources.table_dataset import encode_table

        return encode_table(self, self.read_rows(), self.source_name)

    def read_rows(self) -> TableRows:
        """Read the rows of all files."""
        from dlspec.data.sources.table_rows import add_joined_tables, join_files
        from dlspec.data.tables.reading import read_table

        if self.path is None:
            found = "no file is given; write data.path=FILE.csv, or in Python pass the table as data"
            raise DataError("path", found, Code.MISSING_VALUE)
        options = self.make_read_options()
        paths = {"path": self.path, "validation": list_paths(self.validation), "test": list_paths(self.test)}
        rows = join_files({key: read_table(path, options) for key, path in paths.items() if path})
        return add_joined_tables(rows, self.join)
