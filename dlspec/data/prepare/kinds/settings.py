"""Types of settings that several kinds share."""

from __future__ import annotations

from typing import Annotated, Any
from unicodedata import normalize

from pydantic import BeforeValidator, Field

from dlspec.errors import format_value


def _convert_to_cell(value: Any) -> str:
    """Convert a class or value as written in YAML to the text of a cell; `1.0` is the cell `1`."""
    if isinstance(value, bool):
        raise ValueError(
            f"write cells as strings, in quotes: YAML reads yes, no, true and false as {str(value).lower()}"
        )
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float):
        return normalize("NFC", str(value).strip())  # as cells are
    raise ValueError(f"expected the text of a cell, got {format_value(value)}")


CellText = Annotated[str, BeforeValidator(_convert_to_cell)]
Clip = Annotated[
    tuple[float | None, float | None] | None,
    Field(
        strict=False,
        description="[lowest, highest] value, in the column's unit; null for no bound: larger ones become that",
    ),
]


def check_clip(clip: tuple[float | None, float | None] | None) -> None:
    """Raise ValueError where the lowest value is not below the highest."""
    if clip is None:
        return
    low, high = clip
    if low is None and high is None:
        raise ValueError("clip needs at least one bound: write for example clip: [0, null]")
    if low is not None and high is not None and low >= high:
        raise ValueError(f"clip must be [lowest, highest], got [{low:g}, {high:g}]")
