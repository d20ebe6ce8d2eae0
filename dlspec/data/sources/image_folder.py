"""`type: images`: a folder of images, whose folders are the classes and, if they are named so, the splits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from dlspec.data.sources.file_rows import FileSource
from dlspec.data.sources.source import data_source
from dlspec.errors import Code, DataError, InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlspec.data.sources.table_dataset import EncodedTable
    from dlspec.data.sources.table_rows import TableRows
    from dlspec.data.tables.table import ReadNotes, Table

IMAGE, LABEL, PART = "image", "label", "part"
IMAGE_SETTINGS = ("size", "resize", "store", "mode", "scale")


@data_source("images")
class ImageFolder(FileSource):
    """Images in folders: field `image`, channels-first; target `label`, the name of the folder.

    `path` is the folder of the class folders, `cats/1.jpg`, or of split folders with these, `train/cats/1.jpg`.
    """

    reads_texts: ClassVar[bool] = False

    path: str | None = Field(None, description="the folder of class folders, or of train, val and test with these")
    size: int | list[int] | None = Field(None, description="[height, width], or one number; null: as the files")
    resize: Literal["cover", "fit", "stretch"] = Field("cover", description="cover: the center, fit: all, or stretch")
    store: int | list[int] | None = Field(None, description="size that images are kept at; training crops of it")
    mode: Literal["auto", "rgb", "grey", "rgba"] = Field("auto", description="auto: rgb where an image has colours")
    scale: str | dict[str, Any] | None = Field(
        None, description="unit, half, standard, imagenet or {mean, std}; null: unit, or refused with weights"
    )

    @field_validator("columns")
    @classmethod
    def _check_image(cls, columns: dict[str, Any]) -> dict[str, Any]:
        if IMAGE in columns:
            found = "the settings of the image are keys of data itself: write data.size, not data.columns"
            raise InvalidSetting((IMAGE,), found, Code.CONFLICT)
        return columns

    @model_validator(mode="after")
    def _check_image_settings(self) -> ImageFolder:
        from dlspec.data.encoding.kind_settings import make_kind
        from dlspec.data.prepare.kinds.kind import COLUMN_KINDS

        try:
            make_kind("columns", IMAGE, self._make_image_kind(), COLUMN_KINDS)
        except DataError as error:
            key = error.key.removeprefix("columns.image.image").strip(".").split(".")
            raise InvalidSetting(tuple(filter(None, key)), error.finding.found, error.finding.code) from None
        return self

    def _make_image_kind(self) -> dict[str, Any]:
        written = {key: getattr(self, key) for key in IMAGE_SETTINGS}
        return {IMAGE: {key: value for key, value in written.items() if value is not None}}

    def choose_split(self, rows: TableRows) -> ImageFolder:
        """Use the split folders, and add the columns that this source always has."""
        chosen = super().choose_split(rows)
        target = self.target
        if target is None and LABEL not in rows.table.columns:
            found = f"'{self.path}' has images, but no folders of classes in it"
            fix = "write data.target=image to reconstruct them, or put the images of each class into a folder"
            raise DataError("path", f"{found}; {fix}", Code.MISSING_VALUE)
        columns = {IMAGE: self._make_image_kind(), **self.columns}
        found_target = LABEL if target is None else target
        return chosen.model_copy(update={"columns": columns, "target": found_target})  # type: ignore[return-value]

    def open_table(self) -> EncodedTable:
        """Read, split and encode the images, and keep the raw rows."""
        from dataclasses import replace

        encoded = super().open_table()
        resolved = {key: each for key, each in encoded.dataset.resolved.items() if key != "columns"}
        return replace(encoded, dataset=replace(encoded.dataset, resolved=resolved))

    def read_rows(self) -> TableRows:
        """List the images, one for each row."""
        from dataclasses import replace

        if self.path is None:
            found = "no folder is given; write data.path=FOLDER, with a folder of images for each class in it"
            raise DataError("path", found, Code.MISSING_VALUE)
        rows = super().read_rows()
        if PART not in rows.table.columns:
            return rows
        names = ", ".join(sorted(set(rows.table.columns[PART].tolist())))
        note = f"the folders {names} are the splits, the folders in them the classes"
        return replace(rows, notes=(*rows.notes, note))

    def _list_files(self, pattern: str) -> tuple[Table, ReadNotes]:
        return list_image_folder(pattern)


def list_image_folder(folder: str) -> tuple[Table, ReadNotes]:
    """List the images in a folder and its folders, with the columns `label` and `part` that these say.

    Args:
        folder: the folder of class folders, or of split folders with class folders

    Returns:
        The table, and how many other files there are.

    Raises:
        DataError: if the folder does not exist, or contains no image.
    """
    import numpy as np

    from dlspec.data.files.paths import expand_home
    from dlspec.data.images.pillow_files import IMAGE_ENDINGS, has_image_ending
    from dlspec.data.tables.file_pattern import FILE_COLUMN, check_unicode, make_absolute, walk_files
    from dlspec.data.tables.table import TEXT, ReadNotes, Table

    root = expand_home(folder)
    if not root.is_dir():
        found = f"found no folder '{folder}'" if not root.exists() else f"'{folder}' is a file"
        raise DataError("path", f"{found}; path must be a folder of images", Code.FILE_UNREADABLE)
    everything = [parts for parts in walk_files(root) if not any(part.startswith(".") for part in parts)]
    images = [parts for parts in everything if has_image_ending(parts[-1])]
    others = [str(root.joinpath(*parts)) for parts in everything if not has_image_ending(parts[-1])]
    if not images:
        shown = f", only files such as '{others[0]}'" if others else ""
        found = f"'{folder}' has no images{shown}"
        raise DataError("path", f"{found}; they end in {', '.join(IMAGE_ENDINGS)}", Code.NO_MATCH)
    files = tuple(str(root.joinpath(*parts)) for parts in images)
    check_unicode(files)
    columns = {**_name_folders(images), FILE_COLUMN: np.array(files, TEXT), IMAGE: make_absolute(files)}
    count = len(files)
    notes = ReadNotes(format="images", files=count, missed_files=len(others), missed_examples=tuple(others[:3]))
    return Table(columns, files, np.arange(count, dtype=np.int32), np.zeros(count, np.int64)), notes


def _name_folders(images: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """Return the columns that the folders of images say: `part` for train, val and test, `label` for the class."""
    import numpy as np

    from dlspec.data.splitting.split_column import SPLIT_OF_NAME
    from dlspec.data.tables.table import TEXT

    has_splits = all(len(parts) > 1 and parts[0].lower() in SPLIT_OF_NAME for parts in images)
    level = 1 if has_splits else 0
    labels = [parts[level] if len(parts) > level + 1 else None for parts in images]
    columns = {PART: np.array([parts[0] for parts in images], TEXT)} if has_splits else {}
    return {**columns, **({LABEL: np.array(labels, TEXT)} if any(labels) else {})}
