"""The target `mask`: a class for each pixel, from the numbers or colours of image files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from dlspec.data.images.image_cells import ImageCell
from dlspec.data.images.pixel_classes import PixelClasses
from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat
from dlspec.data.prepare.kinds.image_settings import (
    FILE_KEYS,
    FittedFiles,
    SizedKind,
    as_image_cells,
    examine_headers,
    make_unreadable_error,
    read_saved_files,
)
from dlspec.data.prepare.kinds.kind import (
    IGNORED,
    TARGET_KINDS,
    Role,
    Rows,
    register_kind,
    register_saved,
)
from dlspec.data.prepare.kinds.saved_values import SavedValues, make_saved_error
from dlspec.data.prepare.kinds.settings import CellText
from dlspec.errors import Code, DataError
from dlspec.limits import MAX_CLASSES

if TYPE_CHECKING:
    from dlspec.data.images.image_array import MaskArray

ANY_OTHER = "*"
IGNORED_NUMBER = 255  # of pixels without a class, in most data sets
MAX_FOUND = 256  # different numbers that can be classes without being listed
MAX_CODE = 2**24
_COLOUR = re.compile(r"#([0-9a-fA-F]{6})|(\d{1,3})[ ,]+(\d{1,3})[ ,]+(\d{1,3})")


@register_kind("mask", TARGET_KINDS)
class MaskTarget(SizedKind):
    """One class for each pixel. Without a size of its own, it has that of the input image."""

    role: ClassVar[Role] = "target"
    reads_files: ClassVar[bool] = True

    classes: list[CellText] | dict[CellText, CellText | None] | None = Field(
        None, description="the classes 0, 1, ..., or a mapping from numbers or '#ff0000' to classes; null is ignored"
    )
    missing: Literal["refuse", "drop"] = Field("refuse", description="refuse a row without a mask, or drop it")

    @model_validator(mode="after")
    def _check_classes(self) -> MaskTarget:
        if self.classes is None:
            return self
        if len(set(self._list_names())) < 2:
            raise ValueError("classes needs at least two different classes")
        if isinstance(self.classes, list):
            if len(set(self.classes)) < len(self.classes):
                raise ValueError("classes lists a class twice")
            return self
        kinds = {parse_code(cell)[1] for cell in self.classes if cell != ANY_OTHER}
        if len(kinds) != 1:
            raise ValueError("classes must be numbers, or colours such as '#ff0000', not both")
        return self

    def _list_names(self) -> list[str]:
        names = self.classes.values() if isinstance(self.classes, dict) else self.classes or []
        return [each for each in names if each is not None]

    @override
    def fit(self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = "") -> FittedMask:
        cells = as_image_cells(column)
        if self.size is None:
            examine_headers(cells)
        size = self.choose_size(list(cells), name, "target")
        names, pixels = self._make_written_classes() if self.classes else _find_classes(cells, name)
        return FittedMask(**self.fit_files(size), names=names, pixels=pixels)

    def _make_written_classes(self) -> tuple[tuple[str, ...], PixelClasses]:
        names = tuple(dict.fromkeys(self._list_names()))
        if isinstance(self.classes, list):
            return names, _make_pixel_classes({code: code for code in range(len(names))})
        written = dict(self.classes or {})
        other = names.index(str(written[ANY_OTHER])) if written.get(ANY_OTHER) is not None else None
        other = IGNORED if ANY_OTHER in written and other is None else other
        written.pop(ANY_OTHER, None)
        codes = {parse_code(cell)[0]: IGNORED if each is None else names.index(each) for cell, each in written.items()}
        return names, _make_pixel_classes(codes, other, is_colour=parse_code(next(iter(written)))[1])


def parse_code(cell: str) -> tuple[int, bool]:
    """Return the number of a pixel as written, and whether it is a colour; ValueError if it is neither.

    A colour is `#ff0000` or `255, 0, 0`; its number is 65536 * red + 256 * green + blue.
    """
    if cell.isascii() and cell.isdigit() and int(cell) < MAX_CODE:
        return int(cell), False
    found = _COLOUR.fullmatch(cell)
    parts = [int(each) for each in found.groups()[1:]] if found is not None and found[1] is None else []
    if found is None or any(each > 255 for each in parts):
        raise ValueError(f"'{cell}' is not a pixel of a mask; write a number, or a colour such as '#ff0000'")
    return (int(found[1], 16) if found[1] else parts[0] << 16 | parts[1] << 8 | parts[2]), True


def _make_pixel_classes(
    class_of_code: Mapping[int, int], other: int | None = None, *, is_colour: bool = False, has_more: bool = True
) -> PixelClasses:
    """Make the classes of pixels; the number 255 is ignored unless it is a class, or does not occur.

    Args:
        class_of_code: the class of each number or colour, -100 for one that is ignored
        other: the class of all others; None if there are none
        is_colour: whether these are colours
        has_more: whether masks may have other numbers than these
    """
    found = dict(class_of_code)
    if has_more and not is_colour and other is None:
        found.setdefault(IGNORED_NUMBER, IGNORED)
    codes = sorted(found)
    return PixelClasses(tuple(codes), tuple(found[code] for code in codes), other, is_colour)


def _find_classes(cells: NDArray[Any], name: str) -> tuple[tuple[str, ...], PixelClasses]:
    """Find the classes of masks without names: the numbers that occur in them. All masks are decoded once."""
    from dlspec.data.images.image_cells import map_in_threads

    readable = [cell for cell in cells if cell is not None and not cell.problem]
    found: set[int] = set().union(*map_in_threads(_list_numbers, readable))
    if len(found) > MAX_FOUND:
        fix = "is it an image? Write its classes, as in classes: [background, road]"
        raise DataError(f"target.{name}", f"the masks have {len(found):,} different numbers; {fix}", Code.BAD_DATA)
    if not found:
        raise make_unreadable_error(name, list(cells))
    classes = sorted(found - {IGNORED_NUMBER} if len(found) > 2 else found)
    if len(classes) < 2:
        found_text = f"every pixel of the masks of '{name}' is {classes[0]}"
        raise DataError("target", f"{found_text}; expected at least two classes")
    class_of_code = {code: at for at, code in enumerate(classes)}
    class_of_code |= dict.fromkeys(found - set(classes), IGNORED)
    return tuple(map(str, classes)), _make_pixel_classes(class_of_code, has_more=False)


def _list_numbers(cell: ImageCell) -> set[int]:
    """List the numbers of a mask; set() for one that can't be read, which is reported with its row."""
    from dlspec.data.images.image_decoding import decode_mask

    try:
        return set(np.unique(decode_mask(cell.read(), is_colour=False)).tolist())
    except DataError as error:
        cell.problem = error.finding.found
        return set()


@register_saved("mask")
@dataclass(frozen=True)
class FittedMask(FittedFiles):
    """Masks of one size (N, H, W) int64, -100 where a pixel is ignored; read when a batch needs them."""

    names: tuple[str, ...]
    pixels: PixelClasses

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.names

    @property
    def has_ignored(self) -> bool:
        """Whether a pixel may have no class."""
        return self.resize == "fit" or IGNORED in (*self.pixels.classes, self.pixels.other)

    def make_array(self, cells: NDArray[Any]) -> MaskArray:
        """Make the lazy array of image cells (N,)."""
        from dlspec.data.images.image_array import MaskArray, MaskForm, PrepareMasks

        form = MaskForm(self.kept_size, self.resize, self.pixels, len(self.names))
        return MaskArray(cells, form, PrepareMasks(self.size), self.shape)

    def invert(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert classes (N, H, W) to their names; None for -100."""
        names = np.array([*self.names, None], object)
        return np.asarray(names[np.where(values < 0, len(self.names), values)])

    def to_json(self) -> dict[str, Any]:
        pixels = self.pixels
        return {
            "kind": self.kind, "names": list(self.names), "codes": list(pixels.codes), "indices": list(pixels.classes),
            "other": pixels.other, "is_colour": pixels.is_colour, **self.files_to_json(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedMask:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, ("names", "codes", "indices", "other", "is_colour", *FILE_KEYS))
        names = values.get_texts("names", MAX_CLASSES)
        if len(names) < 2:
            raise make_saved_error("there must be at least two classes")
        return cls(**read_saved_files(values), names=names, pixels=_read_pixel_classes(values, len(names)))


def _read_pixel_classes(values: SavedValues, count: int) -> PixelClasses:
    codes, classes = values.values["codes"], values.values["indices"]
    other = values.values["other"]
    is_list = isinstance(codes, list) and isinstance(classes, list) and len(codes) == len(classes) <= MAX_CLASSES
    if not is_list or not codes or any(type(each) is not int for each in [*codes, *classes]):
        raise make_saved_error("codes and indices must be equally long lists of whole numbers")
    if list(codes) != sorted(set(codes)) or codes[0] < 0 or codes[-1] >= MAX_CODE:
        raise make_saved_error("codes must rise")
    allowed = {IGNORED, *range(count)}
    if not allowed.issuperset(classes) or not (other is None or (type(other) is int and other in allowed)):
        raise make_saved_error(f"the indices of classes must be from 0 to {count - 1}, or {IGNORED}")
    return PixelClasses(tuple(codes), tuple(classes), other, values.get_flag("is_colour"))
