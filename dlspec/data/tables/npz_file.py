"""Rows of npz files: every array is a column. Nothing in the file is unpickled, and declared sizes are checked."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from dlspec.data.tables.column_names import normalize_name
from dlspec.data.tables.table import Column, ReadOptions
from dlspec.data.tables.table_builder import CellReader, TableChunk, format_dates
from dlspec.errors import Code, DataError
from dlspec.limits import GIGABYTE, MAX_DATA_BYTES

_DAMAGE = (ValueError, EOFError, KeyError, SyntaxError, RuntimeError, zlib.error, zipfile.BadZipFile, OSError)


class NpzReader:
    """Reads npz files: every array is a column. All files must have arrays of the same names."""

    def __init__(self, options: ReadOptions) -> None:
        self.options = options  # of which `missing` applies to arrays of text
        self._first_file: Path | None = None
        self._names: list[str] = []

    def read(self, file: Path) -> Iterator[TableChunk]:
        """Yield the rows of one file, as one chunk."""
        arrays = {name: _to_column(array, self.options) for name, array in _read_arrays(file).items()}
        if self._first_file is None:
            self._first_file, self._names = file, sorted(arrays)
        if sorted(arrays) != self._names:
            raise DataError("path", f"'{file}' has other arrays than '{self._first_file}'", Code.CONFLICT)
        yield TableChunk(arrays, np.arange(1, 1 + _count_rows(file, arrays)))


def _count_rows(file: Path, arrays: dict[str, Column]) -> int:
    counts = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:6])
        fix = "save the arrays of each split in a file of their own"
        raise DataError("path", f"the arrays of '{file}' have different numbers of rows: {shown}; {fix}")
    return next(iter(counts.values()), 0)


def _read_arrays(file: Path) -> dict[str, Column]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = [each for each in archive.infolist() if each.filename.endswith(".npy")]
            _check_size(file, members)
            arrays = {}
            for member in members:
                name = normalize_name(member.filename.removesuffix(".npy"))
                if name in arrays:
                    raise DataError("path", f"'{file}' has two arrays '{name}'", Code.NAME_TAKEN)
                with archive.open(member) as stream:
                    arrays[name] = _read_array(file, name, stream, member.file_size)
    except _DAMAGE as error:
        found = f"'{file}' can't be read as npz: {error}"
        raise DataError("path", f"{found}; save it by numpy.savez", Code.FILE_UNREADABLE) from None
    if not arrays:
        raise DataError("path", f"'{file}' has no arrays", Code.FILE_UNREADABLE)
    return arrays


def _check_size(file: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    size = sum(member.file_size for member in members)
    if size > MAX_DATA_BYTES:
        found = f"the arrays of '{file}' take {size / GIGABYTE:,.1f} GB"
        raise DataError("path", f"{found}; at most {MAX_DATA_BYTES // GIGABYTE} GB are allowed", Code.TOO_LARGE)


def _read_array(file: Path, name: str, stream: IO[bytes], size: int) -> Column:
    """Read an array whose header declares as many bytes as the archive contains, else nothing is allocated."""
    version = npy.read_magic(stream)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read_header(stream)
    if dtype.hasobject:
        fix = "save numbers or texts: numpy.savez(file, NAME=array.astype(str))"
        raise DataError("path", f"'{file}': the array '{name}' contains Python objects; {fix}", Code.UNSUPPORTED)
    if dtype.kind not in "biufSUM":
        raise DataError("path", f"'{file}': the array '{name}' has the type {dtype}; save numbers or texts")
    if not shape:
        raise DataError("path", f"'{file}': '{name}' is one value, not an array with a value for each row")
    if dtype.itemsize == 0 or 0 in shape[1:]:
        raise DataError("path", f"'{file}': the array '{name}' has empty rows, of the shape {shape[1:]}")
    if any(each < 0 for each in shape) or math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"the array '{name}' should have the shape {shape}, but is shorter")
    content = stream.read(math.prod(shape) * dtype.itemsize)
    return np.frombuffer(content, dtype, count=math.prod(shape)).reshape(shape, order="F" if is_fortran else "C")


def _to_column(array: Column, options: ReadOptions) -> Column:
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "M":
        return format_dates(array)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind == "U":
        cells = CellReader(options.missing)
        return cells.clean_values(array.ravel().tolist()).reshape(array.shape)
    return array
