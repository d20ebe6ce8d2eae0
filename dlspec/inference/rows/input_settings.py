"""How new files are read: as the files that a run was trained on, unless the user says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.encoding.image_columns import list_fitted_images
from dlspec.data.images.image_paths import list_braces
from dlspec.data.prepare.kinds.category import FittedCategory
from dlspec.data.prepare.kinds.kind import FittedColumn
from dlspec.data.prepare.kinds.numeric_cells import NumericCells
from dlspec.data.sources.file_rows import FileSource
from dlspec.data.sources.image_folder import ImageFolder
from dlspec.data.sources.labelled_text import TextCsv
from dlspec.data.sources.source import DataSource
from dlspec.data.sources.table_settings import TableSettings
from dlspec.data.sources.user_rows import UserRows
from dlspec.data.tables.column_use import ALL_COLUMNS, ColumnUse
from dlspec.data.tables.file_reader import ENDINGS, choose_format, get_ending, list_unused_options
from dlspec.data.tables.read_options import ReadOptions, RowFormat
from dlspec.errors import Code, DataError, suggest

# Options that describe one file format; the others, such as `decimal`, hold for cells of any file.
_FORMAT_OPTIONS = ("delimiter", "quote", "header", "skip", "comment")
DEFAULT_OPTIONS = ReadOptions.model_validate({})
# Endings that name their format whatever the training files were.
_CLEAR_ENDINGS = (".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".pq", ".npz")


@dataclass(frozen=True)
class InputSettings:
    """How the rows of new files become the columns of a run."""

    options: ReadOptions = DEFAULT_OPTIONS  # of the training files
    trained_format: RowFormat | None = None  # of the training files; None if they did not contain rows
    written: Mapping[str, Any] = field(default_factory=dict)  # options that the user writes for the new files
    extract: Mapping[str, str] = field(default_factory=dict)
    source: DataSource | None = None
    text_column: str = ""  # the only input, if it is text: lines of .txt files, or their whole content
    array_column: str = ""  # the only input, if it is an array: samples of IDX files
    array_shape: tuple[int, ...] = ()
    image_column: str = ""  # the only input, if it is an image: image files, or folders of them
    use: ColumnUse = ALL_COLUMNS

    @property
    def image_folder(self) -> ImageFolder | None:
        """The source of images in folders; None for other ones."""
        return self.source if isinstance(self.source, ImageFolder) else None

    @property
    def reads_whole_files(self) -> bool:
        """Whether a text or image file is one row."""
        return isinstance(self.source, FileSource)

    @property
    def user_rows(self) -> type[UserRows] | None:
        """The source with the user's own function that yields rows; None for files that dlspec reads."""
        return type(self.source) if isinstance(self.source, UserRows) else None

    def choose_options(self, file: Path) -> ReadOptions:
        """Return the options for a new file; DataError if one that the user writes is wrong or has no effect."""
        chosen = self._choose_format(file)
        unused = list_unused_options(chosen)
        if chosen != self.trained_format:
            unused = (*unused, *_FORMAT_OPTIONS)
        kept = {key: getattr(self.options, key) for key in ReadOptions.model_fields if key not in unused}
        return _check_options({**kept, "format": chosen, **self.written})

    def _choose_format(self, file: Path) -> RowFormat:
        written = self.written.get("format")
        if written is not None:
            return _check_options({"format": written}).format or "csv"
        if self.options.format is not None and get_ending(file) not in _CLEAR_ENDINGS:
            return self.options.format
        return choose_format(file, DEFAULT_OPTIONS)


def make_input_settings(
    source: DataSource | None, fitted: FittedTable, written: Mapping[str, Any], *, keep: bool = False
) -> InputSettings:
    """Make the settings for new files of a run.

    Settings that choose rows of the training files (`where`, `limit`, splits, `missing: drop`) do not apply: every new
    row gets an answer.

    Args:
        source: the source that the run was trained on; None for data given in Python
        fitted: what was fitted to its columns
        written: options of reading that the user writes, such as `delimiter`
        keep: whether all columns are needed as they are written
    """
    _check_names(written)
    options = DEFAULT_OPTIONS
    trained: RowFormat | None = None
    if isinstance(source, TextCsv):
        written_options = {"delimiter": source.delimiter, "encoding": source.encoding}
        options, trained = ReadOptions.model_validate(written_options), "csv"
    elif isinstance(source, TableSettings):
        options = source.make_read_options()
        trained = options.format or _find_trained_format(source)
    return InputSettings(
        options, trained, dict(written), getattr(source, "extract", {}), source, _find_text_column(source, fitted),
        *_find_array_column(fitted), _find_image_column(fitted),
        ALL_COLUMNS if keep else _choose_columns(source, fitted),
    )  # fmt: skip


def _choose_columns(source: DataSource | None, fitted: FittedTable) -> ColumnUse:
    """Choose the columns that predictions need: inputs, what they are made of, and what identifies a row."""
    members = {name: fitted.stacks.get(name, (name,)) for name in fitted.inputs}
    inputs = {each for names in members.values() for each in names}
    required = inputs | set(fitted.group_columns)
    texts = {fitted.id, *fitted.group_columns, *getattr(source, "extract", {})}
    texts |= {brace for pattern in list_fitted_images(fitted).values() for brace in list_braces(pattern)}
    others = {*members, *texts, *(plan.name for plan in fitted.fields)}
    numbers = {each for name, names in members.items() if _is_plain_number(fitted.inputs[name]) for each in names}
    return ColumnUse(frozenset(required | others), frozenset(numbers - texts), frozenset(required))


def _is_plain_number(column: FittedColumn) -> bool:
    """Whether a column reads its cells as numbers, without marks, thousands or an order of values."""
    cells = getattr(column, "cells", None)
    return isinstance(cells, NumericCells) and replace(cells, low=None, high=None) == NumericCells()


def _check_names(written: Mapping[str, Any]) -> None:
    for key in written:
        if key not in ReadOptions.model_fields:
            found = f"data.{key} is not an option of reading; {suggest(key, ReadOptions.model_fields)}"
            raise DataError(key, found, Code.UNKNOWN_SETTING)


def _check_options(settings: Mapping[str, Any]) -> ReadOptions:
    try:
        return ReadOptions.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        reason = first["msg"].removeprefix("Value error, ")
        raise DataError(key, f"data.{key} can't be {settings.get(key)!r}: {reason}", Code.WRONG_VALUE) from None


def _find_trained_format(source: TableSettings) -> RowFormat | None:
    path = getattr(source, "path", None)
    first = path[0] if isinstance(path, list) and path else path
    if not isinstance(first, str) or isinstance(source, FileSource | UserRows):
        return None
    return ENDINGS.get(get_ending(Path(first)))


def _find_text_column(source: DataSource | None, fitted: FittedTable) -> str:
    """Return the only column of inputs, if it contains text; '' if .txt files were read as tables in training."""
    if isinstance(source, FileSource):
        return "text" if "text" in fitted.inputs else ""
    if isinstance(source, TableSettings) or len(fitted.inputs) != 1:
        return ""
    ((name, column),) = fitted.inputs.items()
    is_text = column.layout == "tokens" and not isinstance(column, FittedCategory) and column.kind != "array"
    return name if is_text else ""


def _find_array_column(fitted: FittedTable) -> tuple[str, tuple[int, ...]]:
    """Return the only column of inputs and the shape of its samples without sizes of 1, if it is an array."""
    if len(fitted.inputs) != 1 or fitted.stacks:
        return "", ()
    ((name, column),) = fitted.inputs.items()
    shape = tuple(size for size in column.shape if size > 1)
    return (name, shape) if column.kind == "array" and shape else ("", ())


def _find_image_column(fitted: FittedTable) -> str:
    """Return the only column of inputs, if it is an image."""
    (name, *others) = fitted.inputs
    return name if not others and name in list_fitted_images(fitted) else ""
