"""What has changed since a checkpoint was written: what the run takes over, and what it can't."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dlspec.data.dataset import Dataset
from dlspec.errors import Code, Problem, SourceLocation
from dlspec.jobs.environment import get_nested_value
from dlspec.jobs.run_preparation import PreparedRun
from dlspec.language.yaml.yaml_files import format_file_path, load_yaml_file
from dlspec.optim.schedule import TrainedLength
from dlspec.optim.weight_averages import UnusableAverage, WeightAverage
from dlspec.runs.file_access import is_regular_file
from dlspec.runs.file_names import CHECKPOINTS_FOLDER, SPEC_FILE
from dlspec.runs.run_status import rerun_command
from dlspec.training.checkpoint.checkpoint_files import (
    DamagedCheckpoint,
    Snapshot,
    list_checkpoints,
    read_checkpoint,
)
from dlspec.training.checkpoint_parts import ResumeChanges
from dlspec.training.components import count_samples

SpecTree = Mapping[str, Any]
Changes = Mapping[str, tuple[Any, Any]]  # each changed key with its value before and now

# Settings that, with the data, determine how many steps a run has.
_LENGTH_KEYS = ("epochs", "max_steps", "batch_size", "accumulate", "limit_batches")
# Schedulers whose length is that of the run if these settings are missing.
_LENGTH_SETTINGS: Mapping[str, str] = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps"}
# Settings that are used only before the first step.
_START_KEYS = ("seed", "init", "weights", "model.init")
# Settings of which an epoch has one value, as its results are sums over its batches.
_EPOCH_KEYS = ("trainer.batch_size", "trainer.accumulate", "trainer.limit_batches", "loss", "metrics", "data")

# Settings of the data that say how they are read, not which data: they change no result.
READING_KEYS = frozenset({"data.cache"})
CONTENTS_KEY = "data (contents)"


def flatten_tree(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value with its dotted path."""
    pairs = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    if not isinstance(tree, Mapping | list | tuple) or not tree:
        yield path, tree
    for key, each in pairs:
        yield from flatten_tree(each, f"{path}.{key}" if path else str(key))


def find_differences(before: SpecTree, now: SpecTree) -> Changes:
    """Find the keys in which two specs differ, each with its value before and now.

    Settings of a metric that are no longer saved do not count: older versions saved defaults without effect.
    """
    old, new = dict(flatten_tree(before)), dict(flatten_tree(now))
    changes = {
        key: (old.get(key), new.get(key))
        for key in {**old, **new}
        if old.get(key) != new.get(key) and not _is_unsaved_metric_setting(key, new)
    }
    metrics = tuple(
        list(each["metrics"]) if isinstance(each.get("metrics"), Mapping) else None for each in (before, now)
    )
    # A metric whose settings are all null has no key that differs from that of a metric that is not there.
    return changes if metrics[0] == metrics[1] or None in metrics else {**changes, "metrics": (metrics[0], metrics[1])}


def _is_unsaved_metric_setting(key: str, new: Mapping[str, Any]) -> bool:
    metric = key.rpartition(".")[0]
    return key.startswith("metrics.") and key not in new and any(is_below(each, metric) for each in new)


def find_size_changes(snapshot: Snapshot | None, data: Dataset) -> Changes:
    """Find the splits whose number of samples differs from that of the checkpoint."""
    samples = count_samples(data)
    before = samples if snapshot is None else snapshot.samples
    return {
        f"data ({key})": (before[key], samples[key]) for key in samples if before.get(key) not in (None, samples[key])
    }


def find_content_change(snapshot: Snapshot | None, checksum: str, changes: Changes) -> Changes:
    """Find out whether the data have other contents than those that the checkpoint was trained with.

    Args:
        snapshot: The checkpoint; those of earlier versions have no checksum of the data.
        checksum: The checksum of the present data.
        changes: The changes of settings and sizes. Other settings of the data lead to other contents anyway.
    """
    if snapshot is None or snapshot.data_checksum in ("", checksum):
        return {}
    others = changes.keys() - READING_KEYS
    is_explained = any(is_below(key.partition(" ")[0], "data") and not key.endswith("path") for key in others)
    return {} if is_explained else {CONTENTS_KEY: (snapshot.data_checksum, checksum)}


def find_all_changes(snapshot: Snapshot, folder: Path, resolved: SpecTree, data: Dataset, checksum: str) -> Changes:
    """Find everything that has changed since a checkpoint: settings, the number of samples, the data's contents.

    Args:
        snapshot: The checkpoint, whose own spec is compared.
        folder: The run's folder, whose spec is compared if the checkpoint has none.
        resolved: The spec that the run continues with.
        data: The data that it continues with.
        checksum: The checksum of the data.
    """
    before, now = read_saved_spec(snapshot, folder), _to_plain_tree(resolved)
    changes = {**find_differences(before, now), **find_size_changes(snapshot, data)}
    return {**changes, **find_content_change(snapshot, checksum, changes)}


def is_below(key: str, other: str) -> bool:
    """Whether a key is `other` or a setting below it."""
    return key == other or key.startswith(f"{other}.")


def has_run_length(resolved: SpecTree) -> bool:
    """Whether the scheduler is as long as the run."""
    scheduler = resolved.get("scheduler") or {}
    length_setting = _LENGTH_SETTINGS.get(scheduler.get("type", ""))
    return length_setting is not None and scheduler.get(length_setting) is None and scheduler.get("epochs") is None


def find_length_keys(resolved: SpecTree) -> frozenset[str]:
    """Return the settings that set the length of the run, if other settings follow it."""
    if has_run_length(resolved):
        return frozenset({"trainer.epochs", "trainer.max_steps"})
    average = resolved["trainer"].get("average") or {}
    starts_by_length = average.get("type") == "SWA" and average.get("start_epoch") is None
    return frozenset({"trainer.epochs"} if starts_by_length else ())


def find_trained_length(snapshot: Snapshot | None) -> TrainedLength:
    """Return how many epochs and steps were finished when the checkpoint was written."""
    progress = _read_part(snapshot, "progress")
    rows = progress.get("timing") if isinstance(progress, Mapping) else None
    if not isinstance(rows, list) or not rows or not isinstance(rows[-1], Mapping):
        return TrainedLength()
    steps = rows[-1].get("step")
    return TrainedLength(len(rows), steps) if type(steps) is int and steps >= 0 else TrainedLength()


def find_resume_changes(snapshot: Snapshot, folder: Path, resolved: SpecTree, data: Dataset) -> ResumeChanges:
    """Find out which parts of a checkpoint can be restored as they are.

    The checkpoint's own spec is compared: spec.yaml may be newer, if the run was resumed with changes and ended before
    it wrote a checkpoint.

    Args:
        snapshot: The checkpoint.
        folder: The run's folder.
        resolved: The spec that the run continues with.
        data: The data that the run continues with.
    """
    before, now = read_saved_spec(snapshot, folder), _to_plain_tree(resolved)
    is_plateau = get_nested_value(now, "scheduler.type") == "ReduceLROnPlateau"
    keys = _LENGTH_KEYS if has_run_length(now) else ("monitor", "mode") if is_plateau else ()
    is_scheduled_anew = any(
        get_nested_value(before, f"trainer.{key}") != get_nested_value(now, f"trainer.{key}") for key in keys
    ) or (has_run_length(now) and bool(find_size_changes(snapshot, data)))
    types = tuple(str(get_nested_value(tree, "optimizer.type") or "") for tree in (before, now))
    return ResumeChanges(
        keeps_new_settings=is_scheduled_anew
        or _has_other_groups(before, now)
        or any(before.get(key) != now.get(key) for key in ("optimizer", "scheduler")),
        optimizer_types=None if types[0] in ("", types[1]) else (types[0], types[1]),
        is_other_average=_get_average_type(before) != _get_average_type(now),
    )


def find_impossible_changes(
    snapshot: Snapshot | None, folder: Path, prepared: PreparedRun, average: WeightAverage | None, checksum: str
) -> list[Problem]:
    """Find changes that no checkpoint can take over, whatever the user allows.

    Args:
        snapshot: The checkpoint; without one everything may change, as the run starts again.
        folder: The run's folder.
        prepared: What the run is to continue with.
        average: The average of the weights that it is to continue with.
        checksum: The checksum of the data.

    Returns:
        A problem for each of them.
    """
    if snapshot is None:
        return []
    before, now = read_saved_spec(snapshot, folder), _to_plain_tree(prepared.resolved)
    changes = find_all_changes(snapshot, folder, prepared.resolved, prepared.data, checksum)
    location = SourceLocation(format_file_path(folder / SPEC_FILE))
    found = [
        *_check_start_settings_unchanged(changes, folder),
        *_check_run_length_not_passed(snapshot, now),
        *_check_epoch_is_finished(snapshot, folder, changes, now),
        *_check_average(snapshot, average, is_other=_get_average_type(before) != _get_average_type(now)),
    ]
    if _has_other_groups(before, now) and not _has_saved_parameter_names(snapshot):
        fix = f"start again: {rerun_command(format_file_path(folder))}"
        found.append(("optimizer.groups", "the checkpoint is from a version that did not save parameter names", fix))
    return [Problem(Code.CHANGED_SETTING, key, text, fix, location) for key, text, fix in found]


_Finding = tuple[str, str, str]  # key, what is wrong, fix


def _check_start_settings_unchanged(changes: Changes, folder: Path) -> Iterator[_Finding]:
    for start_key in _START_KEYS:
        if any(is_below(key, start_key) for key in changes):
            fix = f"leave it as it was, or start a new run with it: {rerun_command(format_file_path(folder))} ..."
            yield start_key, "only affects the start of a run, so it can't change when the run is resumed", fix


def _check_run_length_not_passed(snapshot: Snapshot, now: SpecTree) -> Iterator[_Finding]:
    trainer, progress = now.get("trainer") or {}, _read_part(snapshot, "progress")
    epoch = progress.get("epoch") if isinstance(progress, Mapping) else None
    epochs, max_steps = trainer.get("epochs"), trainer.get("max_steps")
    if isinstance(epoch, int) and isinstance(epochs, int) and epochs < epoch:
        yield "trainer.epochs", f"is {epochs}, but the run is in epoch {epoch} already", f"set it to {epoch} or more"
    if isinstance(max_steps, int) and max_steps < snapshot.step:
        found = f"is {max_steps}, but the run has made {snapshot.step} steps already"
        yield "trainer.max_steps", found, f"set it to {snapshot.step} or more"


def _check_epoch_is_finished(snapshot: Snapshot, folder: Path, changes: Changes, now: SpecTree) -> Iterator[_Finding]:
    if _read_part(snapshot, "left") is None:
        return
    epoch = find_trained_length(snapshot).epochs + 1
    allow = " 'resume.allow=[trainer.epochs]'" if "trainer.epochs" in find_length_keys(now) else ""
    finish = f"finish that epoch first: resume with trainer.epochs={epoch}{allow}"
    for epoch_key in _EPOCH_KEYS:
        keys = [key for key in changes.keys() - READING_KEYS if is_below(key.partition(" ")[0], epoch_key)]
        if keys:
            found = f"can only change between two epochs, and the newest checkpoint is within epoch {epoch}"
            has_new_contents = epoch_key == "data" and all(" " in key for key in keys)  # of the files themselves
            fix = _make_new_data_fix(folder) if has_new_contents else finish
            yield epoch_key, f"{found}{_describe_sizes(changes)}" if has_new_contents else found, fix


def _describe_sizes(changes: Changes) -> str:
    sizes = (
        f"{key.removeprefix('data (').rstrip(')')}: {before:,} samples, now {now:,}"
        for key, (before, now) in changes.items()
        if key.startswith("data (") and key != CONTENTS_KEY
    )
    return f" ({'; '.join(sizes)})"


def _make_new_data_fix(folder: Path) -> str:
    """Say how to train on with data files that have changed: the epoch can't be finished without the former ones."""
    restore = "put the former data back and finish that epoch first"
    later: list[str] = []
    for path in reversed(list_checkpoints(folder / CHECKPOINTS_FOLDER)):
        if _is_between_epochs(path):
            again = f"remove {' and '.join(later)} and resume with 'resume.allow=[data]'"
            return f"{restore}; or, to train on the new data from the end of an earlier epoch, {again}"
        later.append(format_file_path(path))
    return f"{restore}; or train on the new data from the start: {rerun_command(format_file_path(folder))}"


def _is_between_epochs(path: Path) -> bool:
    try:
        return _read_part(read_checkpoint(path), "left") is None
    except (DamagedCheckpoint, OSError):
        return False


def _check_average(snapshot: Snapshot, average: WeightAverage | None, *, is_other: bool) -> Iterator[_Finding]:
    saved, position = _read_part(snapshot, "average"), _read_part(snapshot, "left")
    is_validating = isinstance(position, Mapping) and position.get("results") is not None
    try:
        if average is not None:
            count = 0 if is_other else get_nested_value(saved, "count")
            count = count if type(count) is int else 0
            average.keeps_saved(count, find_trained_length(snapshot).epochs + is_validating)
    except UnusableAverage as error:
        yield "trainer.average.start_epoch", error.found, error.fix


def _get_average_type(tree: SpecTree) -> str | None:
    name: str | None = get_nested_value(tree, "trainer.average.type")
    return name


def _has_other_groups(before: SpecTree, now: SpecTree) -> bool:
    """Return whether the optimizer's groups may have other members."""
    paths = ("optimizer.groups", "model.freeze", "freeze")
    return any(get_nested_value(before, path) != get_nested_value(now, path) for path in paths)


def _has_saved_parameter_names(snapshot: Snapshot) -> bool:
    optimizer = _read_part(snapshot, "optimizer")
    return not isinstance(optimizer, Mapping) or "names" in optimizer


def _read_part(snapshot: Snapshot | None, name: str) -> Any:
    """Return the state of one part of a checkpoint; None if it has none or can't be read."""
    if snapshot is None:
        return None
    try:
        return snapshot.to_state_dict().get(name)
    except Exception:  # reported when the checkpoint is loaded
        return None


def read_saved_spec(snapshot: Snapshot | None, folder: Path) -> SpecTree:
    """Read the spec that a checkpoint was trained with: its own, or that of its folder if it has none."""
    if snapshot is not None and snapshot.spec:
        return snapshot.spec
    path = folder / SPEC_FILE
    return _to_plain_tree(load_yaml_file(path).tree) if is_regular_file(path) else {}


def _to_plain_tree(tree: SpecTree) -> SpecTree:
    """Convert a spec to what JSON gives back, as in a checkpoint."""
    plain: SpecTree = json.loads(json.dumps(dict(tree)))
    return plain
