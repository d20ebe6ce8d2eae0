"""Find and examine the images of a table before anything is fitted: which columns they are, and what they contain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dlspec.data.encoding.column_choice import ColumnChoice
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.encoding.image_columns import (
    convert_image_columns,
    describe_images,
    find_image_columns,
    find_written_pattern,
    list_fitted_images,
    make_folder_finder,
)
from dlspec.data.encoding.name_patterns import match_one
from dlspec.data.images.image_cells import examine_images
from dlspec.data.prepare.kinds.image import ImageSettings
from dlspec.data.prepare.kinds.image_settings import SizedKind
from dlspec.data.sources.table_rows import TableRows
from dlspec.data.sources.table_settings import TableSettings
from dlspec.errors import Code, DataError

INPUT_KINDS, OUTPUT_KINDS = ("image",), ("image", "mask")


def add_image_columns(rows: TableRows, settings: TableSettings, targets: Mapping[str, Any]) -> TableRows:
    """Convert the columns of images, as written or found, to cells that are read when they are needed.

    Each file is read once: its header, the hash of its content, and whether its end is there. None is read here for an
    outline, which needs two samples.

    Args:
        rows: the rows
        settings: the source's settings
        targets: the targets by column, each with its kind as written

    Raises:
        DataError: if a file pattern names an unknown column.
    """
    patterns = _find_input_patterns(rows, settings, targets)
    masks = {name: pattern for name, written in targets.items()
             if (pattern := find_written_pattern(written, OUTPUT_KINDS)) is not None}  # fmt: skip
    for key, found in (("columns", patterns), ("target", masks)):
        _refuse_unused_patterns(rows, found, key)
    return _convert(_convert(rows, settings, patterns, "columns"), settings, masks, "target")


def _refuse_unused_patterns(rows: TableRows, patterns: Mapping[str, str], key: str) -> None:
    """Refuse names of files for a column that the table has itself."""
    for name, pattern in patterns.items():
        if pattern and name in rows.table.columns:
            found = f"'{name}' is a column of the table, so its path '{pattern}' has no effect"
            raise DataError(f"{key}.{name}", f"{found}; remove path, or give the images another name", Code.CONFLICT)


def add_fitted_images(rows: TableRows, settings: TableSettings, fitted: FittedTable) -> TableRows:
    """Convert the columns of images that an earlier run has fitted.

    Args:
        rows: the rows
        settings: the source's settings
        fitted: what that run has fitted
    """
    return _convert(rows, settings, list_fitted_images(fitted), "prepare")


def _find_input_patterns(rows: TableRows, settings: TableSettings, targets: Mapping[str, Any]) -> dict[str, str]:
    columns = rows.table.columns
    patterns: dict[str, str] = {}
    for name, written in settings.columns.items():
        pattern = find_written_pattern(written, INPUT_KINDS)
        if pattern is not None:
            patterns |= dict.fromkeys(match_one(name, list(columns)) or ([name] if pattern else []), pattern)
    if rows.needs_naming:
        return patterns
    named = {each for name in settings.columns for each in match_one(name, list(columns))}
    dropped = {each for name in settings.drop for each in match_one(name, list(columns))}
    only = {each for name in settings.only for each in match_one(name, list(columns))} if settings.only else columns
    used = {*named, *dropped, *targets, *settings.list_groups(), settings.id, settings.weight, settings.split}
    candidates = [name for name in columns if name in only and name not in used]
    find_folder = make_folder_finder(rows.table.files, rows.table.file_of_row)
    return patterns | dict.fromkeys(find_image_columns(columns, candidates, find_folder), "")


def _convert(rows: TableRows, settings: TableSettings, patterns: Mapping[str, str], key: str) -> TableRows:
    if not patterns:
        return rows
    table, notes = rows.table, list(rows.notes)
    find_folder = make_folder_finder(table.files, table.file_of_row)
    columns = convert_image_columns(table.columns, patterns, find_folder, key)
    for name in patterns:
        if name not in columns:
            continue
        cells = columns[name].tolist()
        if settings.is_outline:
            for cell in filter(None, cells):
                cell.identify_by_name()
            continue
        examine_images(cells, whole_files=True)
        notes += describe_images(name, columns[name])
    return replace(rows, table=replace(table, columns=columns), notes=tuple(notes))


def share_image_size(choice: ColumnChoice) -> ColumnChoice:
    """Give each target of masks or images without a size of its own the size of the input images.

    Raises:
        DataError: if these have several sizes.
    """
    unsized = [name for name, kind in choice.targets.items() if isinstance(kind, SizedKind) and kind.size is None]
    images = [kind for kind in choice.inputs.values() if isinstance(kind, ImageSettings)]
    if not unsized or not images:
        return choice
    sizes = {str((kind.size, kind.resize, kind.store)): kind for kind in images}
    if len(sizes) > 1:
        found = f"the input images have {len(sizes)} different sizes, so '{unsized[0]}' needs its own"
        raise DataError(f"target.{unsized[0]}", f"{found}; write size: [HEIGHT, WIDTH]", Code.MISSING_VALUE)
    update = {key: getattr(images[0], key) for key in ("size", "resize", "store")}
    return replace(choice, targets={name: kind.model_copy(update=update) if name in unsized else kind
                                    for name, kind in choice.targets.items()})  # fmt: skip
