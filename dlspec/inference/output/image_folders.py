"""Write predicted masks and images as a folder of PNG files, which is absent or whole however the process ends."""

from __future__ import annotations

import csv
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath

from dlspec.data.images.pillow_files import has_image_ending
from dlspec.errors import UserError
from dlspec.inference.output.image_targets import ImageTarget
from dlspec.inference.output.prediction_formats import PredictionColumns
from dlspec.runs.file_access import is_regular_file
from dlspec.runs.io import find_default_mode, find_temporary_files, sync_folder
from dlspec.runs.lock import try_lock_file

LOCK_FILE = ".writing"  # in a folder that is being written
PROBLEMS_FILE = "problems.csv"  # the rows without an image
MAX_NAME = 200  # characters of a file's name
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]+')


def is_folder_output(output: str) -> bool:
    """Whether predictions are written as images into a folder: its name ends in a slash."""
    return output.endswith(("/", os.sep))


def check_folder_output(output: str) -> None:
    """Check that a folder of images can be written, before anything is computed.

    Raises:
        UserError: if it is a file, a link, or a folder that has files, or its parent does not exist.
    """
    path = Path(output)
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise UserError(f"the output '{path}' is a link, which is not followed; name the folder itself")
        if not stat.S_ISDIR(mode):
            raise UserError(f"the output '{path}' is a file; name a new folder, such as output={path.stem}_masks/")
        if any(path.iterdir()):
            raise UserError(f"the folder '{path}' is not empty; name a new one, such as output={path}_2/")
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"can't write to '{path}': {reason}; name another folder") from None
    if not path.parent.is_dir():
        raise UserError(f"no folder '{path.parent}' for the output '{path.name}'; create it, or name another folder")


class ImageFolderWriter:
    """Writes a PNG file for each row, named after the row's file, its id or its number."""

    is_closed = False

    def __init__(self, folder: Path, targets: Sequence[ImageTarget], names: Sequence[str], base: str = "") -> None:
        self._folder, self._targets, self._names = folder, targets, names
        self._base = base  # the folder that all input files are in
        self._used: set[str] = set()
        self._problems: list[tuple[str, str]] = []

    def write(self, columns: PredictionColumns, problems: Mapping[int, str]) -> None:
        """Write the images of some rows.

        Args:
            columns: values by output column, one for each row
            problems: why a row has no answer, by its position among these rows
        """
        named = columns[next(name for name in (*self._names, *columns) if name in columns)]
        for position, name in enumerate(named):
            place = self._choose_place("" if name is None else str(name))
            if position in problems:
                self._problems.append((str(name), problems[position]))
                continue
            for target in self._targets:
                folder = self._folder / target.name if len(self._targets) > 1 else self._folder
                file = folder / f"{place}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                target.write(columns[target.name][position], file)

    def _choose_place(self, name: str) -> str:
        """Choose the path of a row's files below the folder, without an ending; no two rows share one."""
        path = PurePath(name)
        is_below = self._base and path.is_relative_to(self._base)
        path = path.relative_to(self._base) if is_below else PurePath(path.name) if path.is_absolute() else path
        parts = [_clean(each) for each in path.parts if each not in ("..", ".")] or ["unnamed"]
        parts[-1] = PurePath(parts[-1]).stem if has_image_ending(parts[-1]) else parts[-1]
        place, number = "/".join(parts), 1
        while (f"{place}_{number}" if number > 1 else place).casefold() in self._used:
            number += 1
        place = f"{place}_{number}" if number > 1 else place
        self._used.add(place.casefold())
        return place

    def close(self) -> None:
        """Write the list of rows without an image, if there are any."""
        if not self._problems:
            return
        with (self._folder / PROBLEMS_FILE).open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            csv.writer(file).writerows([("row", "problem"), *self._problems])


def _clean(part: str) -> str:
    """Make the name of a file: from a table, it may contain anything."""
    return _FORBIDDEN.sub("_", part).lstrip(".")[:MAX_NAME] or "unnamed"


@contextmanager
def open_image_folder(
    output: str, targets: Sequence[ImageTarget], names: Sequence[str], files: Sequence[str] = ()
) -> Iterator[ImageFolderWriter]:
    """Open a folder of images. It gets its name when the context ends without an error.

    Args:
        output: the folder, which must be new or empty
        targets: the targets that are written; a folder for each if there are several
        names: the columns that may name a row, the best first
        files: the input files: folders in which they lie are kept
    """
    path = Path(output)
    _remove_abandoned_folders(path)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        with (temporary / LOCK_FILE).open("w") as lock:
            try_lock_file(lock.fileno())
            writer = ImageFolderWriter(temporary, targets, names, _find_common_folder(files))
            yield writer
            writer.close()
            (temporary / LOCK_FILE).unlink()
            _make_visible(temporary, path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path)  # users do not know the temporary name
        raise


def _make_visible(temporary: Path, path: Path) -> None:
    """Give the folder its name after all its files are on the disk."""
    temporary.chmod(find_default_mode(0o777))  # mkdtemp makes folders that only their owner can read
    if hasattr(os, "sync"):
        os.sync()  # one call instead of one for each of thousands of files
    if path.is_dir():
        path.rmdir()  # it is empty; if files have come into it, this fails
    temporary.rename(path)
    sync_folder(path.parent)


def _find_common_folder(files: Sequence[str]) -> str:
    folders = {str(PurePath(each).parent) for each in files}
    try:
        return os.path.commonpath(folders) if folders else ""
    except ValueError:  # relative and absolute ones
        return ""


def _remove_abandoned_folders(path: Path) -> None:
    """Delete the unfinished folders that killed processes left; those that are locked are in use."""
    for each in find_temporary_files(path):
        if not each.is_symlink() and is_regular_file(each / LOCK_FILE) and not _is_in_use(each / LOCK_FILE):
            shutil.rmtree(each, ignore_errors=True)


def _is_in_use(lock: Path) -> bool:
    try:
        with lock.open("r+") as file:
            return not try_lock_file(file.fileno())
    except OSError:
        return True
