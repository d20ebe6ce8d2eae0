"""Resume a run from its newest undamaged checkpoint, as if it had never stopped."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlspec.config.saved_run import LATEST, RUN_FIX, find_latest_run
from dlspec.errors import Code, Problem, SourceLocation, SpecError, format_value, replace_control_characters
from dlspec.jobs.environment import read_recorded_changes
from dlspec.jobs.job import Job
from dlspec.jobs.job_hash import compute_data_checksum, describe_code_version
from dlspec.jobs.job_setup import make_job
from dlspec.jobs.resumed_settings import (
    CONTENTS_KEY,
    READING_KEYS,
    Changes,
    find_all_changes,
    find_differences,
    find_impossible_changes,
    find_length_keys,
    find_trained_length,
    flatten_tree,
    is_below,
    read_saved_spec,
)
from dlspec.jobs.run_preparation import Preparation
from dlspec.language.sections.trainer_keys import MACHINE_KEYS, OUTPUT_KEYS
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.runs.file_access import is_regular_file
from dlspec.runs.file_names import CHECKPOINTS_FOLDER, LOCK_FILE, SPEC_FILE, VERSIONS_FILE
from dlspec.runs.io import remove_leftovers_of_run
from dlspec.runs.job_result import JobResult, read_result
from dlspec.runs.job_state import JobState
from dlspec.runs.job_versions import JobVersions, write_versions
from dlspec.runs.lock import lock_run_folder
from dlspec.training.checkpoint.checkpoint_files import Snapshot, read_newest_checkpoint, rename_newer_checkpoints

# Settings that may change when a run is resumed: they don't affect what was trained before.
_CHANGEABLE_KEYS = (
    frozenset(
        f"trainer.{key}" for key in OUTPUT_KEYS | MACHINE_KEYS | {"epochs", "max_steps", "test", "on_nan", "debug"}
    )
    | READING_KEYS
)


def find_run_folder(name: str, location: SourceLocation | None = None) -> Path:
    """Return the folder of the run that a user names; `latest` is the newest run below runs/."""
    if name == LATEST:
        return find_latest_run()
    if not is_regular_file(Path(name) / SPEC_FILE):
        is_started = is_regular_file(Path(name) / LOCK_FILE)  # killed before it wrote its spec
        fix = "it ended before it wrote its spec: start it again with the same command" if is_started else RUN_FIX
        raise SpecError([Problem(Code.NO_RUN, "run", f"no run in '{name}'", fix, location)])
    return Path(name)


@contextmanager
def lock_newest_checkpoint(folder: Path) -> Iterator[Snapshot | None]:
    """Lock a run's folder inside the `with` block, and yield its newest undamaged checkpoint, or None if it has none.

    Raises:
        UserError: If another process trains there, the folder is not writable, a link in it leads elsewhere, or all
            checkpoints are damaged.
    """
    with lock_run_folder(folder):
        yield read_newest_checkpoint(folder / CHECKPOINTS_FOLDER)


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
    print(f"resuming {replace_control_characters(str(folder))} {start}", file=sys.stderr)
    job.check_disk_space(folder)
    remove_leftovers_of_run(folder)
    if snapshot is not None:
        rename_newer_checkpoints(folder / CHECKPOINTS_FOLDER, snapshot)
    if (folder / VERSIONS_FILE).is_file():  # a sweep's job
        versions = JobVersions(describe_code_version(), compute_data_checksum(job.prepared.data))
        write_versions(folder, versions, is_resumed=snapshot is not None)
    return job.run_in_folder(folder, snapshot)


def is_run_finished(folder: Path) -> bool:
    """Whether the run in `folder` has finished, including its test."""
    result = read_result(folder)
    return result is not None and result.status is JobState.FINISHED


# ---- what has changed ------------------------------------------------------------------------------------------------


def find_changes(folder: Path, job: Job, snapshot: Snapshot | None, written_keys: Sequence[str]) -> Changes:
    """Find what has changed since a checkpoint was written: settings, the number of samples, the data's contents.

    The checkpoint's own spec is compared, as spec.yaml can be edited. Changes with which the run was already resumed
    from this checkpoint are left out.

    Args:
        folder: The run's folder.
        job: The job that is to resume the run.
        snapshot: The checkpoint to resume from; without one the run starts again, and spec.yaml is compared.
        written_keys: Keys that the user has written. Keys that the saved spec does not have are ignored unless they
            are among these or were added to spec.yaml, as a newer dlspec has more settings.

    Returns:
        Each changed key with its value before and now.
    """
    prepared, spec = job.prepared, read_saved_spec(None, folder)
    if snapshot is None:
        changes, before = find_differences(spec, prepared.resolved), dict(flatten_tree(spec))
        return {key: each for key, each in changes.items() if key in before or _is_written(key, written_keys)}
    before = dict(flatten_tree(read_saved_spec(snapshot, folder)))
    recorded, written = read_recorded_changes(folder, snapshot.step), dict(flatten_tree(spec))
    return {
        key: each
        for key, each in find_all_changes(snapshot, folder, prepared.resolved, prepared.data, job.data_checksum).items()
        if (key in before or key in written or " " in key or _is_written(key, written_keys))
        and recorded.get(key) != each
    }


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
    changeable = _CHANGEABLE_KEYS - find_length_keys(job.prepared.resolved)
    location = SourceLocation(format_file_path(folder / SPEC_FILE))
    impossible = find_impossible_changes(
        snapshot, folder, job.prepared, job.trainer.state.average, job.data_checksum if snapshot else ""
    )
    problems = [
        Problem(Code.CHANGED_SETTING, key, _describe_change(key, *values), _find_fix(key, impossible), location)
        for key, values in changed.items()
        if key not in changeable and not any(is_below(key.partition(" ")[0], each) for each in allowed)
    ]
    problems = [each for each in problems if each.path not in [other.path for other in impossible]]
    if problems or impossible:
        raise SpecError([*problems, *impossible])


def refuse_other_checkpoint(folder: Path, job: Job, snapshot: Snapshot) -> None:
    """Raise SpecError if the checkpoint in the folder of a sweep's job was written with other settings or data.

    Args:
        folder: The job's folder.
        job: The job that is to be resumed.
        snapshot: The checkpoint.
    """
    refuse_changes(folder, job, snapshot, find_changes(folder, job, snapshot, ()), ["trainer.device"])


def _describe_change(key: str, before: Any, now: Any) -> str:
    if key == CONTENTS_KEY:
        return f"as many samples as in the run, but other contents (checksum {now}, was {before})"
    return f"was {format_value(before)} in the run, is now {format_value(now)}"


def _find_fix(key: str, impossible: Sequence[Problem]) -> str:
    """Return how to resume with a change; '' if that is impossible."""
    name = key.partition(" ")[0]
    return (
        ""
        if any(is_below(name, each.path) for each in impossible)
        else (f"to resume with this change add resume.allow=[{name}]")
    )


def _is_written(key: str, written_keys: Sequence[str]) -> bool:
    return any(is_below(key, each) or is_below(each, key) for each in written_keys)
