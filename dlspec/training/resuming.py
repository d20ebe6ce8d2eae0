"""A run taken apart into what a checkpoint keeps, and put together again: it goes on as if it had never stopped.

What is not kept is what the spec says anew: the order of the samples follows from seed and epoch, data and settings
come from the spec.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlspec.training.checkpoint_files import Snapshot
from dlspec.training.optimizing import without_dynamo
from dlspec.training.packing import Tensors, pack
from dlspec.training.randomness import random_state, set_random_state
from dlspec.training.schedule import Schedule
from dlspec.training.state import TrainingFailed

if TYPE_CHECKING:
    from dlspec.training.trainer import Trainer

_PROGRESS = ("epoch", "step", "results", "history", "timing")


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


def snapshot_of(trainer: Trainer, seconds: float) -> Snapshot:
    """The whole run between two steps; `seconds` were spent in this epoch. Its tensors are copies on the CPU."""
    state, epoch = trainer.state, trainer.epoch
    tensors: Tensors = {}
    parts = {
        "progress": {name: getattr(state, name) for name in _PROGRESS},
        "monitor": vars(state.monitor),
        "network": trainer.network.state_dict(),
        "optimizer": _optimizer_state(trainer),
        "schedule": trainer.schedule.scheduler.state_dict() if trainer.schedule else None,
        "average": state.average.state_dict() if state.average else None,
        "generators": (epoch and epoch.generators) or random_state(trainer.device),
        "left": None if epoch is None else _left(trainer, epoch, seconds),
    }
    tree = {name: pack(each, tensors, name) for name, each in parts.items()}
    own = [[type(each).__name__, each.state_dict(state)] for each in trainer.callbacks]
    packed = [[name, pack(each, tensors, f"callback.{name}", copy=False)] for name, each in own if each]
    return Snapshot(state.step, {"dict": [*map(list, tree.items()), ["callbacks", packed]]}, tensors)


def _left(trainer: Trainer, epoch: Epoch, seconds: float) -> dict[str, Any]:
    is_training = epoch.results is None
    return {
        "seconds": seconds,
        "lr": epoch.lr,
        "batch": trainer.state.batch if is_training else epoch.batch,
        "samples": trainer.state.samples if is_training else epoch.samples,
        "results": epoch.results,
        "scores": trainer.scores.state_dict() if is_training else None,
    }


def _optimizer_state(trainer: Trainer) -> Any:
    if trainer.optimizer is None:
        return None
    with without_dynamo():
        return trainer.optimizer.state_dict()


def restore(trainer: Trainer, snapshot: Snapshot) -> Left | None:
    """Puts the run where it was; gives where in its epoch that is, None between two.

    Raises TrainingFailed where the snapshot is another network's, optimizer's or no run's.
    """
    try:
        return _restore(trainer, snapshot.unpacked())
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TrainingFailed(f"the checkpoint of step {snapshot.step} does not fit this run: {reason}") from error


def _restore(trainer: Trainer, parts: Mapping[str, Any]) -> Left | None:
    state = trainer.state
    for name in _PROGRESS:
        setattr(state, name, type(getattr(state, name))(parts["progress"][name]))
    vars(state.monitor).update({name: parts["monitor"][name] for name in vars(state.monitor)})
    trainer.network.load_state_dict(parts["network"])
    if trainer.optimizer is not None:
        with without_dynamo():
            trainer.optimizer.load_state_dict(parts["optimizer"])
        trainer.optimizer._opt_called = True  # type: ignore[attr-defined]  # schedulers ask whether it has stepped
    if trainer.schedule is not None:
        _restore_schedule(trainer.schedule, parts["schedule"])
    if state.average is not None and parts["average"] is not None:
        state.average.load_state_dict(parts["average"])
    trainer.freezing.enter(max(state.epoch, 1))
    own = dict(parts["callbacks"])
    for callback in trainer.callbacks:
        if type(callback).__name__ in own:
            callback.load_state_dict(state, own[type(callback).__name__])
    set_random_state(parts["generators"], trainer.device)
    return None if parts["left"] is None else Left(**parts["left"])


def _restore_schedule(schedule: Schedule, own: dict[str, Any]) -> None:
    """Its attributes in their own types: MultiStepLR counts its milestones with a Counter."""
    scheduler = schedule.scheduler
    counted = {name for name, each in vars(scheduler).items() if isinstance(each, Counter)}
    scheduler.load_state_dict({name: Counter(each) if name in counted else each for name, each in own.items()})
