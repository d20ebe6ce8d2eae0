"""Settings that images and masks share: their size, and where their files are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from dlspec.data.images.image_cells import ImageCell, examine_images, make_image_cells
from dlspec.data.images.resizing import RESIZES, Resize, Size
from dlspec.data.prepare.kinds.kind import ColumnKind, Encoded, FittedColumn
from dlspec.data.prepare.kinds.saved_values import SavedValues, make_saved_error
from dlspec.data.prepare.kinds.setting_lines import format_columns_line
from dlspec.errors import Code, DataError, format_value

FILE_KEYS = ("size", "resize", "store", "path")  # of what `FittedFiles` saves
MAX_SIDE = 16_384  # pixels of an image that a network takes
MAX_PATH = 10_000  # characters of a pattern
SUGGESTED_SIZES = (32, 64, 96, 128, 160, 192, 224)
MISSING = "the image is missing"
WrittenSize = int | list[int]


class SizedKind(ColumnKind):
    """Settings that images and masks share: their size, and where their files are."""

    size: WrittenSize | None = Field(None, description="[height, width], or one number for both; null: as the files")
    resize: Resize = Field("cover", description="cover: the center, fit: all of it with borders, or stretch")
    store: WrittenSize | None = Field(
        None, description="[height, width] that images are kept at; training crops of it, evaluation takes the center"
    )
    path: str | None = Field(None, min_length=1, description="files by the columns of a row: photos/{id}.jpg")

    @field_validator("size", "store")
    @classmethod
    def _check_size(cls, size: WrittenSize | None) -> WrittenSize | None:
        sides = size if isinstance(size, list) else [1 if size is None else size] * 2
        if len(sides) != 2 or not all(1 <= side <= MAX_SIDE for side in sides):
            found = f"expected [height, width] or one number for both, from 1 to {MAX_SIDE:,}"
            raise ValueError(f"{found}, got {format_value(size)}")
        return size

    @model_validator(mode="after")
    def _check_store(self) -> SizedKind:
        size, store = read_size(self.size), read_size(self.store)
        if store is not None and size is None:
            raise ValueError("store needs size: the height and width that the network takes")
        if store is not None and size is not None and (store[0] < size[0] or store[1] < size[1]):
            raise ValueError(f"store {list(store)} must be at least as large as size {list(size)}")
        return self

    def choose_size(self, cells: Sequence[ImageCell | None], name: str, key: str) -> Size:
        """Return the size as written, or that of all files; DataError where they differ.

        Args:
            cells: the images of all rows
            name: the column
            key: the setting that contains the kind, `columns` or `target`
        """
        written = read_size(self.size)
        if written is not None:
            return written
        sizes = {(cell.facts.height, cell.facts.width) for cell in cells if cell is not None and cell.facts is not None}
        if not sizes:
            raise make_unreadable_error(name, cells)
        if len(sizes) == 1:
            return sizes.pop()
        low, high = min(sizes, key=_area), max(sizes, key=_area)
        side = _suggest_side(sizes)
        kind = f"{{{self.name}: {{size: [{side}, {side}]}}}}"
        found = f"the images of '{name}' differ in size, from {_show(low)} to {_show(high)} (height x width)"
        raise DataError(key, f"{found}; write {format_columns_line(name, kind, key)}", Code.MISSING_VALUE)

    def fit_files(self, size: Size) -> dict[str, Any]:
        """Return the arguments of `FittedFiles` for files that are read to a size."""
        return {"size": size, "resize": self.resize, "store": read_size(self.store), "path": self.path or ""}


@dataclass(frozen=True)
class FittedFiles(FittedColumn):
    """What fitted images and masks share: the size to which their files are read, and where they are."""

    size: Size
    resize: Resize
    store: Size | None  # at which they are kept; None: at `size`
    path: str = field(default="", kw_only=True)  # files by the columns of a row; "" if the cells are the images

    @property
    def kept_size(self) -> Size:
        """The size at which they are kept."""
        return self.store or self.size

    @abstractmethod
    def make_array(self, cells: NDArray[Any]) -> Any:
        """Make the lazy array of image cells (N,)."""

    def apply(self, column: NDArray[Any]) -> Encoded:
        cells = as_image_cells(column)
        return Encoded(self.make_array(cells), problems=find_image_problems(list(cells)))

    def files_to_json(self) -> dict[str, Any]:
        """Convert what is shared to JSON values."""
        store = None if self.store is None else list(self.store)
        return {"size": list(self.size), "resize": self.resize, "store": store, "path": self.path}


def read_saved_files(values: SavedValues) -> dict[str, Any]:
    """Return the saved arguments of `FittedFiles`; DataError if they are damaged."""
    size, store = _read_saved_size(values, "size"), _read_saved_store(values)
    path = values.get_text("path", MAX_PATH)
    return {"size": size, "resize": _read_saved_resize(values), "store": store, "path": path}


def read_size(written: WrittenSize | None) -> Size | None:
    """Return a size as written as (height, width)."""
    if written is None:
        return None
    return (written, written) if isinstance(written, int) else (written[0], written[1])


def _area(size: Size) -> tuple[int, Size]:
    return size[0] * size[1], size


def _show(size: Size) -> str:
    return f"{size[0]:,} x {size[1]:,}"


def _suggest_side(sizes: set[Size]) -> int:
    typical = float(np.median([min(size) for size in sizes]))
    return max((side for side in SUGGESTED_SIZES if side <= typical), default=SUGGESTED_SIZES[0])


def make_unreadable_error(name: str, cells: Sequence[ImageCell | None]) -> DataError:
    """Make the error for a column without any image that can be read."""
    found = next((f"{cell}: {cell.problem}" for cell in cells if cell is not None and cell.problem), MISSING)
    return DataError("", f"'{name}' has no image that can be read, the first: {found}", Code.BAD_DATA)


def examine_headers(cells: NDArray[Any]) -> None:
    """Read the headers of images that were not examined yet, such as those of an outline."""
    examine_images(cells.tolist(), whole_files=False)


def as_image_cells(column: NDArray[Any]) -> NDArray[Any]:
    """Return a column of image cells; relative names of files start in the working folder."""
    return make_image_cells(column, lambda row: "")


def find_image_problems(cells: Sequence[ImageCell | None]) -> dict[int, str]:
    """Return why images are known to be unusable, by row."""
    return {row: MISSING if cell is None else cell.problem for row, cell in enumerate(cells)
            if cell is None or cell.problem}  # fmt: skip


def _read_saved_size(values: SavedValues, key: str) -> Size:
    """Return a saved height and width; DataError if they are damaged."""
    found = values.values[key]
    if (
        not isinstance(found, list)
        or len(found) != 2
        or not all(type(each) is int and 1 <= each <= MAX_SIDE for each in found)
    ):
        raise make_saved_error(f"{key} must be a height and a width from 1 to {MAX_SIDE:,}")
    return found[0], found[1]


def _read_saved_store(values: SavedValues) -> Size | None:
    """Return the saved size at which images are kept; DataError if it is damaged or smaller than theirs."""
    if values.values["store"] is None:
        return None
    size, store = _read_saved_size(values, "size"), _read_saved_size(values, "store")
    if store[0] < size[0] or store[1] < size[1]:
        raise make_saved_error("store must be at least as large as size")
    return store


def _read_saved_resize(values: SavedValues) -> Resize:
    """Return how saved images are resized."""
    found = values.get_choice("resize", RESIZES)
    return next(each for each in RESIZES if each == found)
