"""Kinds of columns: what their cells mean, and how they become numbers and tokens.

A name is imported when it is used, so that sources with a fixed preparation do not load all kinds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlspec.data.prepare.kinds.cells import CellFormat
    from dlspec.data.prepare.kinds.inference import InferredKind, infer_kind, infer_target_kind
    from dlspec.data.prepare.kinds.kind import (
        COLUMN_KINDS,
        TARGET_KINDS,
        ColumnKind,
        Encoded,
        FittedColumn,
        fitted_from_json,
    )
    from dlspec.data.prepare.kinds.kind_reading import read_kind

__all__ = [
    "COLUMN_KINDS",
    "TARGET_KINDS",
    "CellFormat",
    "ColumnKind",
    "Encoded",
    "FittedColumn",
    "InferredKind",
    "fitted_from_json",
    "infer_kind",
    "infer_target_kind",
    "read_kind",
]

_FILES_OF_NAMES = {
    "cells": ("CellFormat",),
    "inference": ("InferredKind", "infer_kind", "infer_target_kind"),
    "kind": ("COLUMN_KINDS", "TARGET_KINDS", "ColumnKind", "Encoded", "FittedColumn", "fitted_from_json"),
    "kind_reading": ("read_kind",),
}


def __getattr__(name: str) -> Any:
    for file, names in _FILES_OF_NAMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
