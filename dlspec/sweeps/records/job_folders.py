"""The folders of a sweep's new jobs: what `hydra.sweep.subdir` gives, or an error before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dlspec.errors import UserError, replace_control_characters, shorten_middle
from dlspec.runs.file_names import (
    CHECKPOINTS_FOLDER,
    LEADERBOARD_FILE,
    LOCK_FILE,
    MULTIRUN_FILE,
    REPORT_FILE,
    STOP_FILE,
    SWEEP_FILE,
)
from dlspec.runs.io import is_printable_name

_SWEEP_FILES = (SWEEP_FILE, MULTIRUN_FILE, LEADERBOARD_FILE, REPORT_FILE, STOP_FILE, LOCK_FILE)
_FIX = "set hydra.sweep.subdir to a name that the folder can have, such as hydra.sweep.subdir='${hydra:job.num}'"


class JobFolders:
    """Gives each new job of a sweep its own folder.

    Args:
        sweep_folder: The sweep's folder.
        taken_folders: The folders of the sweep's other jobs.
    """

    def __init__(self, sweep_folder: Path, taken_folders: Iterable[Path]) -> None:
        self._sweep_folder, self._taken, self._parents = sweep_folder, set[Path](), set[Path]()
        for each in taken_folders:
            self._take(each)

    def choose(self, name: str, number: int, label: str) -> Path:
        """Return the folder of a new job.

        Args:
            name: The folder's name, relative to the sweep's folder.
            number: The job's number. A folder that is named by it gets `_2` appended if that name is taken.
            label: The job's settings, for messages.

        Raises:
            UserError: If the folder can't have this name, or belongs to something else.
        """
        path = self._sweep_folder / name
        if name == str(number):
            path = self._append_number(path)
        else:
            problem = self._find_problem(name) or self._find_conflict(path)
            if problem:
                shown = replace_control_characters(shorten_middle(name, 100))
                raise UserError(f"job {number} ({label}) can't have the folder '{shown}': {problem}; {_FIX}")
        self._take(path)
        return path

    def _append_number(self, path: Path) -> Path:
        count, unique = 1, path
        while unique in self._taken or os.path.lexists(unique):
            count += 1
            unique = path.with_name(f"{path.name}_{count}")
        return unique

    def _find_problem(self, name: str) -> str:
        """Return why a folder can't have this name; '' if it can."""
        parts = name.rstrip("/").split("/")
        if name.startswith("/"):
            return "it must lie in the sweep's folder"
        if any(part in ("", ".", "..") for part in parts):
            return "it contains an empty name or dots"
        if not is_printable_name(name) or "${" in name:
            return "it contains characters that a name can't have"
        if parts[0] in _SWEEP_FILES or any(part.startswith(".") or part == CHECKPOINTS_FOLDER for part in parts):
            return "reports and sweeps use such a name for something else"
        return next((problem for part in parts if (problem := self._find_system_problem(part))), "")

    def _find_system_problem(self, part: str) -> str:
        """Return why the file system does not accept a name; '' if it does."""
        root = next(each for each in (self._sweep_folder, *self._sweep_folder.absolute().parents) if each.is_dir())
        try:
            os.lstat(root / part)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            return getattr(error, "strerror", None) or str(error)
        return ""

    def _find_conflict(self, path: Path) -> str:
        if path in self._taken:
            return "another job has the same one"
        if path in self._parents or any(each in self._taken for each in path.parents):
            return "it would lie in another job's folder, or that one in it"
        return "it exists already, and is not a folder of this sweep" if os.path.lexists(path) else ""

    def _take(self, path: Path) -> None:
        self._taken.add(path)
        self._parents.update(path.parents)
