"""Find the files that the user names as `input`, and how each of them is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dlspec.data.files.paths import expand_home
from dlspec.data.images.pillow_files import has_image_ending
from dlspec.data.sources.image_folder import list_image_folder
from dlspec.data.tables.file_pattern import FILE_COLUMN, list_files
from dlspec.data.tables.file_reader import ENDINGS, get_ending
from dlspec.data.tables.input_files import MAX_FILES, find_input_files
from dlspec.data.tables.table import Column, Table
from dlspec.errors import Code, DataError
from dlspec.inference.rows.input_settings import InputSettings

STANDARD_INPUT = "-"
SETTING = "input"  # the setting that messages suggest
# rows: tables; lines: a text in each line; texts, images: one in each file; idx: arrays; user: the user's own function
InputKind = Literal["stdin", "rows", "lines", "texts", "images", "idx", "user"]
_TEXT_ENDINGS = (".txt",)
_IDX_ENDINGS = ("-ubyte", ".idx")


@dataclass(frozen=True)
class InputFiles:
    """The files to read, all in one way."""

    kind: InputKind
    files: tuple[Path, ...] = ()
    caught: dict[str, Column] | None = None  # columns that braces in the path catch, a cell for each file

    @property
    def names(self) -> tuple[str, ...]:
        """The files as messages and the column `file` name them."""
        return tuple(map(str, self.files))


def find_inputs(source: str | Sequence[str], settings: InputSettings, setting: str = SETTING) -> InputFiles:
    """Find the files of a path, a list of paths, a glob, a folder, or a path with braces.

    Args:
        source: what the user writes as `input`
        settings: how files are read
        setting: the setting that messages suggest

    Raises:
        DataError: if a file is missing, or its format is unknown.
    """
    paths = [source] if isinstance(source, str) else list(source)
    if not all(paths):
        raise DataError(setting, f"the name of a file is empty; write the file, such as {setting}=new.csv")
    if STANDARD_INPUT in paths:
        if len(paths) > 1:
            raise DataError(setting, "standard input, -, can't be read together with files; name one of them")
        return InputFiles("stdin")
    if settings.user_rows is not None:
        return InputFiles("user", tuple(map(Path, paths)))
    if settings.reads_whole_files and len(paths) == 1 and "{" in paths[0]:
        table, _ = list_files(paths[0])
        return _make_input_files(table, settings)
    if settings.image_folder is not None and len(paths) == 1 and expand_home(paths[0]).is_dir():
        table, _ = list_image_folder(paths[0])
        return _make_input_files(table, settings)
    files = find_input_files(
        [each for path in paths for each in _list_folder(path, settings, setting)], setting=setting
    )
    return InputFiles(_choose_kind(files, settings), tuple(files))


def _make_input_files(table: Table, settings: InputSettings) -> InputFiles:
    """Return the files of a table with a row for each, and what their paths say."""
    caught = {name: column for name, column in table.columns.items() if name != FILE_COLUMN}
    return InputFiles("images" if settings.image_column else "texts", tuple(map(Path, table.files)), caught)


def _list_folder(path: str, settings: InputSettings, setting: str) -> list[str]:
    """Return the files of a folder that can be read, or the path itself if it is a file or a pattern."""
    folder = expand_home(path)
    try:
        if not folder.is_dir():
            return [path]
        found = sorted(each for each in folder.iterdir() if not each.name.startswith(".") and each.is_file())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(setting, f"'{path}' can't be read: {reason}", Code.FILE_UNREADABLE) from None
    images = [each for each in found if settings.image_column and has_image_ending(each.name)]
    if images:
        return [str(each) for each in images]
    readable = [each for each in found if settings.reads_whole_files or get_ending(each) in ENDINGS]
    if not readable:
        endings = "no files" if settings.reads_whole_files else f"no files that end in {', '.join(ENDINGS)}"
        raise DataError(setting, f"the folder '{path}' has {endings}", Code.NO_MATCH)
    kinds = sorted({get_ending(each) for each in readable})
    if len(kinds) > 1 and not settings.reads_whole_files:
        found_kinds, fix = " and ".join(kinds), f"{setting}='{folder / ('*' + kinds[0])}'"
        raise DataError(setting, f"the folder '{path}' has files of several formats, {found_kinds}; write {fix}")
    if len(readable) > MAX_FILES:
        raise DataError(setting, f"the folder '{path}' has more than {MAX_FILES:,} files", Code.TOO_LARGE)
    return [str(each) for each in readable]


def _choose_kind(files: Sequence[Path], settings: InputSettings) -> InputKind:
    """Choose how files are read, by the ending of the first."""
    ending = get_ending(files[0])
    if settings.image_column and has_image_ending(files[0].name) and settings.written.get("format") is None:
        return "images"
    if settings.array_column and files[0].name.lower().removesuffix(".gz").endswith(_IDX_ENDINGS):
        return "idx"
    if settings.written.get("format") is not None:
        return "rows"
    if settings.reads_whole_files:
        return "rows" if ending in ENDINGS and ending not in _TEXT_ENDINGS else "texts"
    return "lines" if settings.text_column and ending in _TEXT_ENDINGS else "rows"
