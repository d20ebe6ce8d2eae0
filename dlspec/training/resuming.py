"""A run taken apart into what a checkpoint keeps, and put together again: it goes on as if it had never stopped.

What is not kept is what the spec says anew: the order of the samples follows from seed and epoch, data and settings
come from the spec.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.compat.torch_dynamo import without_dynamo
from dlspec.data.dataset import Dataset
from dlspec.errors import TrainingFailed, cut
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.optim.freezing import Freezing
from dlspec.optim.memory import state_bytes
from dlspec.optim.optimizer import restore_optimizer
from dlspec.optim.schedule import Schedule
from dlspec.text import first_line
from dlspec.training.callbacks.callback import Callback
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.checkpoint.packing import Rows, Tensors, pack
from dlspec.training.evaluation.scores import Scores
from dlspec.training.health.on_nan import OnNan
from dlspec.training.runtime.randomness import random_state, set_random_state
from dlspec.training.state import State
from dlspec.training.step.computing import Computing

Count = Annotated[int, Field(ge=0, lt=2**53)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Checked(BaseModel):
    """What a checkpoint says, each value of the type that it must have: the file may come from a stranger."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Timing(_Checked):
    epoch: Count
    step: Count
    seconds: Seconds
    train_seconds: Seconds
    samples: Count
    samples_per_second: Seconds


class _Progress(_Checked):
    epoch: Count
    step: Count
    results: dict[str, float]
    history: list[dict[str, float]]
    timing: list[_Timing]


class _Monitor(_Checked):
    name: str
    mode: str
    value: float
    epoch: Count
    is_best: bool


class _Left(_Checked):
    seconds: Seconds
    lr: float | None
    batch: Count
    samples: Count
    results: dict[str, float] | None
    scores: Any


@dataclass
class Epoch:
    """The epoch that is going on: what a run that was left in the middle of one wants to know.

    `started` is on `time.perf_counter`. When the training split is done `results` are its results, and `generators`
    stand as they did then: validation begins anew.
    """

    started: float
    lr: float | None
    batch: int = 0
    samples: int = 0
    results: dict[str, float] | None = None
    generators: dict[str, Any] | None = None


@dataclass(frozen=True)
class Left:
    """Where in its epoch a run was left."""

    seconds: float
    lr: float | None
    batch: int
    samples: int
    results: dict[str, float] | None
    scores: Mapping[str, Any] | None = field(default=None, repr=False)


class Resumable(Protocol):
    """What a checkpoint keeps of a trainer, and gives back to it."""

    network: nn.Module
    optimizer: Optimizer | None
    schedule: Schedule | None
    freezing: Freezing
    callbacks: Sequence[Callback]
    data: Dataset
    settings: TrainerSpec
    device: torch.device
    computing: Computing
    scores: Scores
    on_nan: OnNan
    state: State
    epoch: Epoch | None


def snapshot_of(trainer: Resumable, seconds: float) -> Snapshot:
    """The whole run between two steps; `seconds` were spent in this epoch. Its tensors are copies on the CPU."""
    state, epoch, scaler = trainer.state, trainer.epoch, trainer.computing.scaler
    tensors: Tensors = {}
    parts = {
        "progress": {
            "epoch": state.epoch,
            "step": state.step,
            "results": state.results,
            "history": Rows(state.history),
            "timing": Rows(state.timing),
        },
        "samples": samples_of(trainer.data),
        "monitor": vars(state.monitor),
        "network": trainer.network.state_dict(),
        "optimizer": _optimizer_state(trainer),
        "scaler": scaler.state_dict() if scaler else None,
        "schedule": trainer.schedule.scheduler.state_dict() if trainer.schedule else None,
        "average": state.average.state_dict() if state.average else None,
        "generators": (epoch and epoch.generators) or random_state(trainer.device),
        "left": None if epoch is None else _left(trainer, epoch, seconds),
        "on_nan": {"type": trainer.settings.on_nan, **trainer.on_nan.state_dict(epoch is None)},
    }
    tree = {name: pack(each, tensors, name) for name, each in parts.items()}
    own = [[each.kept_as, each.state_dict(state)] for each in trainer.callbacks]
    packed = [[name, pack(each, tensors, f"callback.{name}", copy=False)] for name, each in own if each]
    return Snapshot(state.step, {"dict": [*map(list, tree.items()), ["callbacks", packed]]}, tensors)


def checkpoint_bytes(trainer: Resumable) -> int:
    """What a checkpoint will take at least: weights, the best ones too, their average, the optimizer's state."""
    kept = [each for each in trainer.network.state_dict().values() if isinstance(each, Tensor)]
    weights = sum(each.numel() * each.element_size() for each in kept)
    optimizer = state_bytes(trainer.optimizer) if trainer.optimizer else 0
    return weights * (3 if trainer.state.average else 2) + (optimizer or 0)


def samples_of(data: Dataset) -> dict[str, int]:
    """How many samples each split has: the order of an epoch follows from that."""
    return {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}


def _left(trainer: Resumable, epoch: Epoch, seconds: float) -> dict[str, Any]:
    is_training = epoch.results is None
    return {
        "seconds": seconds,
        "lr": epoch.lr,
        "batch": trainer.state.batch if is_training else epoch.batch,
        "samples": trainer.state.samples if is_training else epoch.samples,
        "results": epoch.results,
        "scores": trainer.scores.state_dict() if is_training else None,
    }


def _optimizer_state(trainer: Resumable) -> Any:
    if trainer.optimizer is None:
        return None
    with without_dynamo():
        return trainer.optimizer.state_dict()


def restore(trainer: Resumable, snapshot: Snapshot) -> Left | None:
    """Puts the run where it was; gives where in its epoch that is, None between two.

    Raises TrainingFailed where the snapshot is another network's, optimizer's or no run's.
    """
    try:
        return _restore(trainer, snapshot.unpacked())
    except Exception as error:  # whatever PyTorch says of a stranger's numbers
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        else:
            reason = first_line(f"{type(error).__name__}: {error}")
        raise TrainingFailed(f"the checkpoint of step {snapshot.step} does not fit this run: {cut(reason)}") from error


def _restore(trainer: Resumable, parts: Mapping[str, Any]) -> Left | None:
    state = trainer.state
    left = None if parts["left"] is None else _Left.model_validate(parts["left"])
    _restore_progress(state, parts["progress"], is_within=left is not None)
    _restore_monitor(state, parts["monitor"])
    trainer.network.load_state_dict(parts["network"])
    if trainer.optimizer is not None:
        restore_optimizer(trainer.optimizer, parts["optimizer"])
    if trainer.computing.scaler is not None:
        trainer.computing.scaler.load_state_dict(parts["scaler"])
    if trainer.schedule is not None:
        _restore_schedule(trainer.schedule, parts["schedule"])
    if state.average is not None and parts["average"] is not None:
        state.average.load_state_dict(parts["average"])
    if parts.get("on_nan", {}).get("type") == trainer.settings.on_nan:
        trainer.on_nan.load_state_dict(parts["on_nan"])
    trainer.freezing.enter(max(state.epoch, 1))
    own = dict(parts["callbacks"])
    for callback in trainer.callbacks:
        if callback.kept_as in own:
            callback.load_state_dict(state, own[callback.kept_as])
    set_random_state(parts["generators"], trainer.device)
    return None if left is None else Left(**dict(left))


def _restore_progress(state: State, own: Any, is_within: bool) -> None:
    progress = _Progress.model_validate(own)
    finished = progress.epoch - is_within
    if not len(progress.history) == len(progress.timing) == finished:
        raise ValueError(f"{finished} epochs are finished, and {len(progress.history)} have results")
    for name, value in progress.model_dump().items():
        setattr(state, name, value)


def _restore_monitor(state: State, own: Any) -> None:
    """The best epoch so far, unless another result is watched from here on."""
    saved, monitor = _Monitor.model_validate(own), state.monitor
    if saved.epoch > len(state.history):
        raise ValueError(f"epoch {saved.epoch} is the best of {len(state.history)}")
    if (saved.name, saved.mode) == (monitor.name, monitor.mode):
        monitor.value, monitor.epoch, monitor.is_best = saved.value, saved.epoch, saved.is_best


def _restore_schedule(schedule: Schedule, own: dict[str, Any]) -> None:
    """Its attributes in their own types: MultiStepLR counts its milestones with a Counter."""
    scheduler = schedule.scheduler
    unknown = own.keys() - scheduler.state_dict().keys()
    if unknown:
        raise ValueError(f"the scheduler has no {min(unknown)}")
    counted = {name for name, each in vars(scheduler).items() if isinstance(each, Counter)}
    scheduler.load_state_dict({name: Counter(each) if name in counted else each for name, each in own.items()})
