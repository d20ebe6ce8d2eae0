"""The rows of a check as an ONNX file takes them: categories and texts are strings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.kinds.cells import list_cells
from dlspec.inference.export.check_rows import CheckRows
from dlspec.inference.export.exported_model import ExportedModel
from dlspec.inference.export.file_inputs import ImageResize, TextTable


def make_onnx_inputs(model: ExportedModel, rows: CheckRows) -> dict[str, NDArray[Any]]:
    """Make the inputs of an ONNX file by name.

    Args:
        model: what was exported
        rows: the rows
    """
    found: dict[str, NDArray[Any]] = {}
    computed = {f"{each.name}_lengths" for each in model.inputs if isinstance(each.conversion, TextTable)}
    for each, values in zip(model.inputs, rows.inputs, strict=True):
        if each.conversion is not None and not isinstance(each.conversion, ImageResize):
            found[each.column] = np.array([cell or "" for cell in list_cells(rows.columns[each.column])], object)
        elif each.name not in computed:
            found[each.name] = values.numpy()
    return found
