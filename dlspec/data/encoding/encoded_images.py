"""Encoded fields and targets that are images in files: whether they can be decoded, and their values in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.images.image_array import FileArray


def find_undecodable_rows(values: Mapping[str, Any], rows: NDArray[np.int64]) -> dict[int, list[str]]:
    """Decode all images of some rows, and return by row of the table why those that can't be decoded can't.

    Args:
        values: the encoded fields or targets, some of which are images
        rows: the row of the table of each sample
    """
    problems: dict[int, list[str]] = {}
    for name, each in values.items():
        if isinstance(each, FileArray):
            readable = [at for at, cell in enumerate(each.cells) if cell is not None and not cell.problem]
            for at, reason in each.try_rows(readable).items():
                problems.setdefault(int(rows[at]), []).append(f"{name}: {reason}")
    return problems


def load_images(fields: dict[str, Any], rows: NDArray[np.int64]) -> dict[int, list[str]]:
    """Replace images in files by compact values in memory; return by row of the table why those that can't be can't.

    Args:
        fields: the encoded fields, which are changed
        rows: the row of the table of each sample
    """
    problems: dict[int, list[str]] = {}
    for name, each in fields.items():
        if isinstance(each, FileArray):
            fields[name], found = each.load()
            for at, reason in found.items():
                if (cell := each.cells[at]) is not None and not cell.problem:  # others are known already
                    problems.setdefault(int(rows[at]), []).append(f"{name}: {reason}")
    return problems
