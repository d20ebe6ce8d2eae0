"""The target `class`: each row has one class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat, list_cells
from dlspec.data.prepare.kinds.class_table import (
    ClassesKind,
    ClassTable,
    MissingTarget,
    encode_missing_targets,
    order_classes,
    read_missing_target,
)
from dlspec.data.prepare.kinds.kind import (
    IGNORED,
    TARGET_KINDS,
    Encoded,
    FittedColumn,
    Role,
    Rows,
    register_kind,
    register_saved,
)
from dlspec.data.prepare.kinds.saved_values import SavedValues
from dlspec.data.prepare.kinds.settings import CellText
from dlspec.errors import format_value


@register_kind("class", TARGET_KINDS)
class ClassTarget(ClassesKind):
    """One class for each row."""

    role: ClassVar[Role] = "target"

    positive: CellText | None = Field(None, description="of two classes, the one with index 1")
    missing: MissingTarget = Field("refuse", description="refuse a row without a class, drop it, or ignore its loss")

    @model_validator(mode="after")
    def _check_positive(self) -> ClassTarget:
        listed = self.list_classes()
        if listed and self.positive is not None and list(listed[1:]) != [self.positive]:
            raise ValueError(f"positive must be the second of two classes, got {format_value(self.positive)}")
        return self

    @override
    def fit(self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = "") -> FittedClasses:
        table = self.make_table(lambda: order_classes(list_cells(column), name, self.positive))
        return FittedClasses(table, self.missing)


@register_saved("class")
@dataclass(frozen=True)
class FittedClasses(FittedColumn):
    """The classes of a target."""

    table: ClassTable
    missing: MissingTarget

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.table.names

    def apply(self, column: NDArray[Any]) -> Encoded:
        """Encode cells as indices of classes (N,); -100 where the cell is missing or has no class."""
        cells, index = list_cells(column), self.table.make_index()
        index_of_cell = {cell: IGNORED if cell is None else index(cell) for cell in set(cells)}
        indices = np.array([index_of_cell[cell] for cell in cells], np.int64)
        unknown = [row for row in np.flatnonzero(indices == IGNORED).tolist() if cells[row] is not None]
        problems = {row: self.table.explain_wrong(str(cells[row])) for row in unknown}
        return encode_missing_targets(indices, cells, self.missing, problems)

    def invert(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert indices (N,) to names of classes."""
        return self.table.get_names(values)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "classes": self.table.to_json(), "missing": self.missing}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedClasses:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, ("classes", "missing"))
        return cls(ClassTable.from_json(values.values["classes"]), read_missing_target(values))
