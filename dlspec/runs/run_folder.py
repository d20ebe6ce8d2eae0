"""Make and lock the folder of a new run: the one that the user named, or a new one with a default name.

A process can be killed at any moment, also before it has saved anything. What it leaves then is taken over by the next
run with that folder, so that the same command can be given again.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlspec.errors import UserError, replace_control_characters
from dlspec.runs.file_names import (
    CHECKPOINT_PATTERN,
    CHECKPOINTS_FOLDER,
    HYDRA_FOLDER,
    LOCK_FILE,
    MULTIRUN_FILE,
    REWRITTEN_FILES,
    SPEC_FILE,
    SWEEP_FILE,
)
from dlspec.runs.io import is_printable_name, make_run_folder, remove_leftovers_of_run
from dlspec.runs.job_result import read_result
from dlspec.runs.job_state import JobState
from dlspec.runs.lock import lock_run_folder
from dlspec.runs.run_status import rerun_command, resume_command

log = logging.getLogger("dlspec")

OTHER_FOLDER = "name another folder: hydra.run.dir=FOLDER"


@contextmanager
def lock_new_run_folder(folder: Path, *, is_named: bool) -> Iterator[Path]:
    """Make the folder of a new run, and lock it inside the `with` block.

    Args:
        folder: The folder that the config names.
        is_named: Whether the user named it. Such a folder may exist, if it is empty or a killed run left it without any
            training state; what that run wrote is removed, except its log. A default name gets a number if it exists.

    Yields:
        The folder.

    Raises:
        UserError: If the folder can't be used or made, or another process trains in it.
    """
    if is_named:
        check_named_run_folder(folder)
        _make_folder(folder)
    else:
        folder = make_run_folder(folder.parent, folder.name)
    with lock_run_folder(folder):
        if is_named:
            check_named_run_folder(folder)  # until it was locked, another process could train in it
            _remove_unfinished_run(folder)
        yield folder


def check_named_run_folder(folder: Path) -> None:
    """Raise UserError unless a new run can use the folder: it is missing, empty or left by a killed run."""
    if not _exists_as_folder(folder):
        return
    names = _list_names(folder)
    _refuse_sweep(folder, names)
    if names and LOCK_FILE not in names:
        raise UserError(f"{_quote(folder)} contains files of something else, {_name_some(names)}; {OTHER_FOLDER}")
    _refuse_links(folder)
    _refuse_trained_run(folder, names)


# ---- the folder that the user named ----------------------------------------------------------------------------------


def _exists_as_folder(folder: Path) -> bool:
    """Return whether the folder exists; UserError if its name is impossible or taken by something else."""
    if not is_printable_name(folder.name) or "${" in folder.name or folder.name in ("", "..") or "\0" in str(folder):
        raise UserError(f"can't use {folder.name!r} as the name of a folder; {OTHER_FOLDER}")
    if not os.path.lexists(folder):
        return False
    if not folder.is_dir():
        raise UserError(f"{_quote(folder)} is not a folder; {OTHER_FOLDER}")
    return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can't create the folder {_quote(folder)}: {error.strerror}; {OTHER_FOLDER}") from None


def _list_names(folder: Path) -> set[str]:
    try:
        return {each.name for each in folder.iterdir()}
    except OSError as error:
        raise UserError(f"can't read {_quote(folder)}: {error.strerror}; {OTHER_FOLDER}") from None


def _refuse_sweep(folder: Path, names: set[str]) -> None:
    if SWEEP_FILE in names:
        command = resume_command(folder, "sweep")
        raise UserError(
            f"{_quote(folder)} contains a sweep; to resume it: {command}; to start a new run {OTHER_FOLDER}"
        )
    if MULTIRUN_FILE in names:
        raise UserError(f"{_quote(folder)} belongs to a sweep; {OTHER_FOLDER}")


def _refuse_links(folder: Path) -> None:
    """Refuse a folder with symbolic links: a new run would write where they point to."""
    with os.scandir(folder) as entries:
        links = [entry.name for entry in entries if entry.is_symlink()]
    if links:
        raise UserError(f"{_quote(folder)} contains symbolic links, {_name_some(links)}; {OTHER_FOLDER}")


def _refuse_trained_run(folder: Path, names: set[str]) -> None:
    """Refuse a folder with a result or training state, which a new run would overwrite."""
    result = read_result(folder)
    is_finished = result is not None and result.status is JobState.FINISHED
    if not is_finished and not _has_checkpoint(folder):
        return
    found = f"{_quote(folder)} contains a {'finished run' if is_finished else 'run that can be resumed'}"
    new = f"to start a new run {OTHER_FOLDER}"
    if SPEC_FILE not in names:
        raise UserError(f"{found}, but its {SPEC_FILE} is missing; {new}")
    if not _has_checkpoint(folder):
        raise UserError(f"{found}; to train it again in a new folder: {rerun_command(folder)}; {new}")
    command = resume_command(folder) + (" trainer.epochs=N" if is_finished else "")
    raise UserError(f"{found}; to {'train longer' if is_finished else 'go on'}: {command}; {new}")


def _has_checkpoint(folder: Path) -> bool:
    try:
        return any(CHECKPOINT_PATTERN.fullmatch(each.name) for each in (folder / CHECKPOINTS_FOLDER).iterdir())
    except OSError:
        return False


def _remove_unfinished_run(folder: Path) -> None:
    """Remove what a run without any training state wrote, except its log. Other files stay."""
    if (folder / SPEC_FILE).exists():
        log.warning("%s contains a run that saved no training state: it is replaced", folder)
    for pattern in REWRITTEN_FILES:
        for path in folder.glob(pattern):
            if not path.is_dir():
                path.unlink(missing_ok=True)
    shutil.rmtree(folder / HYDRA_FOLDER, ignore_errors=True)
    remove_leftovers_of_run(folder)


def _quote(folder: Path) -> str:
    return f"'{replace_control_characters(str(folder))}'"


def _name_some(names: set[str] | list[str]) -> str:
    first = replace_control_characters(min(names))
    return f"such as '{first}'"
