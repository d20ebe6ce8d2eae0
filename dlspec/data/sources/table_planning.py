"""Plan what becomes of the columns of a table: which are inputs and targets, and of which kinds. Nothing is fitted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlspec.data.dataset import make_field_name
from dlspec.data.encoding.column_choice import ColumnChoice, ColumnSettings, choose_columns
from dlspec.data.encoding.fitted_table import FittedTable, check_columns
from dlspec.data.encoding.image_columns import find_written_pattern
from dlspec.data.encoding.name_patterns import make_unknown_column_error
from dlspec.data.encoding.stacked_columns import Stacks, find_stacks, name_stacked_labels, stack_columns
from dlspec.data.prepare.kinds.cells import CellFormat
from dlspec.data.sources.image_rows import add_fitted_images, add_image_columns, share_image_size
from dlspec.data.sources.saved_preparation import read_saved_preparation
from dlspec.data.sources.table_rows import TableRows, choose_table_rows
from dlspec.data.sources.table_settings import TableSettings
from dlspec.errors import Code, DataError


@dataclass(frozen=True)
class PlannedTable:
    """Rows with either the kinds of their columns, to be fitted, or what an earlier run has fitted."""

    rows: TableRows
    settings: TableSettings
    choice: ColumnChoice | None
    saved: FittedTable | None
    stacks: Stacks
    reconstructed: str = ""  # the field to reconstruct, where that is the target

    @property
    def targets(self) -> Mapping[str, Any]:
        """The kinds of the targets, or what was fitted to them."""
        if self.choice is not None:
            return self.choice.targets
        assert self.saved is not None  # one of the two is given
        return self.saved.targets

    @property
    def inputs(self) -> Sequence[str]:
        """The columns of the file that the network sees, or that say how it sees others."""
        chosen = self.choice or self.saved
        names: Mapping[str, Any] = chosen.inputs if chosen is not None else {}
        groups = (getattr(each, "per", None) for each in names.values())
        members = [member for name in names for member in self.stacks.get(name, (name,))]
        return list(dict.fromkeys([*members, *(each for each in groups if each)]))

    @property
    def input_kinds(self) -> dict[str, str]:
        """The kind of each input, by column."""
        if self.choice is not None:
            return {name: kind.name for name, kind in self.choice.inputs.items()}
        return {} if self.saved is None else {name: each.kind for name, each in self.saved.inputs.items()}

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each input and target, by column."""
        is_chosen = self.choice is not None
        targets = {name: each.name if is_chosen else each.kind for name, each in self.targets.items()}
        return self.input_kinds | targets

    def explain(self, name: str) -> str:
        """Say why a column has its kind, or is left out."""
        if self.choice is None:
            used = f"fitted by {self.settings.prepare}"
            return used if name in self.kinds else f"not used by {self.settings.prepare}"
        if name in self.choice.left_out:
            return self.choice.left_out[name]
        reason = self.choice.reasons.get(name, "as written")
        return f"inferred; otherwise {reason}" if name in self.targets and name in self.choice.reasons else reason


def plan_table(settings: TableSettings, loaded: TableRows) -> PlannedTable:
    """Choose the rows of a source and the kinds of their columns, or read what an earlier run has fitted.

    Args:
        settings: the source's settings; they may name no target
        loaded: the rows of its files, or rows given in Python

    Raises:
        DataError: if the settings do not fit the table.
    """
    rows = choose_table_rows(loaded, settings)
    if settings.prepare is not None:
        saved = read_saved_preparation(settings.prepare)
        _check_saved(settings, saved)
        rows = add_fitted_images(rows, settings, saved)
        check_columns(saved, rows.table.columns)
        return PlannedTable(
            _add_stacks(rows, saved.stacks), settings, None, saved, saved.stacks, _find_saved_field(settings, saved)
        )
    names, targets = list(rows.table.columns), settings.list_targets()
    stacks = find_stacks("columns", settings.columns, names) | find_stacks("target", targets, names)
    rows = add_image_columns(_add_stacks(rows, stacks), settings, targets)
    targets, reconstructed = _find_targets(settings, rows)
    _check_uses(settings, targets)
    choice = choose_columns(rows.table.columns, _make_column_settings(settings, rows, targets, stacks))
    choice = share_image_size(choice)
    return PlannedTable(rows, settings, choice, None, stacks, reconstructed)


def _check_saved(settings: TableSettings, saved: FittedTable) -> None:
    """Refuse another target, id or weight than those of the run whose preparation is used."""
    written = settings.list_targets()
    if any(kind is not None for kind in written.values()):
        found = "the kind of a target has no effect with prepare, which takes it from that run"
        raise DataError("target", f"{found}; name only the column, or leave target out", Code.CONFLICT)
    if written and not _find_saved_field(settings, saved) and written.keys() != saved.targets.keys():
        found = f"the run in '{settings.prepare}' predicts {', '.join(saved.targets)}, not {', '.join(written)}"
        raise DataError("target", f"{found}; leave target out, or prepare", Code.CONFLICT)
    for key, used in (("id", saved.id), ("weight", saved.weight)):
        name = getattr(settings, key)
        if name is not None and name != used:
            found = f"the {key} of the run in '{settings.prepare}' is {used!r}" if used else f"that run has no {key}"
            raise DataError(key, f"{key} has no effect with prepare: {found}; leave {key} out", Code.CONFLICT)


def _find_saved_field(settings: TableSettings, saved: FittedTable) -> str:
    """Return the field to reconstruct: an input of a run without targets, if it is named as the target; else ''."""
    written = list(settings.list_targets())
    return written[0] if not saved.targets and len(written) == 1 and written[0] in saved.inputs else ""


def _check_uses(settings: TableSettings, targets: Collection[str]) -> None:
    """Refuse a target that has another use."""
    for key in ("id", "weight"):
        name = getattr(settings, key)
        if name in targets:
            found = f"'{name}' is the target, so it can't be the {key}"
            raise DataError(key, f"{found}; name another column", Code.CONFLICT)


def _add_stacks(rows: TableRows, stacks: Stacks) -> TableRows:
    """Add the columns that are made of several others."""
    table = rows.table
    for name, members in stacks.items():
        table = table.with_column(name, stack_columns(table.columns, members))
    return replace(rows, table=table)


def _find_targets(settings: TableSettings, rows: TableRows) -> tuple[dict[str, Any], str]:
    """Return the target columns with their kinds as written, and the name of a field to reconstruct, '' for none."""
    targets, columns = settings.list_targets(), rows.table.columns
    if isinstance(settings.target, str) and _is_image_input(settings, settings.target):
        return {}, make_field_name(settings.target)
    if isinstance(settings.target, str) and settings.target not in columns:
        fields = {"features", *settings.fields, *map(make_field_name, settings.columns)}
        if settings.target not in fields:
            raise make_unknown_column_error("target", settings.target, columns)
        return {}, settings.target
    return targets, ""


def _is_image_input(settings: TableSettings, name: str) -> bool:
    """Whether a column is written to be an image, which the network should reconstruct if it is the target too."""
    return find_written_pattern(settings.columns.get(name), ("image",)) is not None


def _make_column_settings(
    settings: TableSettings, rows: TableRows, targets: Mapping[str, Any], stacks: Stacks
) -> ColumnSettings:
    """Collect what the settings say about the columns of a table.

    Args:
        settings: the source's settings
        rows: the rows, with the columns that are made of several others
        targets: the targets by column, each with its kind as written, None to infer it
        stacks: the columns that are made of several others, each with the names of these
    """
    uses = [(settings.id, "id"), (settings.weight, "weight"), (settings.split, "split"), (settings.folds, "folds"),
            *((name, "group") for name in settings.list_groups())]  # fmt: skip
    reserved = {str(name): use for name, use in uses if name is not None}
    for key in ("id", "weight"):
        name = getattr(settings, key)
        if name is not None and name not in rows.table.columns:
            raise make_unknown_column_error(key, name, rows.table.columns)
    reserved |= {member: f"in {name}" for name, members in stacks.items() for member in members}
    own = {} if settings.time != "row" else {"row": "time"}
    return ColumnSettings(
        name_stacked_labels(targets, stacks), settings.columns, settings.only, settings.drop, reserved | own,
        rows.needs_naming, make_cell_format(settings), settings.bad_rows == "skip", rows.table.locate,
    )  # fmt: skip


def make_cell_format(settings: TableSettings) -> CellFormat:
    """Return how the files of a source write numbers."""
    return CellFormat(settings.decimal, settings.thousands)
