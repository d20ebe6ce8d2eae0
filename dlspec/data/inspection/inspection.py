"""What is known about data before training, and how it is printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.data.inspection.column_summary import ColumnSummary
from dlspec.data.inspection.model_suggestion import ModelSuggestion
from dlspec.errors import replace_control_characters, shorten_middle
from dlspec.formatting import format_table

MAX_SHOWN_COLUMNS = 60
MAX_SHOWN_CLASSES = 10
MAX_CELL_LENGTH = 60


@dataclass(frozen=True)
class Inspection:
    """What is known about data before training."""

    rows: int
    columns: tuple[ColumnSummary, ...]
    splits: Mapping[str, int] = field(default_factory=dict)  # rows of each split; {} without a target
    balance: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # training rows of each class, by target
    notes: tuple[str, ...] = ()  # how the table was read and understood
    notices: tuple[str, ...] = ()  # what the user should check
    suggestion: ModelSuggestion = field(default_factory=ModelSuggestion)
    resolved: Mapping[str, Any] = field(default_factory=dict)  # settings of `data` with the inferred kinds

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            "rows": self.rows,
            "columns": [each.to_json() for each in self.columns],
            "splits": dict(self.splits),
            "balance": {name: dict(each) for name, each in self.balance.items()},
            "notes": list(self.notes),
            "notices": list(self.notices),
            "model": self.model,
            "leave_out": list(self.suggestion.left_out),
        }

    @property
    def model(self) -> str:
        """A model that trains on the data without the columns in `suggestion.left_out`; "" if none of dlspec's does."""
        return self.suggestion.model

    def __str__(self) -> str:
        lines = "\n".join(self._list_lines()).split("\n")
        return "\n".join(map(replace_control_characters, lines))

    def _list_lines(self) -> Iterator[str]:
        yield from self.notes
        if self.notes:
            yield ""
        yield self._format_columns()
        for name, counts in self.balance.items():
            yield ""
            yield f"training rows by {name}: {_format_balance(counts, self.splits['training'])}"
        if self.notices:
            yield ""
            yield from (f"check: {each}" for each in self.notices)

    def _format_columns(self) -> str:
        header = ("column", "is", "kind", "missing", "different", "values", "why")
        shown = [_format_row(each) for each in self.columns[:MAX_SHOWN_COLUMNS]]
        table = format_table(header, shown, ("missing", "different"))
        more = len(self.columns) - MAX_SHOWN_COLUMNS
        return table + (f"\nand {more:,} more columns; --json lists all" if more > 0 else "")


def _format_row(each: ColumnSummary) -> tuple[str, ...]:
    cells = (each.name, each.role, each.kind, f"{each.missing:,}", f"{each.distinct:,}", each.values, each.reason)
    return tuple(shorten_middle(" ".join(cell.split()), MAX_CELL_LENGTH) for cell in cells)


def _format_balance(counts: Mapping[str, int], rows: int) -> str:
    found = [f"{name} {count:,} ({100 * count / max(1, rows):.1f} %)" for name, count in counts.items()]
    more = f" and {len(found) - MAX_SHOWN_CLASSES:,} more classes" if len(found) > MAX_SHOWN_CLASSES else ""
    return ", ".join(found[:MAX_SHOWN_CLASSES]) + more
