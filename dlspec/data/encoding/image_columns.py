"""Columns of images: from the names, contents and arrays in a table to cells that are read when they are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.images.image_cells import ImageCell, make_image_cells
from dlspec.data.images.image_decoding import ImageFacts
from dlspec.data.images.image_paths import find_image_files, list_braces
from dlspec.data.images.pillow_files import has_image_ending
from dlspec.data.prepare.kinds.cells import list_cells
from dlspec.data.prepare.kinds.image import FittedImage
from dlspec.data.prepare.kinds.mask_target import FittedMask

Columns = Mapping[str, NDArray[Any]]
MIN_SHARE = 0.95  # of the filled cells that are names of images; the others are refused
MAX_TRIED_FILES = 20  # names of a column that are looked up before it is taken for images
MAX_LISTED = 6  # kinds of colours in a note


def list_fitted_images(fitted: FittedTable) -> dict[str, str]:
    """List the inputs and targets that are images, each with the pattern of its files, '' if its cells are images."""
    everything = {**fitted.inputs, **fitted.targets}
    return {name: each.path for name, each in everything.items() if isinstance(each, FittedImage | FittedMask)}


def convert_image_columns(
    columns: Columns, patterns: Mapping[str, str], find_folder: Callable[[int], str], key: str = "columns"
) -> dict[str, NDArray[Any]]:
    """Convert columns to image cells, and add those whose files are named by other columns.

    Args:
        columns: the cells of all rows
        patterns: the columns to convert: names of files with `{column}`, or '' if the cells are the images
        find_folder: returns the folder that relative names of a row start from
        key: the setting that contains the patterns, for messages

    Raises:
        DataError: if a pattern names an unknown column.
    """
    found, count = dict(columns), len(next(iter(columns.values()), ()))
    for name, pattern in patterns.items():
        if pattern and name not in columns:
            named = {each: columns[each] for each in list_braces(pattern) if each in columns}
            cells: dict[str, Any] = {each: [] for each in columns} | {each: list_cells(c) for each, c in named.items()}
            found[name] = find_image_files(pattern, cells, count, find_folder(0) if count else "", f"{key}.{name}")
        elif name in columns:
            found[name] = make_image_cells(columns[name], find_folder)
    return found


def find_image_columns(columns: Columns, candidates: Sequence[str], find_folder: Callable[[int], str]) -> list[str]:
    """Find the columns whose cells are images: in Python, or names of image files that exist.

    Args:
        columns: the cells of all rows
        candidates: the columns to look at
        find_folder: returns the folder that relative names of a row start from
    """
    return [name for name in candidates if _has_images(columns[name], find_folder)]


def _has_images(column: NDArray[Any], find_folder: Callable[[int], str]) -> bool:
    if column.dtype == object and column.ndim == 1:
        filled = [cell for cell in column if cell is not None]
        return bool(filled) and all(_is_image(cell) for cell in filled)
    if column.dtype.kind != "T" or column.ndim > 1:
        return False
    count = sum(cell is not None for cell in column.tolist())
    names = [(row, cell) for row, cell in enumerate(column.tolist()) if cell is not None and has_image_ending(cell)]
    if not names or len(names) < MIN_SHARE * count:
        return False
    tried = names[:: max(1, len(names) // MAX_TRIED_FILES)][:MAX_TRIED_FILES]
    return any(Path(find_folder(row), cell).is_file() for row, cell in tried)


def _is_image(cell: object) -> bool:
    """Whether a cell is an image in memory: the content of a file, one of Pillow's images, or an array of pixels.

    Parquet's images without bytes are names of files.
    """
    if isinstance(cell, np.ndarray):
        return cell.dtype == np.uint8 and (cell.ndim == 2 or (cell.ndim == 3 and cell.shape[2] in (1, 3, 4)))
    if isinstance(cell, str):
        return has_image_ending(cell)
    return isinstance(cell, bytes | bytearray | Mapping | ImageCell) or hasattr(cell, "getexif")


def make_folder_finder(files: Sequence[str], file_of_row: NDArray[Any] | None) -> Callable[[int], str]:
    """Return a function from a row to the folder of its file; "" for rows of no file.

    Args:
        files: the files that rows come from
        file_of_row: index of each row's file (N,)
    """
    if not files or file_of_row is None:
        return lambda row: ""
    folders = [str(Path(file).parent) for file in files]
    return lambda row: folders[file_of_row[row]]


def describe_images(name: str, column: NDArray[Any]) -> Iterator[str]:
    """Yield lines about what the images of a column are: how many, of which colours and sizes."""
    facts = [cell.facts for cell in column if cell is not None and cell.facts is not None]
    if not facts:
        return
    line = f"{name}: read {len(facts):,} images: {_count_colours(facts)}; {_describe_sizes(facts)}"
    turned = sum(each.is_turned for each in facts)
    clear = sum(each.has_alpha for each in facts)
    animated = sum(each.is_animated for each in facts)
    line += f"; {turned:,} {_was(turned)} turned by EXIF" if turned else ""
    line += f"; {clear:,} {_have(clear)} an alpha channel" if clear else ""
    line += f"; {animated:,} {_have(animated)} several pictures, of which the first is used" if animated else ""
    yield line


def describe_image_values(column: NDArray[Any]) -> str:
    """Describe the sizes and colours of a column of images: `28 x 28 to 640 x 480; 612 RGB, 388 grey`."""
    facts = [cell.facts for cell in column if cell is not None and cell.facts is not None]
    return f"{_describe_sizes(facts)}; {_count_colours(facts)}" if facts else ""


def _count_colours(facts: Sequence[ImageFacts]) -> str:
    colours = Counter(each.colours for each in facts)
    return ", ".join(f"{count:,} {colour}" for colour, count in colours.most_common(MAX_LISTED))


def _describe_sizes(facts: Sequence[ImageFacts]) -> str:
    """Describe the sizes of images, height x width: the smallest and the largest."""
    sizes = {(each.height, each.width) for each in facts}
    low, high = (pick(sizes, key=lambda size: (size[0] * size[1], size)) for pick in (min, max))
    smallest = f"{low[0]:,} x {low[1]:,}"
    return smallest if low == high else f"{smallest} to {high[0]:,} x {high[1]:,}"


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def find_written_pattern(written: object, kinds: Sequence[str]) -> str | None:
    """Return the pattern of files that a kind of images has as written, '' if it has none; None for another kind.

    Args:
        written: the kind, as in `{image: {path: "photos/{id}.jpg"}}`
        kinds: the names of kinds of images
    """
    if isinstance(written, str):
        return "" if written in kinds else None
    if not isinstance(written, Mapping) or len(written) != 1:
        return None
    ((kind, settings),) = written.items()
    if kind not in kinds:
        return None
    pattern = settings.get("path") if isinstance(settings, Mapping) else None
    return pattern if isinstance(pattern, str) else ""
