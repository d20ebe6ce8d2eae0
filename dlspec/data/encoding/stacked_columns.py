"""Columns that are made of several others: `columns: {image: {numbers: {like: "pixel_*"}}}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.encoding.name_patterns import match_names
from dlspec.errors import Code, DataError

Stacks = Mapping[str, tuple[str, ...]]  # by new column: the columns that it is made of


def find_stacks(key: str, written: Mapping[str, Any], columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Find the new columns that kinds with `like` make.

    Args:
        key: the setting of `data` that contains the kinds, for messages
        written: kinds by column, as written
        columns: the names of the table's columns

    Raises:
        DataError: if a pattern matches nothing, or the new column has the name of another.
    """
    patterns = {name: _find_like(kind) for name, kind in written.items()}
    stacks: dict[str, tuple[str, ...]] = {}
    for name, pattern in patterns.items():
        if not pattern:
            continue
        if name in columns:
            found = f"'{name}' is a column already, so it can't be made of '{pattern}'"
            raise DataError(f"{key}.{name}", f"{found}; choose another name", Code.NAME_TAKEN)
        stacks[name] = tuple(match_names(f"{key}.{name}", [pattern], columns))
    return stacks


def _find_like(kind: object) -> str:
    settings = next(iter(kind.values())) if isinstance(kind, Mapping) and len(kind) == 1 else None
    return str(settings.get("like") or "") if isinstance(settings, Mapping) else ""


def stack_columns(columns: Mapping[str, NDArray[Any]], members: Sequence[str]) -> NDArray[Any]:
    """Put columns of one type side by side: (N, W)."""
    return np.stack([columns[name] for name in members], axis=1)
