"""`type: files`: a row for each file that a path with braces matches; what the braces catch are columns."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import numpy as np

from dlspec.data.files.paths import expand_home
from dlspec.data.tables.brace_pattern import BracePattern, parse_braces
from dlspec.data.tables.input_files import MAX_FILES, find_normal_form
from dlspec.data.tables.table import TEXT, Column, ReadNotes, Table
from dlspec.errors import Code, DataError

FILE_COLUMN = "file"
MAX_FOLDERS = 1_000_000
_FOLDERS = re.compile(r"\{([^{}/]+)/\}")
_SHOWN_FILES = 3


@dataclass(frozen=True)
class FilePattern:
    """A path with braces, as the folder that it starts in and a pattern for each of its parts."""

    root: Path
    parts: tuple[BracePattern, ...]  # of folders, and of the file
    folders: str | None  # the name of `{name/}`, which catches any number of folders
    folders_at: int = 0  # the number of parts before it

    @property
    def names(self) -> list[str]:
        """The names of the braces, in order, each once."""
        names = [name for part in self.parts for name in part.names if name]
        return list(dict.fromkeys([*names, *([self.folders] if self.folders else [])]))

    def match(self, path: tuple[str, ...]) -> dict[str, str] | None:
        """Return what the braces catch of a path below the root, or None."""
        surplus = len(path) - len(self.parts)
        if surplus < 0 or (surplus and self.folders is None):
            return None
        if any(each.startswith(".") for each in path) and not self._names_hidden():
            return None
        at = self.folders_at
        found: dict[str, str] = {self.folders: "/".join(path[at : at + surplus])} if self.folders else {}
        for part, text in zip(self.parts, (*path[:at], *path[at + surplus :]), strict=True):
            caught = part.match(normalize("NFC", text))
            if caught is None or any(found.setdefault(name, value) != value for name, value in caught.items()):
                return None
        return found

    def _names_hidden(self) -> bool:
        return any(part.literals[0].startswith(".") for part in self.parts)


def parse_file_pattern(pattern: str, base: Path | None = None) -> FilePattern:
    """Parse a path such as `aclImdb/{part}/{label}/{n}_{stars}.txt`; DataError if it is not valid.

    Args:
        pattern: the path: `{name}` catches text without `/`, `{name/}` any number of folders, `*` matches any name
        base: the folder that a relative path starts from; None: the working folder
    """
    folders = _FOLDERS.findall(pattern)
    if len(folders) > 1:
        raise DataError("path", f"'{pattern}' has more than one '{{name/}}'; write {{name}} for single folders")
    marked = _FOLDERS.sub("{/}/", pattern)  # a part of its own
    pieces = [piece for piece in re.split(r"/(?!\})", marked) if piece not in ("", ".")]
    first = next((at for at, piece in enumerate(pieces) if "{" in piece or "*" in piece), max(0, len(pieces) - 1))
    root = expand_home("/" * pattern.startswith("/") + "/".join(pieces[:first]) or ".")
    pieces = pieces[first:]
    at = pieces.index("{/}") if "{/}" in pieces else 0
    parts = tuple(parse_braces(piece, "path", "/", has_stars=True) for piece in pieces if piece != "{/}")
    if not parts or pieces[-1] == "{/}":
        raise DataError("path", f"'{pattern}' must end with the name of a file, such as {{name}}.txt")
    root = find_normal_form(base / root if base is not None else root)
    parsed = FilePattern(root, parts, folders[0] if folders else None, at)
    if FILE_COLUMN in parsed.names:
        raise DataError("path", f"'{pattern}': {{file}} is the path of the file itself; write another name")
    return parsed


def list_files(pattern: str, base: Path | None = None) -> tuple[Table, ReadNotes]:
    """List the files that a path with braces matches, sorted, with a column for each brace and `file`, the path.

    Args:
        pattern: the path with braces
        base: the folder that a relative path starts from; None: the working folder

    Returns:
        The table, and how many files in the same folders the path does not match.

    Raises:
        DataError: if no file matches, or the folder does not exist.
    """
    parsed = parse_file_pattern(pattern, base)
    if not parsed.root.is_dir():
        raise DataError("path", f"'{pattern}': found no folder '{parsed.root}'", Code.FILE_UNREADABLE)
    matched: list[tuple[str, dict[str, str]]] = []
    missed: list[str] = []
    missed_count = 0
    for path in walk_files(parsed.root):
        caught = parsed.match(path)
        file = str(parsed.root.joinpath(*path))
        if caught is not None and Path(file).is_file():
            matched.append((file, caught))
        else:
            missed_count += 1
            missed += [file] if len(missed) < _SHOWN_FILES else []
        if len(matched) + missed_count > MAX_FILES:
            raise DataError("path", f"'{parsed.root}' contains more than {MAX_FILES:,} files", Code.TOO_LARGE)
    if not matched:
        shown = f"; there is for example '{missed[0]}'" if missed else "; the folder is empty"
        if (parsed.root / "/".join(part.text for part in parsed.parts)).is_dir():
            shown = f": it is a folder; write '{pattern.rstrip('/')}/{{label}}/{{name}}.txt'"
        raise DataError("path", f"no file matches '{pattern}'{shown}", Code.NO_MATCH)
    return _make_table(matched, parsed.names), ReadNotes(
        format="files", files=len(matched), missed_files=missed_count, missed_examples=tuple(missed),
        ambiguous_name=_find_ambiguous_name(parsed, [Path(file).name for file, _ in matched]),
    )  # fmt: skip


def _find_ambiguous_name(pattern: FilePattern, names: Sequence[str]) -> str:
    """Describe the first name of a file that the pattern can divide in two ways; '' if there is none."""
    part = pattern.parts[-1]
    if sum(map(bool, part.names)) < 2:
        return ""
    for name in names:
        text = normalize("NFC", name)
        taken, other = part.match(text), part.match_from_right(text)
        if taken and other and taken != other:
            column = next(each for each in taken if taken[each] != other[each])
            return f"{column} of '{name}' is '{taken[column]}', and not '{other[column]}'"
    return ""


def _make_table(matched: list[tuple[str, dict[str, str]]], names: list[str]) -> Table:
    files = tuple(file for file, _ in matched)
    check_unicode(files)
    columns = {name: np.array([caught[name] or None for _, caught in matched], dtype=TEXT) for name in names}
    columns[FILE_COLUMN] = np.array(files, dtype=TEXT)
    count = len(matched)
    return Table(columns, files, np.arange(count, dtype=np.int32), np.zeros(count, np.int64))


def check_unicode(files: Sequence[str]) -> None:
    """Raise DataError for a name that is not valid UTF-8: no column can contain it."""
    wrong = next((file for file in files if not _is_unicode(file)), None)
    if wrong is not None:
        raise DataError("path", f"the name of the file {wrong!r} is not valid UTF-8; rename it")


def make_absolute(files: Sequence[str]) -> Column:
    """Return the paths of files as a column that means the same wherever relative cells start."""
    return np.array([str(Path(file).absolute()) for file in files], dtype=TEXT)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def walk_files(root: Path) -> Iterator[tuple[str, ...]]:
    """Yield the paths below a folder, sorted. Links to folders are followed, each folder once."""
    seen: set[tuple[int, int]] = set()
    stack: list[tuple[Path, tuple[str, ...]]] = [(root, ())]
    while stack:
        folder, parents = stack.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError("path", f"'{folder}' can't be read: {error.strerror}", Code.FILE_UNREADABLE) from None
        folders = {entry.name for entry in found if _is_folder(entry)}
        inner = [(folder / entry.name, (*parents, entry.name)) for entry in found if entry.name in folders]
        stack += reversed(inner)
        if len(seen) > MAX_FOLDERS:
            raise DataError("path", f"'{root}' contains more than {MAX_FOLDERS:,} folders", Code.TOO_LARGE)
        yield from ((*parents, entry.name) for entry in found if entry.name not in folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
