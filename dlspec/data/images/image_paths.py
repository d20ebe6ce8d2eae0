"""Names of image files that are filled from the columns of a row: `ham/images_part_*/{image_id}.jpg`."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.files.paths import expand_home
from dlspec.data.images.image_cells import ImageCell
from dlspec.errors import Code, DataError, suggest

_BRACE = re.compile(r"\{([^{}]*)\}")
MAX_LISTED = 3  # files in a message
MAX_FOLDERS = 10_000  # that a pattern may match: one of a stranger's run could list the whole disk


def list_braces(pattern: str) -> list[str]:
    """List the names of the columns that a pattern is filled from."""
    return list(dict.fromkeys(_BRACE.findall(pattern)))


def find_image_files(
    pattern: str, cells: Mapping[str, Sequence[str | None]], count: int, folder: str, key: str
) -> NDArray[Any]:
    """Find the image file of each row.

    Args:
        pattern: the file's name with `{column}`, which is filled from the row, and `*` for any text
        cells: the cells of the table's columns as text
        count: the number of rows
        folder: where the pattern starts, or in a folder above it, if its first folder is not in the working folder
        key: the setting that contains the pattern, for messages

    Returns:
        The cells (N,), None where a cell of the row is missing, with a problem where no or several files match.

    Raises:
        DataError: if the pattern names no column, or an unknown one.
    """
    names = list_braces(pattern)
    for name in names:
        if name not in cells:
            raise DataError(key, f"'{pattern}': no column '{name}'; {suggest(name, cells)}", Code.UNKNOWN_FIELD)
    if not names:
        same = f"'{pattern}' is the same file in each row"
        raise DataError(key, f"{same}; write a column in braces, such as {{{next(iter(cells), 'name')}}}.jpg")
    pieces = _BRACE.split(_start_in(pattern, folder))  # literal, name, literal, name, ..., literal
    columns = [cells[name] for name in pieces[1::2]]
    beside = f"{folder}/" if folder and pattern.startswith("{") else ""  # names of files beside the table
    finder = _FileFinder()
    found: NDArray[Any] = np.empty(count, object)
    for row in range(count):
        values = [column[row] for column in columns]
        if any(value is None for value in values):
            found[row] = None
            continue
        texts = [*pieces]
        texts[1::2] = [str(value) for value in values]
        name = "".join(texts)
        if beside and not name.startswith("/") and not Path(name).exists():
            name = beside + name
        found[row] = finder.find(name) if "*" in pattern else ImageCell(name)
    return found


def _start_in(pattern: str, folder: str) -> str:
    """Return the pattern with the folder that it starts from: the working folder, or else the given one or one above.

    Predictions of a table find its images wherever the command is typed.
    """
    if pattern.startswith("~"):
        pattern = str(expand_home(pattern))
    first = re.split(r"[{*]", pattern, maxsplit=1)[0]
    head = first.rpartition("/")[0]
    if not folder or Path(pattern).is_absolute() or (head and Path(head).exists()) or pattern.startswith("{"):
        return pattern
    above = Path(folder).absolute()
    start = next((each for each in (above, *above.parents) if head and (each / head).exists()), None)
    return pattern if start is None else str(start / pattern)


class _FileFinder:
    """Finds files by names with `*`. Each folder is listed once."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}  # of each folder, sorted
        self._folders: dict[str, list[str]] = {}  # that match the first parts of a name

    def find(self, name: str) -> ImageCell:
        """Find the only file that a name matches, as a cell; with a problem if there is none, or several."""
        folder, last = _split(name)
        found = [each for start in self._find_folders(folder) for each in self._match(start, last)]
        files = [each for each in found if Path(each).is_file()]
        if len(files) == 1:
            return ImageCell(files[0])
        if not files:
            return ImageCell(name, f"no file matches '{name}'")
        shown = ", ".join(files[:MAX_LISTED]) + (", ..." if len(files) > MAX_LISTED else "")
        return ImageCell(name, f"{len(files):,} files match '{name}': {shown}")

    def _find_folders(self, folder: str) -> list[str]:
        if "*" not in folder:
            return [folder]
        if folder not in self._folders:
            parent, last = _split(folder)
            found = [each for start in self._find_folders(parent) for each in self._match(start, last)]
            if len(found) > MAX_FOLDERS:
                raise DataError("", f"more than {MAX_FOLDERS:,} folders match '{folder}'", Code.TOO_LARGE)
            self._folders[folder] = found
        return self._folders[folder]

    def _match(self, folder: str, name: str) -> list[str]:
        """Return the paths of a folder's entries that a name matches."""
        prefix = folder if folder.endswith("/") or not folder else f"{folder}/"
        if "*" not in name:
            return [prefix + name]
        matches = re.compile(".*".join(map(re.escape, name.split("*"))), re.S).fullmatch
        names, start = self._list(prefix or "."), name.partition("*")[0]
        first = bisect_left(names, start)
        last = bisect_left(names, f"{start}\U0010ffff") if start else len(names)
        return [prefix + each for each in names[first:last] if matches(each)]

    def _list(self, folder: str) -> list[str]:
        if folder not in self._names:
            try:
                self._names[folder] = sorted(each for each in os.listdir(folder) if each[0] != ".")  # noqa: PTH208
            except OSError:
                self._names[folder] = []
        return self._names[folder]


def _split(name: str) -> tuple[str, str]:
    """Split the last part of a name off: `("/", "data")` for `/data`."""
    head, slash, last = name.rpartition("/")
    return head or slash, last
