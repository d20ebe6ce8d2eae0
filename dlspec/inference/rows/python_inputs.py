"""Divide data given in Python into chunks of rows: frames, lists, arrays, or the names of files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.prepare.kinds.image import FittedImage
from dlspec.data.tables.python_rows import table_from_python
from dlspec.errors import UserError
from dlspec.inference.loading.loaded_run import LoadedRun
from dlspec.inference.rows.input_chunks import iterate_row_chunks
from dlspec.inference.rows.input_columns import list_input_columns
from dlspec.inference.rows.input_settings import make_input_settings
from dlspec.inference.rows.input_sources import find_inputs
from dlspec.inference.rows.row_chunk import RowChunk

CHANNELS = (1, 3, 4)  # of an image
MAX_NAMES = 10  # of columns in a message


def iterate_data_chunks(run: LoadedRun, data: Any, chunk_rows: int, *, keep: bool = False) -> Iterator[RowChunk]:
    """Divide data given in Python into chunks of rows.

    Args:
        run: the run that predicts them
        data: a list of mappings, a frame, a mapping of columns, an array, or the names of files
        chunk_rows: the most rows of a chunk
        keep: whether to read the columns of files that the run does not need, too

    Raises:
        UserError: if the data are none of these, or a file can't be read.
    """
    fitted, names = run.require_preparation(), list_file_names(data)
    if names:
        settings = make_input_settings(run.spec.data, fitted, {}, keep=keep)
        yield from iterate_row_chunks(find_inputs(names, settings), settings, chunk_rows)
        return
    table = table_from_python(_name_array(fitted, data))
    for start in range(0, len(table), chunk_rows):
        part = slice(start, start + chunk_rows)
        taken = {name: column[part] for name, column in table.columns.items()}
        yield RowChunk(taken, start, rows=min(chunk_rows, len(table) - start))


def list_file_names(data: Any) -> list[str]:
    """List the files that data in Python name; [] if they are rows."""
    if isinstance(data, str | Path):
        return [str(data)]
    if isinstance(data, list | tuple) and data and all(isinstance(each, str | Path) for each in data):
        return list(map(str, data))
    return []


def list_images(data: Any) -> list[Any] | None:
    """List images given in Python: one or a list of Pillow's images, contents of files or arrays; None for other data.

    An array is one image (H, W) or (H, W, C) with 1, 3 or 4 channels, or several: (N, H, W), (N, H, W, C) or
    (N, C, H, W).
    """
    if isinstance(data, bytes) or hasattr(data, "getexif"):
        return [data]
    if isinstance(data, list | tuple):
        are_images = all(isinstance(each, bytes | np.ndarray) or hasattr(each, "getexif") for each in data)
        return list(data) if data and are_images else None
    if not isinstance(data, np.ndarray | Tensor):
        return None
    array = data.detach().cpu().numpy() if isinstance(data, Tensor) else data
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in CHANNELS):
        return [array]
    if array.ndim == 4 and array.shape[3] not in CHANNELS and array.shape[1] in CHANNELS:
        array = array.transpose(0, 2, 3, 1)
    return list(array) if array.ndim in (3, 4) else None


def _name_array(fitted: FittedTable, data: Any) -> Any:
    """Name an array or images after the only input; the columns of a matrix after the inputs, in their order."""
    images = list_images(data) if isinstance(next(iter(fitted.inputs.values())), FittedImage) else None
    if images is not None and len(fitted.inputs) == 1:
        return {next(iter(fitted.inputs)): images}
    if isinstance(data, Mapping) or hasattr(data, "columns") or not hasattr(data, "__array__"):
        return data
    array = data.detach().cpu().numpy() if isinstance(data, Tensor) else np.asarray(data)
    if len(fitted.inputs) == 1:
        return {next(iter(fitted.inputs)): array}
    names = list_input_columns(fitted)
    if array.ndim == 2 and array.shape[1] == len(names):
        return dict(zip(names, array.T, strict=True))
    found = "the run takes several columns, so one array is not enough"
    raise UserError(f"{found}; pass them by name: {', '.join(names[:MAX_NAMES])}")
