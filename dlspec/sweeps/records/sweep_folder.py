"""Open the folder of a sweep: it is made, locked and recorded before any job is composed or trained.

So a second process is refused at once, and a sweep that was killed at any moment finds its own folder again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dlspec.errors import UserError, replace_control_characters, shorten_middle
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.runs.file_names import LOCK_FILE, MULTIRUN_FILE, SWEEP_FILE
from dlspec.runs.io import make_run_folder, remove_leftovers_of_run, remove_temporary_files
from dlspec.runs.lock import is_run_locked, lock_run_folder
from dlspec.sweeps.records.planned_job import NO_FOLDER
from dlspec.sweeps.records.sweep_record import SweepRecord, read_sweep_record

# What a sweep writes before it has jobs. The lock is removed last: another process may wait for it.
_EARLY_FILES = (MULTIRUN_FILE, SWEEP_FILE, LOCK_FILE)
MAX_TRIES = 20  # another process whose specs are wrong may remove the folder between making and locking it


@contextmanager
def open_sweep_folder(
    folder: Path, *, command: list[str] | None = None, is_new: bool = False, allows_other_files: bool = False
) -> Iterator[SweepRecord]:
    """Make and lock a sweep's folder inside the `with` block, and yield its record: the one in it, or a new one.

    If the new record has no jobs at the end, because the specs are wrong, nothing remains of it.

    Args:
        folder: The folder.
        command: The arguments of the command, for a new record; None for `dlspec.sweep`.
        is_new: Whether a number is appended to the folder's name if it exists.
        allows_other_files: Whether a folder that contains files but no sweep can become one.

    Raises:
        UserError: If another process trains there, the folder can't be made, or it contains something else.
    """
    made_folders = [each for each in (folder, *folder.parents) if not each.exists()]
    if is_new:
        folder = make_run_folder(folder.parent, folder.name)
        made_folders = [folder, *(each for each in made_folders if each != folder)]
    elif not allows_other_files:
        _refuse_other_files(folder)
    with ExitStack() as lock:
        _make_and_lock(folder, lock)
        remove_temporary_files(folder)  # of a process that was killed
        record = read_sweep_record(folder)
        if record is not None and record.entries:
            _remove_leftovers_of_jobs(record)
            yield record
            return
        record = SweepRecord(folder, command=command)
        try:
            record.write()
            yield record
        finally:
            if not record.entries:
                _remove_early_files(folder, made_folders)


def _make_and_lock(folder: Path, lock: ExitStack) -> None:
    for _ in range(MAX_TRIES):
        _make_folder(folder)
        with ExitStack() as stack, suppress(FileNotFoundError):
            stack.enter_context(lock_run_folder(folder))
            if (folder / LOCK_FILE).exists():
                lock.enter_context(stack.pop_all())
                return
    raise UserError(f"'{format_file_path(folder)}' is removed again and again; choose another folder for the sweep")


def _make_folder(folder: Path) -> None:
    """Make the folder with exactly this name, unless it exists."""
    if folder.is_dir():
        return
    made = make_run_folder(folder.parent, folder.name)
    if made != folder:  # another process made it in the meantime
        made.rmdir()
    if not folder.is_dir():
        raise UserError(f"'{format_file_path(folder)}' is not a folder; choose another name for the sweep's folder")


def _refuse_other_files(folder: Path) -> None:
    """Refuse a folder without a sweep that contains more than what a killed sweep leaves; nothing is written to it."""
    names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    others = sorted(each for each in names if not each.lstrip(".").startswith(_EARLY_FILES))
    if others and SWEEP_FILE not in names:
        fix = "choose another folder, hydra.sweep.dir=FOLDER, or move its files away"
        raise UserError(f"'{format_file_path(folder)}' contains files but no sweep: {_format_names(others)}; {fix}")


def _remove_leftovers_of_jobs(record: SweepRecord) -> None:
    """Remove temporary files from the folders of jobs that no process trains in."""
    for folder in (entry.job.folder for entry in record.entries if entry.job.folder != NO_FOLDER):
        if not folder.is_symlink() and not is_run_locked(folder):
            remove_leftovers_of_run(folder)


def _format_names(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > 3 else ""
    return ", ".join(replace_control_characters(shorten_middle(each, 80)) for each in names[:3]) + more


def _remove_early_files(folder: Path, made_folders: Sequence[Path]) -> None:
    """Remove what was written for a sweep without jobs; the folders only if they were made for it and are empty."""
    remove_temporary_files(folder)
    for name in _EARLY_FILES:
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        for each in made_folders:
            each.rmdir()
