"""The callbacks of an ordinary run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.runs.layout import CHECKPOINTS
from dlspec.training.callbacks.callback import Callback, EarlyStopping
from dlspec.training.callbacks.checkpoints import Checkpoints
from dlspec.training.callbacks.curves import Curves
from dlspec.training.callbacks.logs import LogLines, MetricsFile, ResultFile, TensorBoard, TimingFile
from dlspec.training.callbacks.pictures import Pictures
from dlspec.training.callbacks.status_file import StatusFile
from dlspec.training.distributed import find_process_group


def standard_callbacks(
    settings: TrainerSpec, folder: Path | None = None, metadata: Mapping[str, str] | None = None
) -> list[Callback]:
    """What `settings` ask for: progress, and with a run folder its files. `metadata` is put into the checkpoints.

    Without a folder nothing is written, and of several processes one alone writes and shows.
    """
    is_writer = find_process_group().is_writer
    callbacks: list[Callback] = []
    if settings.patience is not None:
        callbacks.append(EarlyStopping(settings.patience))
    if settings.progress != "none" and is_writer:
        from dlspec.training.callbacks.progress import Progress

        callbacks.append(Progress(settings.progress))
    if folder is None or not is_writer:
        return callbacks
    return [*callbacks, *_files(settings, folder, metadata)]


def _files(settings: TrainerSpec, folder: Path, metadata: Mapping[str, str] | None) -> list[Callback]:
    callbacks: list[Callback] = [LogLines(), MetricsFile(folder), TimingFile(folder)]
    if settings.checkpoints:
        callbacks.append(
            Checkpoints(
                folder / CHECKPOINTS,
                metadata,
                keep=settings.keep_checkpoints,
                steps=settings.checkpoint_steps,
                minutes=settings.checkpoint_minutes,
            )
        )
    if settings.tensorboard:
        callbacks.append(TensorBoard(folder))
    if settings.curves:
        callbacks.append(Curves(folder))
    if settings.pictures:
        callbacks.append(Pictures(folder))
    return [*callbacks, ResultFile(folder), StatusFile(folder)]
