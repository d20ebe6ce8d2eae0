"""Kinds of columns: what their cells mean, and how they become numbers and tokens. Importing it registers them."""

from dlspec.data.prepare.kinds import (
    category,
    class_target,
    date,
    list_targets,
    number,
    numbers,
    plain_kinds,
    text,
    text_target,
    user_kinds,
    value_target,
)
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
    "category",
    "class_target",
    "date",
    "fitted_from_json",
    "infer_kind",
    "infer_target_kind",
    "list_targets",
    "number",
    "numbers",
    "plain_kinds",
    "read_kind",
    "text",
    "text_target",
    "user_kinds",
    "value_target",
]
