"""The cells of an image column: files, bytes, arrays and Pillow's images, read when they are needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dlspec.data.files.paths import expand_home
from dlspec.data.images.image_decoding import (
    MAX_16_BITS,
    ImageFacts,
    describe_image,
    describe_loaded_image,
)
from dlspec.data.images.pillow_files import read_image_file
from dlspec.errors import DataError
from dlspec.progress_lines import follow_progress

if TYPE_CHECKING:
    from PIL.Image import Image

DIGEST_BYTES = 16
HEADER_BYTES = 1 << 18  # with the metadata of cameras before it; of a longer header, the whole file is read
FILES_OF_A_TASK = 64  # that one thread reads at a time
T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class ImageCell:
    """One image of a row, which is not decoded yet."""

    source: str | bytes | Image  # a file, the content of one, or an image in memory
    problem: str = ""  # why it can't be used
    facts: ImageFacts | None = None  # what its header says; None before it was examined
    digest: bytes = b""  # hash of its content; b"" before it was examined

    def __str__(self) -> str:
        """Return the file's name, or which image in memory it is."""
        return self.source if isinstance(self.source, str) else f"image {self.get_digest().hex()[:8]}"

    def read(self) -> bytes | Image:
        """Return the content of the file, or the image in memory.

        Raises:
            DataError: with the reason, if it can't be read.
        """
        if self.problem:
            raise DataError("", self.problem)
        return read_image_file(self.source) if isinstance(self.source, str) else self.source

    def examine(self) -> None:
        """Read the whole file once: note what its header says, the hash of its content, or what is wrong with it."""
        try:
            content = self.read()
            self.digest = _hash_content(content)
            self.facts = _share(_describe(content))
        except DataError as error:
            self.problem = error.finding.found
            self.digest = self.digest or _hash_text(self.problem)

    def examine_header(self) -> None:
        """Note what the header says, or what is wrong with it."""
        try:
            if isinstance(self.source, str) and not self.problem:
                self.facts = _share(_describe_start(self.source))
            else:
                self.examine()
        except DataError as error:
            self.problem = error.finding.found

    def identify_by_name(self) -> None:
        """Use the hash of the file's name for that of its content, which is then not read for it."""
        if isinstance(self.source, str):
            self.digest = _hash_text(self.source)

    def get_digest(self) -> bytes:
        """Return the hash of the content, which is read for it if it was not examined."""
        if not self.digest:
            try:
                self.digest = _hash_content(self.read())
            except DataError as error:
                self.digest = _hash_text(error.finding.found)
        return self.digest


def _describe(content: bytes | Image) -> ImageFacts:
    return describe_image(content) if isinstance(content, bytes) else describe_loaded_image(content)


def _describe_start(file: str) -> ImageFacts:
    """Describe a file by its first bytes."""
    start = read_image_file(file, HEADER_BYTES)
    try:
        return describe_image(start, is_whole=False)
    except DataError:
        if len(start) < HEADER_BYTES:
            raise
        return describe_image(read_image_file(file), is_whole=False)


@cache
def _share(facts: ImageFacts) -> ImageFacts:
    """Return one object for equal facts: a million images of one size take no memory."""
    return facts


def _hash_content(content: bytes | Image) -> bytes:
    if isinstance(content, bytes):
        return blake2b(content, digest_size=DIGEST_BYTES).digest()
    head = f"{content.mode} {content.width} {content.height} ".encode()
    return blake2b(head + content.tobytes(), digest_size=DIGEST_BYTES).digest()


def _hash_text(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


# ---- cells as written ------------------------------------------------------------------------------------------------


def make_image_cells(column: Iterable[Any], find_folder: Callable[[int], str]) -> NDArray[Any]:
    """Make image cells of the cells of a column.

    Args:
        column: names of files, their content, mappings with `bytes` and `path`, arrays (H, W) or (H, W, C), or
            Pillow's images
        find_folder: returns the folder that relative names of a row start from

    Returns:
        The cells (N,), None where a cell is missing.
    """
    cells = [_make_cell(cell, find_folder, row) for row, cell in enumerate(column)]
    found = np.empty(len(cells), object)
    found[:] = cells
    return found


def _make_cell(cell: Any, find_folder: Callable[[int], str], row: int) -> ImageCell | None:
    if isinstance(cell, Mapping):  # as Hugging Face's data sets have them
        content = cell.get("bytes")
        cell = cell.get("path") if content is None else content
    if cell is None or isinstance(cell, ImageCell) or (isinstance(cell, float) and np.isnan(cell)):
        return None if isinstance(cell, float) else cell
    if isinstance(cell, str):
        return _make_file_cell(cell.strip(), find_folder, row)
    if isinstance(cell, os.PathLike):
        return _make_file_cell(os.fspath(cell), find_folder, row)
    if isinstance(cell, bytes | bytearray | memoryview):
        return ImageCell(bytes(cell))
    try:
        return ImageCell(cell if hasattr(cell, "getexif") else convert_array(np.asarray(cell)))
    except (DataError, ValueError) as error:
        return ImageCell(b"", str(error))


def _make_file_cell(name: str, find_folder: Callable[[int], str], row: int) -> ImageCell | None:
    if not name:
        return None
    if name.startswith(("http://", "https://")):
        return ImageCell(name, f"'{name}' is an address; download the images, and write their files")
    if name.startswith("~"):
        name = str(expand_home(name))
    folder = find_folder(row)
    return ImageCell(name if not folder or name.startswith("/") else f"{folder}/{name}")


def convert_array(array: NDArray[Any]) -> Image:
    """Convert an array (H, W) or (H, W, C) to one of Pillow's images.

    Args:
        array: uint8, bool, uint16 (grey) or numbers from 0 to 1; or other integers from 0 to 255

    Raises:
        DataError: if it has another shape or other numbers.
    """
    from PIL import Image

    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (2, 3, 4))) or not array.size:
        found = f"an array of shape {list(array.shape)} is not an image"
        raise DataError("", f"{found}; expected (height, width) or (height, width, channels)")
    if array.dtype == np.uint16 and array.ndim == 2:
        return Image.fromarray(np.ascontiguousarray(array))
    return Image.fromarray(np.ascontiguousarray(_convert_to_bytes(array)))


def _convert_to_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise DataError("", f"an array of {array.dtype} is not an image")
    low, high = float(array.min()), float(array.max())
    limit = 1 if array.dtype.kind == "f" else MAX_16_BITS if array.dtype == np.uint16 else 255
    if not (low >= 0 and high <= limit):
        found = f"its numbers go from {low:g} to {high:g}"
        raise DataError("", f"{found}; expected integers from 0 to 255, or floats from 0 to 1")
    if array.dtype.kind == "f":
        return np.asarray(np.rint(array * 255), np.uint8)
    if limit == MAX_16_BITS:
        array = (array.astype(np.uint32) + 128) // 257
    return np.asarray(array, np.uint8)


# ---- many cells ------------------------------------------------------------------------------------------------------


def examine_images(cells: Sequence[ImageCell | None], *, whole_files: bool) -> None:
    """Note of each image what its header says, in threads.

    Args:
        cells: the images; None for a missing one
        whole_files: whether to read whole files, to hash their content and to find truncated ones
    """
    todo = [cell for cell in cells if cell is not None and cell.facts is None and not cell.problem]
    for _ in map_in_threads(ImageCell.examine if whole_files else ImageCell.examine_header, todo):
        pass


def map_in_threads(task: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Yield the result of a task for each image, in order, from as many threads as there are cores.

    If that takes longer than two seconds, a line says how far it is.
    """
    yield from follow_progress(_map_in_threads(task, items), len(items), "reading images")


def _map_in_threads(task: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    parts = [items[start : start + FILES_OF_A_TASK] for start in range(0, len(items), FILES_OF_A_TASK)]
    threads = min(len(parts), os.cpu_count() or 1)
    if threads < 2:
        yield from map(task, items)
        return
    with ThreadPoolExecutor(threads, "images") as pool:
        try:
            for found in pool.map(lambda part: list(map(task, part)), parts):
                yield from found
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
