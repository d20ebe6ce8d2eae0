"""The callbacks that every run gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.runs.file_names import CHECKPOINTS_FOLDER
from dlspec.training.callbacks.callback import Callback, EarlyStopping
from dlspec.training.callbacks.checkpoints import CheckpointParticipant, CheckpointSaver
from dlspec.training.callbacks.curves import Curves
from dlspec.training.callbacks.log_files import MetricsFile, ResultFile, TensorBoard, TextLog, TimingFile
from dlspec.training.callbacks.prediction_plots import PredictionPlots
from dlspec.training.callbacks.status_file import StatusFile
from dlspec.training.distributed import ProcessGroup, find_process_group


def make_default_callbacks(
    settings: TrainerSpec,
    folder: Path | None = None,
    metadata: Mapping[str, str] | None = None,
    is_of_sweep: bool = False,
) -> list[Callback]:
    """Make the callbacks that the settings ask for: early stopping, progress, and the files in the run's folder.

    With multiple processes, only one of them writes files and prints progress.

    Args:
        settings: the `trainer` section.
        folder: the run's folder; None writes no files.
        metadata: strings to write into checkpoints.
        is_of_sweep: whether the run is one of a sweep's jobs.

    Returns:
        The callbacks, in the order in which they must be called.
    """
    group = find_process_group()
    is_writer = group.is_writer
    callbacks: list[Callback] = []
    if settings.patience is not None:
        callbacks.append(EarlyStopping(settings.patience))
    if settings.progress != "none" and is_writer:
        from dlspec.training.callbacks.progress import Progress

        callbacks.append(Progress(settings.progress))
    if folder is None:
        return callbacks
    if not is_writer:
        return [*callbacks, _make_participant(settings, folder, metadata, group)] if settings.checkpoints else callbacks
    return [*callbacks, *_make_file_callbacks(settings, folder, metadata, group, is_of_sweep=is_of_sweep)]


def _make_participant(
    settings: TrainerSpec, folder: Path, metadata: Mapping[str, str] | None, group: ProcessGroup
) -> Callback:
    return _make_saver(settings, folder, metadata, group) if group.is_sharded else CheckpointParticipant(group)


def _make_saver(
    settings: TrainerSpec,
    folder: Path,
    metadata: Mapping[str, str] | None,
    group: ProcessGroup,
    *,
    saves_first_epoch: bool = True,
) -> CheckpointSaver:
    saver = CheckpointSaver
    if group.is_sharded:
        from dlspec.training.callbacks.sharded_checkpoints import ShardedCheckpointSaver  # imports torch.distributed

        saver = ShardedCheckpointSaver
    return saver(
        folder / CHECKPOINTS_FOLDER,
        metadata,
        keep=settings.keep_checkpoints,
        steps=settings.checkpoint_steps,
        minutes=settings.checkpoint_minutes,
        saves_first_epoch=saves_first_epoch,
        group=group,
    )


def _make_file_callbacks(
    settings: TrainerSpec, folder: Path, metadata: Mapping[str, str] | None, group: ProcessGroup, *, is_of_sweep: bool
) -> list[Callback]:
    callbacks: list[Callback] = [TextLog(), MetricsFile(folder), TimingFile(folder)]
    if settings.checkpoints:
        callbacks.append(_make_saver(settings, folder, metadata, group, saves_first_epoch=not is_of_sweep))
    if settings.tensorboard:
        callbacks.append(TensorBoard(folder))
    if settings.curves:
        callbacks.append(Curves(folder))
    if settings.pictures:
        callbacks.append(PredictionPlots(folder))
    return [*callbacks, ResultFile(folder), StatusFile(folder)]
