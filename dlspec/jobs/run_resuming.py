"""Resume a run from its newest undamaged checkpoint, as if it had never stopped."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlspec.config.saved_run import LATEST, RUN_FIX, find_latest_run
from dlspec.errors import Code, Problem, SourceLocation, SpecError, UserError, format_value
from dlspec.jobs.job import Job
from dlspec.jobs.job_setup import make_job
from dlspec.jobs.resumed_settings import (
    Changes,
    find_content_changes,
    find_differences,
    find_impossible_changes,
    find_size_changes,
    find_trained_length,
    flatten_tree,
    has_run_length,
    is_below,
)
from dlspec.jobs.run_preparation import Preparation
from dlspec.language.sections.trainer_keys import MACHINE_KEYS, OUTPUT_KEYS
from dlspec.language.yaml.yaml_files import format_file_path, load_yaml_file
from dlspec.runs.file_names import CHECKPOINTS_FOLDER, SPEC_FILE
from dlspec.runs.io import remove_temporary_files
from dlspec.runs.job_result import JobResult, read_result
from dlspec.runs.job_state import JobState
from dlspec.runs.lock import lock_run_folder
from dlspec.training.checkpoint.checkpoint_files import Snapshot, read_newest_checkpoint, rename_newer_checkpoints

# Settings that may change when a run is resumed: they don't affect what was trained before.
_CHANGEABLE_KEYS = frozenset(
    f"trainer.{key}" for key in OUTPUT_KEYS | MACHINE_KEYS | {"epochs", "max_steps", "test", "on_nan", "debug"}
)


def find_run_folder(name: str, location: SourceLocation | None = None) -> Path:
    """Return the folder of the run that a user names; `latest` is the newest run below runs/."""
    if name == LATEST:
        return find_latest_run()
    if not (Path(name) / SPEC_FILE).is_file():
        raise SpecError([Problem(Code.NO_RUN, "run", f"no run in '{name}'", RUN_FIX, location)])
    return Path(name)


@contextmanager
def lock_newest_checkpoint(folder: Path) -> Iterator[Snapshot | None]:
    """Lock a run's folder inside the `with` block, and yield its newest undamaged checkpoint, or None if it has none.

    Raises:
        UserError: If another process trains there, the folder is not writable, or all checkpoints are damaged.
    """
    checkpoints = folder / CHECKPOINTS_FOLDER
    if checkpoints.is_symlink():  # a run folder from someone else could make dlspec write and delete elsewhere
        raise UserError(f"'{checkpoints}' is a symbolic link: replace it with the folder that it points to")
    with lock_run_folder(folder):
        yield read_newest_checkpoint(checkpoints)


def make_resumed_job(preparation: Preparation, snapshot: Snapshot | None) -> Job:
    """Check and build everything that a run needs to be resumed from a checkpoint; None starts it again."""
    resumed = replace(preparation, is_resumed=snapshot is not None, trained=find_trained_length(snapshot))
    return make_job(resumed)


def continue_run(job: Job, folder: Path, snapshot: Snapshot | None) -> JobResult:
    """Train the rest of a run. The caller must have locked its folder.

    Args:
        job: The run, built with the settings that it resumes with.
        folder: The run's folder. Files that are newer than the checkpoint are set aside.
        snapshot: The checkpoint to resume from; None starts at step 0.

    Returns:
        The result of the whole run.
    """
    start = f"from step {snapshot.step:,}" if snapshot else "from the start, as it has no checkpoint yet"
    print(f"resuming {folder} {start}", file=sys.stderr)
    job.check_disk_space(folder)
    for each in (folder, folder / CHECKPOINTS_FOLDER):
        remove_temporary_files(each)
    if snapshot is not None:
        rename_newer_checkpoints(folder / CHECKPOINTS_FOLDER, snapshot)
    return job.run_in_folder(folder, snapshot)


def is_run_finished(folder: Path) -> bool:
    """Whether the run in `folder` has finished, including its test."""
    result = read_result(folder)
    return result is not None and result.status is JobState.FINISHED


# ---- what has changed ------------------------------------------------------------------------------------------------


def find_changes(folder: Path, job: Job, snapshot: Snapshot | None, written_keys: Sequence[str]) -> Changes:
    """Find the settings in which a job differs from the saved spec of its run, and changes in the data.

    Args:
        folder: The run's folder.
        job: The job that is to resume the run.
        snapshot: The checkpoint to resume from, which contains the number of samples.
        written_keys: Keys that the user has written. Keys that the saved spec does not have are ignored unless they
            are among these, as a newer dlspec has more settings.

    Returns:
        Each changed key with its value before and now.
    """
    saved = load_yaml_file(folder / SPEC_FILE).tree
    before = dict(flatten_tree(saved))
    found = {
        key: each
        for key, each in find_differences(saved, job.prepared.resolved).items()
        if key in before or _is_written_by_user(key, written_keys)
    }
    data = job.prepared.data
    return {**found, **find_size_changes(snapshot, data), **find_content_changes(folder, data)}


def refuse_changes(folder: Path, job: Job, snapshot: Snapshot | None, changed: Changes, allowed: Sequence[str]) -> None:
    """Raise an error for changes that affect what was trained before, unless the user allows them.

    Changes that can't take effect are refused in any case.

    Args:
        folder: The run's folder.
        job: The job that is to resume the run.
        snapshot: The checkpoint to resume from.
        changed: The changes, from `find_changes`.
        allowed: Keys that the user allows to change, with everything below them.

    Raises:
        SpecError: With one problem for each change that is not allowed or not possible.
    """
    changeable = _CHANGEABLE_KEYS - _find_length_keys(job.prepared.resolved)
    location = SourceLocation(format_file_path(folder / SPEC_FILE))
    problems = [
        Problem(Code.CHANGED_SETTING, key, f"was {format_value(before)} in the run, is now {format_value(now)}",
                f"to resume with this change add resume.allow=[{key.partition(' ')[0]}]", location)
        for key, (before, now) in changed.items()
        if key not in changeable and not any(is_below(key.partition(" ")[0], each) for each in allowed)
    ]  # fmt: skip
    impossible = find_impossible_changes(snapshot, folder, job.prepared, job.trainer.state.average)
    keys = [each.path for each in impossible]
    problems = [each for each in problems if not any(is_below(each.path.partition(" ")[0], key) for key in keys)]
    if problems or impossible:
        raise SpecError([*problems, *impossible])


def _is_written_by_user(key: str, written_keys: Sequence[str]) -> bool:
    return any(is_below(key, each) or is_below(each, key) for each in written_keys)


def _find_length_keys(resolved: Mapping[str, Any]) -> frozenset[str]:
    """Return the settings that set the length of the run, if other settings follow it."""
    if has_run_length(resolved):
        return frozenset({"trainer.epochs", "trainer.max_steps"})
    average = resolved["trainer"].get("average") or {}
    starts_by_length = average.get("type") == "SWA" and average.get("start_epoch") is None
    return frozenset({"trainer.epochs"} if starts_by_length else ())
