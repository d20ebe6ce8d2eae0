"""`type: files`: one row for each file, with columns from its path, and the text in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from dlspec.data.sources.source import data_source
from dlspec.data.sources.table_settings import TableSettings, list_paths
from dlspec.errors import Code, DataError, InvalidSetting

if TYPE_CHECKING:
    from dlspec.data.dataset import Dataset
    from dlspec.data.sources.table_dataset import EncodedTable
    from dlspec.data.sources.table_rows import TableRows
    from dlspec.data.tables.table import ReadNotes, Table

TABLE_OPTIONS = ("format", "delimiter", "quote", "header", "skip", "comment")  # how rows are written in a file
TEXT, IMAGE = "text", "image"  # columns of what a file contains


@data_source("files")
class FileSource(TableSettings):
    """A row for each file: `{name}` in the path catches a column, and `text` or `image` is the content of the file.

    What the path catches is an input only where `columns` names it. A caught column that says train, val or test is the
    split.
    """

    reads_texts: ClassVar[bool] = True  # whether `columns` is by default the text of the files

    path: str | None = Field(None, description="the files: reviews/{part}/{label}/{number}.txt; {name} is a column")

    @model_validator(mode="after")
    def _check_options(self) -> FileSource:
        for key in TABLE_OPTIONS:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise InvalidSetting((key,), f"{key} has no effect on files, which are rows by themselves", Code.UNUSED)
        return self

    @model_validator(mode="after")
    def _read_texts_by_default(self) -> FileSource:
        if not self.columns and self.reads_texts:
            object.__setattr__(self, "columns", {TEXT: TEXT})
        return self

    def open(self) -> Dataset:
        return self.open_table().dataset

    def open_table(self) -> EncodedTable:
        """Read, split and encode the data, and keep the raw rows."""
        from dlspec.data.sources.table_dataset import encode_table

        rows = self.read_rows()
        return encode_table(self.choose_split(rows), rows, self.source_name)

    def read_rows(self) -> TableRows:
        """List the files that the path matches, one for each row."""
        from dataclasses import replace

        from dlspec.data.sources.table_rows import join_files

        if self.path is None:
            found = "no path is given; write 'data.path=\"FOLDER/{label}/{name}.txt\"', where {label} is a column"
            raise DataError("path", found, Code.MISSING_VALUE)
        paths = {"path": [self.path], "validation": list_paths(self.validation), "test": list_paths(self.test)}
        for key, patterns in paths.items():
            if len(patterns) > 1:
                raise DataError(key, "several paths of files are not supported yet; write one path", Code.NOT_YET)
        return replace(
            join_files({key: self._list_files(each[0]) for key, each in paths.items() if each}), needs_naming=True
        )

    def _list_files(self, pattern: str) -> tuple[Table, ReadNotes]:
        from dlspec.data.tables.file_pattern import list_files, make_absolute
        from dlspec.data.tables.file_texts import read_file_texts

        table, notes = list_files(pattern)
        if TEXT in {*self.columns, *self.list_targets()} and TEXT not in table.columns:
            _refuse_images_as_texts(table)
            table = read_file_texts(table, self.encoding)
        if IMAGE in {*self.columns, *self.list_targets()} and IMAGE not in table.columns:
            table = table.with_column(IMAGE, make_absolute(table.files))
        return table, notes

    def choose_split(self, rows: TableRows) -> FileSource:
        """Use the only caught column that names splits, unless a setting decides the splits."""
        from dlspec.data.splitting.split_column import names_splits

        if any(each is not None for each in (self.split, self.time, self.folds)) or rows.split_of_file is not None:
            return self
        found = [name for name, column in rows.table.columns.items()
                 if name not in (TEXT, *self.list_targets()) and names_splits(column)]  # fmt: skip
        return self.model_copy(update={"split": found[0]}) if len(found) == 1 else self


def _refuse_images_as_texts(table: Table) -> None:
    """Refuse files of images that no setting names as such: read as texts they would be noise, or not UTF-8."""
    from dlspec.data.images.pillow_files import has_image_ending
    from dlspec.formatting import format_argument

    if all(map(has_image_ending, table.files)):
        fix = format_argument("data.columns", {IMAGE: {"image": {"size": 64}}})
        found = f"'{table.files[0]}' is an image, and nothing names the column {IMAGE}; write {fix}"
        raise DataError("columns", found, Code.MISSING_VALUE)
